"""WordPiece against transformers' `BertTokenizer`, and what it refuses."""

import json
from pathlib import Path

import pytest
from transformers import BertTokenizer

from vlmquant.checkpoints.processors import wordpiece_tokenizer
from vlmquant.checkpoints.random_weights import invented_wordpiece
from vlmquant.errors import DataError, ModelError
from vlmquant.models.wordpiece import WordPieceTokenizer

TEXTS = (
    "a man's dog, and the cat.",
    "It isn't RED: 'tis blue!",
    "they've won 3-2; aren't we happy?",
    "Café\tnaïve\n  two   spaces",
    "東京 tower ☃ #1 [SEP] [DEC]",
    "antidisestablishmentarianism",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wordpiece")
    invented_wordpiece(900, context_length=64).save(path)
    return path


@pytest.fixture(scope="module")
def vocab_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as Salesforce's, without tokenizer.json and without [DEC] and [ENC]."""
    path = tmp_path_factory.mktemp("vocab")
    vocab = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (path / "vocab.txt").write_text("\n".join(sorted(vocab, key=vocab.__getitem__)[:-2]) + "\n")
    (path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 64, "do_lower_case": True}))
    return path


@pytest.mark.parametrize("which", ["folder", "vocab_folder"])
@pytest.mark.parametrize("cleans_up", [False, True])
def test_ids_and_texts_equal_transformers(which: str, cleans_up: bool, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(which)
    settings = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps({**settings, "clean_up_tokenization_spaces": cleans_up}))
    ours, theirs = wordpiece_tokenizer(path, 64, 900), BertTokenizer.from_pretrained(path)
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == theirs(text).input_ids, text
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True), text
    # What a decoder may write: [DEC] first, an id beyond the vocabulary's end, padding after the end.
    written = [898, *ours.encode("it ' s a man ' s dog , isn ' t it ?")[1:], 0, 0]
    assert ours.decode(written[1:]) == theirs.decode(written[1:], skip_special_tokens=True)
    assert ours.decode(written) == ours.decode(written[1:])


def test_apostrophes_and_commas_after_clean_up(folder: Path) -> None:
    tokenizer = WordPieceTokenizer.from_folder(folder)
    ids = tokenizer.encode("a man's dog, red")
    tokenizer.cleans_up = False
    assert tokenizer.decode(ids) == "a man ' s dog, red"
    tokenizer.cleans_up = True
    assert tokenizer.decode(ids) == "a man's dog, red"


def test_the_full_vocabulary_has_blips_ids() -> None:
    tokenizer = invented_wordpiece(30_524, context_length=512)
    assert tokenizer.vocabulary_size == 30_524
    assert (tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id) == (0, 101, 102)
    assert tokenizer.decode([30_522, *tokenizer.encode("ab zq9")]) == "ab zq9"


def test_saving_keeps_everything(folder: Path, tmp_path: Path) -> None:
    tokenizer = WordPieceTokenizer.from_folder(folder)
    tokenizer.save(tmp_path)
    again = WordPieceTokenizer.from_folder(tmp_path)
    assert (again.max_length, again.cleans_up) == (tokenizer.max_length, tokenizer.cleans_up)
    assert again.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_a_text_without_a_word_is_refused(folder: Path, text: str) -> None:
    with pytest.raises(DataError, match="holds no word"):
        WordPieceTokenizer.from_folder(folder).encode(text)


def test_a_text_too_long_is_refused_and_names_the_limit(folder: Path) -> None:
    tokenizer = WordPieceTokenizer.from_folder(folder)
    assert len(tokenizer.encode("a " * 62)) == 64
    with pytest.raises(DataError, match=r"'a a a.*has 10,002 tokens and the model reads at most 64"):
        tokenizer.encode("a " * 10_000)


def test_folders_that_cannot_be_read(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        WordPieceTokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="is not a tokenizer file"):
        WordPieceTokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    with pytest.raises(ModelError, match="does not say how long a text may be"):
        WordPieceTokenizer.from_folder(tmp_path)
    with pytest.raises(ModelError, match="at least 111 tokens: 80"):
        invented_wordpiece(80, 16)
