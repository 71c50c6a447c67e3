"""Both towers against transformers, and the matrix of broken checkpoints."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from transformers import CLIPModel

from fakes import tiny_clip_folder
from vlmquant.checkpoints import load_model
from vlmquant.errors import ModelError
from vlmquant.models.encoder import DualEncoder

TEXTS = ["a dog", "people crossing a wet street", "", "b", "far too many words to fit into this little context"]


@pytest.fixture
def broken(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint that a test may break."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "broken"))


def change_json(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = {k: v.clone() for k, v in safetensors.torch.load_file(folder / "model.safetensors").items()}
    change(state)
    safetensors.torch.save_file(state, folder / "model.safetensors")


def reference_features(folder: Path, ids: np.ndarray, end: int, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return transformers' own text features (with its attention mask) and image features."""
    reference = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = torch.from_numpy(ids)
    mask = ((tokens == end).cumsum(1) - (tokens == end).long() == 0).long()
    with torch.inference_mode():
        text = reference.get_text_features(input_ids=tokens, attention_mask=mask).pooler_output
        image = reference.get_image_features(pixel_values=torch.from_numpy(pixels)).pooler_output
    return text.numpy(), image.numpy()


def check_against_transformers(folder: Path) -> None:
    model = load_model(folder)
    ids = model.tokenizer.encode_batch(TEXTS)
    size = model.image_spec.crop_height
    pixels = np.random.default_rng(0).normal(size=(3, 3, size, size)).astype(np.float32)
    text, image = reference_features(folder, ids, model.tokenizer.eos_id, pixels)
    encoder = model.encoder()
    np.testing.assert_allclose(encoder.text_tower(ids), text, atol=2e-5)
    np.testing.assert_allclose(encoder.image_tower(pixels), image, atol=2e-5)


def test_both_towers_equal_transformers(tiny_checkpoint: Path) -> None:
    check_against_transformers(tiny_checkpoint)


def test_both_towers_of_a_trained_checkpoint_equal_transformers(shared_data: Path) -> None:
    check_against_transformers(shared_data / "checkpoints" / "clip-real-tiny")


def test_old_configurations_that_pool_at_the_greatest_id(broken: Path, tiny_checkpoint: Path) -> None:
    change_json(broken / "config.json", lambda c: c["text_config"].update(eos_token_id=2))
    check_against_transformers(broken)
    old, new = load_model(broken).encoder(), load_model(tiny_checkpoint).encoder()
    np.testing.assert_allclose(old.encode_texts(TEXTS), new.encode_texts(TEXTS), atol=1e-6)


def test_a_text_is_the_same_alone_and_padded(tiny_checkpoint: Path) -> None:
    encoder = load_model(tiny_checkpoint).encoder()
    alone = np.concatenate([encoder.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), alone, atol=1e-6)


def test_padding_with_another_token_changes_nothing(broken: Path, tiny_checkpoint: Path) -> None:
    change_json(broken / "tokenizer_config.json", lambda c: c.update(pad_token="!"))
    other, same = load_model(broken).encoder(), load_model(tiny_checkpoint).encoder()
    assert other.tokenizer.pad_id == 0
    np.testing.assert_allclose(other.encode_texts(TEXTS), same.encode_texts(TEXTS), atol=1e-6)


