"""Image settings and tokenizers of checkpoints against transformers', however they were saved."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage
from transformers import AutoTokenizer, CLIPConfig
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from vlmquant.checkpoints.processors import blip_images, clip_images, clip_tokenizer
from vlmquant.checkpoints.random_weights import invented_tokenizer
from vlmquant.errors import ModelError
from vlmquant.models.preprocess import preprocess
from vlmquant.models.tokenizer import Tokenizer

TEXTS = ["a b", "ab <car> c", "", "x " * 40, "it's  A\ttab", "caf\u00e9 \U0001f600"]
FAMILIES = {"clip": (CLIPImageProcessorPil, clip_images), "blip": (BlipImageProcessorPil, blip_images)}


def change_json(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**content, **changes}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    invented_tokenizer(600, 20).save(tmp_path)
    return tmp_path


@pytest.fixture
def slow_folder(folder: Path) -> Path:
    """A folder as the hub's older ones, with vocab.json and merges.txt."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in model["merges"]), ""]))
    return folder


def their_ids(folder: Path, positions: int) -> list[list[int]]:
    tokenizer = AutoTokenizer.from_pretrained(folder, config=CLIPConfig())
    length = min(tokenizer.model_max_length, positions)
    return [tokenizer(text, truncation=True, max_length=length).input_ids for text in TEXTS]


def ids(tokenizer: Tokenizer) -> list[list[int]]:
    return [tokenizer.encode_batch([text])[0].tolist() for text in TEXTS]


@pytest.mark.parametrize(("limit", "positions"), [(20, 20), (12, 20), (20, 12), (10**30, 20), (None, 20)])
def test_a_text_is_cut_where_transformers_cuts_it(folder: Path, limit: int | None, positions: int) -> None:
    change_json(folder / "tokenizer_config.json", model_max_length=limit)
    tokenizer = clip_tokenizer(folder, positions, 600)
    assert ids(tokenizer) == their_ids(folder, positions)
    assert tokenizer.context_length == min(limit or 10**30, positions)
    tokenizer.save(folder / "..")
    assert ids(Tokenizer.from_folder(folder / "..")) == ids(tokenizer)


def test_vocabulary_and_merges_files_give_transformers_ids(slow_folder: Path) -> None:
    assert ids(clip_tokenizer(slow_folder, 20, 600)) == their_ids(slow_folder, 20)


@pytest.mark.parametrize("decoder", [False, True])
def test_added_tokens_are_read_and_must_have_a_row(slow_folder: Path, decoder: bool) -> None:
    if decoder:
        flags = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word", "special"), False)
        added = {"600": {"content": "<car>", **flags}}
        change_json(slow_folder / "tokenizer_config.json", added_tokens_decoder=added)
    else:
        change_json(slow_folder / "added_tokens.json", **{"<car>": 600})
    tokenizer = clip_tokenizer(slow_folder, 20, 601)
    assert 600 in ids(tokenizer)[1]
    assert ids(tokenizer) == their_ids(slow_folder, 20)
    with pytest.raises(ModelError, match="'<car>' the id 600 and the model has 600 tokens"):
        clip_tokenizer(slow_folder, 20, 600)


@pytest.mark.parametrize(("pad", "expected"), [(None, 599), ("!", 0)])
def test_without_a_pad_token_the_end_token_pads(folder: Path, pad: str | None, expected: int) -> None:
    change_json(folder / "tokenizer_config.json", pad_token=pad)
    tokenizer = clip_tokenizer(folder, 20, 600)
    assert ids(tokenizer) == their_ids(folder, 20)
    assert tokenizer.encode_batch(["b", "b b b"])[0, -1] == expected


def no_end_token(folder: Path) -> None:
    change_json(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    change_json(folder / "tokenizer.json", post_processor=None)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "left padding": (lambda f: change_json(f / "tokenizer_config.json", padding_side="left"), "padding_side = 'left'"),
    "left cut": (
        lambda f: change_json(f / "tokenizer_config.json", truncation_side="left"),
        "truncation_side = 'left'",
    ),
    "length": (lambda f: change_json(f / "tokenizer_config.json", model_max_length="77"), "model_max_length = '77'"),
    "no room": (lambda f: change_json(f / "tokenizer_config.json", model_max_length=2), "model_max_length = 2"),
    "no end": (no_end_token, "expected the end token 599"),
    "not JSON": (lambda f: (f / "tokenizer.json").write_text("{"), "is not JSON"),
    "none": (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer.json"),
    "huge id": (lambda f: (f / "vocab.json").write_text(json.dumps({"z": 2**31})), "'z' the id 2147483648"),
    "no id": (lambda f: (f / "added_tokens.json").write_text(json.dumps({"z": None})), "'z' the id null"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_tokenizer_that_the_model_would_misread_is_refused(folder: Path, fault: str) -> None:
    breaks, message = BROKEN[fault]
    breaks(folder)
    with pytest.raises(ModelError, match=message):
        clip_tokenizer(folder, 20, 600)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("older", [False, True])
def test_settings_inside_processor_config_win(tmp_path: Path, family: str, older: bool) -> None:
    processor, read = FAMILIES[family]
    processor(size=32, crop_size=32, image_mean=[0.1, 0.2, 0.3]).save_pretrained(tmp_path)
    inside = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": inside}))
    if older:
        change_json(tmp_path / "preprocessor_config.json", image_mean=[0.4, 0.5, 0.6])
    else:
        (tmp_path / "preprocessor_config.json").unlink()
    picture = PillowImage.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    expected = np.asarray(processor.from_pretrained(tmp_path)(picture)["pixel_values"][0])
    np.testing.assert_allclose(preprocess(picture, read(tmp_path, 32)), expected, atol=1e-5)


def test_a_processor_config_without_image_settings_leaves_them_to_the_older_file(tmp_path: Path) -> None:
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "CLIPProcessor"}))
    with pytest.raises(ModelError, match=r"no preprocessor_config.json \(nor processor_config.json\)"):
        clip_images(tmp_path, 32)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": 32, "crop_size": 32}))
    assert clip_images(tmp_path, 32).shortest_edge == 32
    with pytest.raises(ModelError, match=r"32 x 32 \(size, crop_size\) and the model takes 64 x 64"):
        clip_images(tmp_path, 64)
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": [1]}))
    with pytest.raises(ModelError, match="is a list, expected a JSON object"):
        clip_images(tmp_path, 32)


def test_a_number_is_a_square_to_blip_and_an_edge_to_clip(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": 384, "crop_size": 384}))
    assert (blip_images(tmp_path, 384).resize_height, blip_images(tmp_path, 384).shortest_edge) == (384, None)
    assert (clip_images(tmp_path, 384).resize_height, clip_images(tmp_path, 384).shortest_edge) == (None, 384)
