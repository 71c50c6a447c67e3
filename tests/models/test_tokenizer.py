"""The tokenizer against transformers' CLIPTokenizer."""

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import CLIPTokenizer

from vlmquant.checkpoints.processors import clip_tokenizer
from vlmquant.checkpoints.random_weights import invented_tokenizer
from vlmquant.errors import ModelError
from vlmquant.models.tokenizer import Tokenizer

ODD_TEXTS = [
    "", " ", "\t\n", "a", "A photo of a CAT.", "it's the dog's, isn't it?", "they'll we've I'd I'm", "1234 5 67",
    "caf\u00e9 na\u00efve", "cafe\u0301 decomposed", "\u65e5\u672c\u8a9e\u306e\u5199\u771f", "\u0639\u0631\u0628\u064a",
    "\u0420\u0443\u0441\u0441\u043a\u0438\u0439 \u0422\u0435\u043a\u0441\u0442",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "a\u00a0b\u2003c", "x" * 500, "word " * 200, "!!! ??? ...", "<|endoftext|>",
    "<|startoftext|> in <|endoftext|> text",
    "&amp; <br>", "\u0000\u0001", "STRASSE \u00df \u0130stanbul", "e=mc^2; a_b-c/d\\e",
    '"quoted" \u201ctext\u201d \u2014 dash', "#hash @at $5.00 50%", "newline\nin\r\ntext",
]  # fmt: skip
SUBJECTS = ["a person", "two dogs", "The BUS", "7 cyclists", "an empty street", "nobody"]
ACTIONS = ["walking", "stopping at 5pm", "don't cross", "in the rain,", "(blurred)"]
PLACES = [
    "at night",
    "near \u6771\u4eac",
    "under a bridge!",
    "on 3rd avenue",
    "\u2013 from above",
    "with umbrellas & bags",
]


def many_texts() -> list[str]:
    return ODD_TEXTS + [f"{subject} {action} {place}" for subject in SUBJECTS for action in ACTIONS for place in PLACES]


def expected_ids(reference: CLIPTokenizer, texts: list[str], length: int) -> np.ndarray:
    return reference(texts, padding=True, truncation=True, max_length=length, return_tensors="np")["input_ids"]


def test_ids_equal_transformers(shared_data: Path) -> None:
    folder = shared_data / "tokenizers" / "clip"
    tokenizer, reference = clip_tokenizer(folder, 77, 49_408), CLIPTokenizer.from_pretrained(folder)
    texts = many_texts()
    assert len(texts) > 200
    assert (tokenizer.context_length, tokenizer.eos_id, tokenizer.pad_id) == (77, 49407, 49407)
    np.testing.assert_array_equal(tokenizer.encode_batch(texts), expected_ids(reference, texts, 77))
    for text in texts:
        np.testing.assert_array_equal(tokenizer.encode_batch([text]), expected_ids(reference, [text], 77))


def test_small_tokenizer_equals_transformers_after_saving(tmp_path: Path) -> None:
    made = invented_tokenizer(700, 12)
    made.save(tmp_path)
    read, reference = Tokenizer.from_folder(tmp_path), CLIPTokenizer.from_pretrained(tmp_path)
    assert made.vocabulary_size == read.vocabulary_size == 700
    np.testing.assert_array_equal(read.encode_batch(many_texts()), expected_ids(reference, many_texts(), 12))
    np.testing.assert_array_equal(made.encode_batch(many_texts()), read.encode_batch(many_texts()))
    assert json.loads((tmp_path / "tokenizer.json").read_text())["truncation"] is None


def test_a_long_text_keeps_its_end_token() -> None:
    tokenizer = invented_tokenizer(600, 8)
    ids = tokenizer.encode_batch(["a very long text indeed", "b"])
    assert ids.dtype == np.int64
    assert ids.shape == (2, 8)
    assert ids[:, 0].tolist() == [598, 598]
    assert ids[0, -1] == tokenizer.eos_id == 599
    assert (ids[0, 1:-1] < 598).all()
    assert ids[1, 2:].tolist() == [599] * 6  # start, b</w>, end, then the pad token, which is the end token


def test_rows_are_padded_with_the_pad_token(tmp_path: Path) -> None:
    invented_tokenizer(600, 8).save(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings["pad_token"] = {"content": "!", "special": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = Tokenizer.from_folder(tmp_path)
    ids = tokenizer.encode_batch(["b", "b b b"])
    assert tokenizer.pad_id == 0
    assert ids[0].tolist() == [598, ids[1, 1], 599, 0, 0]


def test_no_texts_give_no_rows() -> None:
    assert invented_tokenizer(600, 8).encode_batch([]).shape == (0, 0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", None, "no tokenizer.json"),
        ("tokenizer.json", "{", "is not JSON"),
        ("tokenizer.json", "{}", "not a tokenizer file"),
        ("tokenizer_config.json", "[]", "expected a JSON object"),
        ("tokenizer_config.json", "{", "is not JSON"),
        ("tokenizer_config.json", "{}", "how long a text may be"),
        ("tokenizer_config.json", '{"model_max_length": 1000000000000000019884624838656}', "how long a text may be"),
        ("tokenizer_config.json", '{"model_max_length": 8, "eos_token": "<end>"}', "no token '<end>'"),
        ("tokenizer.json", "[" * 100_000, "is not JSON"),
        ("tokenizer.json", '{"model": {"vocab": {"zzz": 2147483648}}}', "'zzz' the id 2147483648, expected a whole"),
        ("tokenizer.json", '{"model": {"vocab": {"zzz": -1}}}', "'zzz' the id -1, expected a whole"),
        ("tokenizer.json", '{"added_tokens": [{"content": "q", "id": 2147483648}]}', "'q' the id 2147483648"),
    ],
)
def test_broken_folders_are_refused(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    invented_tokenizer(600, 8).save(tmp_path)
    (tmp_path / name).unlink() if content is None else (tmp_path / name).write_text(content)
    with pytest.raises(ModelError, match=message):
        Tokenizer.from_folder(tmp_path)