def test_embeddings_have_unit_length_and_keep_their_order(tiny_checkpoint: Path) -> None:
    encoder = load_model(tiny_checkpoint).encoder()
    generator = np.random.default_rng(1)
    images = [generator.integers(0, 256, (40, 30 + index, 3), dtype=np.uint8) for index in range(5)]
    rows = encoder.encode_images(images)
    assert rows.shape == (5, 24)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(encoder.encode_texts(TEXTS), axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(rows[3:4], encoder.encode_images(images[3:4]), atol=1e-6)
    small = DualEncoder(**{**vars(encoder), "batch_size": 2})
    np.testing.assert_allclose(small.encode_images(images), rows, atol=1e-6)
    with pytest.raises(ValueError, match="nothing to encode"):
        encoder.encode_images([])


def test_facts_of_a_checkpoint(tiny_checkpoint: Path) -> None:
    model = load_model(str(tiny_checkpoint))
    assert model.name == "clip"
    assert model.folder == tiny_checkpoint.resolve()
    assert model.logit_scale == pytest.approx(100, rel=1e-4)
    assert model.weights_sha256 == hashlib.sha256((tiny_checkpoint / "model.safetensors").read_bytes()).hexdigest()
    assert model.random_weights
    assert not any(parameter.requires_grad for parameter in model.image_tower.parameters())
    assert (model.image_spec.crop_height, model.tokenizer.context_length) == (32, 16)


def test_saved_preprocessing_reads_back(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from vlmquant.models.spec import ImageSpec
    from vlmquant.models.tokenizer import Tokenizer

    model = load_model(tiny_checkpoint)
    model.save_preprocessing(tmp_path)
    assert ImageSpec.from_folder(tmp_path) == model.image_spec
    tokenizer = Tokenizer.from_folder(tmp_path)
    np.testing.assert_array_equal(tokenizer.encode_batch(TEXTS), model.tokenizer.encode_batch(TEXTS))


def test_half_precision_weights_are_computed_in_float32(broken: Path, tiny_checkpoint: Path) -> None:
    change_weights(broken, lambda state: state.update({name: tensor.half() for name, tensor in state.items()}))
    half, full = load_model(broken), load_model(tiny_checkpoint)
    assert {parameter.dtype for parameter in half.text_tower.parameters()} == {torch.float32}
    np.testing.assert_allclose(half.encoder().encode_texts(TEXTS), full.encoder().encode_texts(TEXTS), atol=5e-3)


def test_stored_position_indices_of_older_checkpoints_are_ignored(broken: Path, tiny_checkpoint: Path) -> None:
    key = "text_model.embeddings.position_ids"
    change_weights(broken, lambda state: state.update({key: torch.arange(16)[None]}))
    rows = load_model(broken).encoder().encode_texts(TEXTS)
    np.testing.assert_allclose(rows, load_model(tiny_checkpoint).encoder().encode_texts(TEXTS), atol=1e-6)


def split_weights(folder: Path) -> None:
    """Turn the one weight file into two and an index."""
    state = safetensors.torch.load_file(folder / "model.safetensors")
    names = sorted(state)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, keys in parts.items():
        safetensors.torch.save_file({key: state[key].clone() for key in keys}, folder / file)
    index = {"weight_map": {key: file for file, keys in parts.items() for key in keys}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


def test_weights_in_several_files(broken: Path, tiny_checkpoint: Path) -> None:
    split_weights(broken)
    rows = load_model(broken).encoder().encode_texts(TEXTS)
    np.testing.assert_allclose(rows, load_model(tiny_checkpoint).encoder().encode_texts(TEXTS), atol=1e-6)
    (broken / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks the weight files model-00002"):
        load_model(broken)


@pytest.mark.parametrize("name", ["../elsewhere.safetensors", "pytorch_model.bin"])
def test_an_index_may_only_name_safetensors_beside_it(broken: Path, name: str) -> None:
    split_weights(broken)
    change_json(broken / "model.safetensors.index.json", lambda c: c["weight_map"].update(logit_scale=name))
    with pytest.raises(ModelError, match="safetensors files in the same folder"):
        load_model(broken)


def test_a_pickle_is_refused_unless_asked_for(broken: Path, tiny_checkpoint: Path) -> None:
    torch.save(safetensors.torch.load_file(broken / "model.safetensors"), broken / "pytorch_model.bin")
    (broken / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="can run code"):
        load_model(broken)
    rows = load_model(broken, allow_pickle=True).encoder().encode_texts(TEXTS)
    np.testing.assert_allclose(rows, load_model(tiny_checkpoint).encoder().encode_texts(TEXTS), atol=1e-6)


def test_a_pickle_with_code_is_refused_even_when_pickles_are_allowed(broken: Path, tmp_path: Path) -> None:
    (broken / "model.safetensors").unlink()
    marker = tmp_path / "ran"
    torch.save({"logit_scale": _Touch(marker)}, broken / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pytorch_model"):
        load_model(broken, allow_pickle=True)
    assert not marker.exists()


WRAPPED: dict[str, Callable[[dict[str, Any]], object]] = {
    "state_dict beside others": lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"lr": 1e-4}},
    "parallel training": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "both": lambda state: {"model": {f"module.model.{name}": tensor for name, tensor in state.items()}},
}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_what_training_scripts_pickle_is_read(broken: Path, wrapper: str) -> None:
    state = safetensors.torch.load_file(broken / "model.safetensors")
    (broken / "model.safetensors").unlink()
    torch.save(WRAPPED[wrapper](state), broken / "pytorch_model.bin")
    found = load_model(broken, allow_pickle=True)
    assert torch.equal(found.text_tower.text_projection.weight, state["text_projection.weight"])


@pytest.mark.parametrize("content", [{"args": Path("x")}, {"epoch": 3}, [1, 2], {"state_dict": {"a": 1}}])
def test_a_pickle_of_something_else_is_refused_in_a_sentence(broken: Path, content: object) -> None:
    (broken / "model.safetensors").unlink()
    torch.save(content, broken / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"more than tensors|no tensors by name") as refused:
        load_model(broken, allow_pickle=True)
    assert "\n" not in str(refused.value)


def test_a_prefix_of_every_tensor_is_taken_off(broken: Path) -> None:
    state = safetensors.torch.load_file(broken / "model.safetensors")
    safetensors.torch.save_file({f"clip.{name}": t for name, t in state.items()}, broken / "model.safetensors")
    assert torch.equal(load_model(broken).text_tower.text_projection.weight, state["text_projection.weight"])
    some = {f"clip.{name}" if name.startswith("text") else name: tensor for name, tensor in state.items()}
    safetensors.torch.save_file(some, broken / "model.safetensors")
    with pytest.raises(ModelError, match=r"lacks tensors: text_model.*; it has unknown tensors: clip\.text_model"):
        load_model(broken)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "preprocessor_config.json"])
def test_a_git_lfs_pointer_is_called_that(broken: Path, name: str) -> None:
    (broken / name).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 2\n")
    with pytest.raises(ModelError, match=f"{name} is a Git-LFS pointer.*git lfs pull"):
        load_model(broken)


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def cut_in_half(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BREAKAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "config is not JSON": (lambda f: (f / "config.json").write_text("{"), "is not JSON"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "holds a list, expected a JSON object"),
    "another model": (lambda f: change_json(f / "config.json", lambda c: c.update(model_type="bert")), "known: blip"),
    "siglip": (lambda f: change_json(f / "config.json", lambda c: c.update(model_type="siglip")), "'siglip'; known"),
    "no text part": (lambda f: change_json(f / "config.json", lambda c: c.pop("text_config")), "no text_config"),
    "bad heads": (
        lambda f: change_json(f / "config.json", lambda c: c["text_config"].update(num_attention_heads=5)),
        "not a CLIP configuration",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no model.safetensors"),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), "damaged or truncated"),
    "truncated weights": (cut_in_half, "damaged or truncated"),
    "missing tensor": (
        lambda f: change_weights(f, lambda s: s.pop("text_projection.weight")),
        "lacks tensors: text_projection.weight",
    ),
    "unknown tensor": (
        lambda f: change_weights(f, lambda s: s.update(adapter=torch.zeros(2))),
        "has unknown tensors: adapter",
    ),
    "wrong shape": (
        lambda f: change_weights(f, lambda s: s.update({"visual_projection.weight": torch.zeros(24, 31)})),
        r"wrong shape for tensors: visual_projection.weight \(24, 31\), expected \(24, 32\)",
    ),
    "not a number": (
        lambda f: change_weights(f, lambda s: s["visual_projection.weight"].fill_(float("nan"))),
        "infinite or undefined values in tensors: visual_projection.weight",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer.json"),
    "another end token": (
        lambda f: change_json(f / "config.json", lambda c: c["text_config"].update(eos_token_id=5)),
        "looks for 5",
    ),
    "no preprocessing": (lambda f: (f / "preprocessor_config.json").unlink(), "no preprocessor_config.json"),
    "preprocessing is not JSON": (lambda f: (f / "preprocessor_config.json").write_text("x"), "is not JSON"),
    "another image size": (
        lambda f: change_json(
            f / "preprocessor_config.json", lambda c: c.update(crop_size={"height": 64, "width": 64})
        ),
        r"64 x 64 \(size, crop_size\) and the model takes 32 x 32",
    ),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_broken_checkpoints_are_refused(broken: Path, breakage: str) -> None:
    change, message = BREAKAGES[breakage]
    change(broken)
    with pytest.raises(ModelError, match=message):
        load_model(broken)


def test_a_tokenizer_larger_than_the_model_is_refused(broken: Path) -> None:
    from vlmquant.checkpoints.random_weights import invented_tokenizer

    invented_tokenizer(900, 16).save(broken)
    with pytest.raises(ModelError, match="and the model has 640 tokens"):
        load_model(broken)


@pytest.mark.parametrize("device", ["cuda:99", "warp"])
def test_an_absent_device_is_refused(tiny_checkpoint: Path, device: str) -> None:
    with pytest.raises(ModelError, match="present: cpu"):
        load_model(tiny_checkpoint, device=device)


def test_the_same_seed_gives_the_same_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    again, other = tiny_clip_folder(tmp_path / "again"), tiny_clip_folder(tmp_path / "other", seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    hashes = [load_model(folder).weights_sha256 for folder in (tiny_checkpoint, again, other)]
    assert hashes[0] == hashes[1] != hashes[2]
