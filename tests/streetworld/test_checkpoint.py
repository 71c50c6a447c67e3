from pathlib import Path

import pytest

import streetworld
from vlmquant.errors import ModelError

WEIGHTS = Path(streetworld.__file__).parent / "weights" / "street-clip"

needs_weights = pytest.mark.skipif(
    not (WEIGHTS / "model.safetensors").is_file(), reason="the street CLIP has not been trained in this checkout"
)


def test_a_missing_checkpoint_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(streetworld, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(ModelError, match=r"training/train_clip\.py"):
        streetworld.checkpoint()


@needs_weights
def test_the_checkpoint_is_small_and_complete() -> None:
    names = {file.name for file in streetworld.checkpoint().iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"} <= names
    assert (WEIGHTS / "model.safetensors").stat().st_size < 12_000_000


@needs_weights
def test_transformers_reads_the_checkpoint_and_tokenizes_like_us() -> None:
    transformers = pytest.importorskip("transformers")
    from vlmquant.models.tokenizer import Tokenizer

    texts = ["a red bus at night", "An  Empty STREET, in the rain!", "caf\u00e9 \u732b"]
    theirs = transformers.AutoTokenizer.from_pretrained(str(WEIGHTS))(texts, padding=True)["input_ids"]
    assert Tokenizer.from_folder(WEIGHTS).encode_batch(texts).tolist() == theirs
    model = transformers.CLIPModel.from_pretrained(str(WEIGHTS))
    assert model.config.vision_config.image_size == 128
    assert model.config.text_config.vocab_size == max(map(max, theirs)) + 1


@needs_weights
def test_the_model_knows_the_street_far_better_than_chance() -> None:
    pytest.importorskip("torch")
    from vlmquant.checkpoints import load_model
    from vlmquant.tasks.classification import zero_shot
    from vlmquant.tasks.retrieval import retrieval

    encoder = load_model(streetworld.checkpoint()).encoder()
    labelled, pairs = streetworld.zero_shot_set(120), streetworld.retrieval_set(60)
    classes = zero_shot(encoder, labelled.images, labelled.labels, labelled.class_names, labelled.templates)
    ranks = retrieval(encoder, pairs.images, pairs.captions)
    assert classes.metrics["top1"] > 0.5
    assert ranks.metrics["image_to_text_r1"] > 0.5
