"""Every family of checkpoints offers the same attributes, and what decides a result decides the identity."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes import tiny_blip_folder, tiny_clip_folder
from vlmquant.checkpoints import load_blip, load_checkpoint, load_model
from vlmquant.checkpoints.architectures import resnet_config
from vlmquant.checkpoints.families import FAMILIES, FloatModel
from vlmquant.checkpoints.random_weights import write_random_checkpoint
from vlmquant.errors import ModelError

RESNET = resnet_config(image_size=64, layers=(1, 1, 1, 1), width=64, text=(64, 1), projection=24, vocabulary=640)
EVERY: dict[str, tuple[Callable[[Path], Path], str, tuple[str, ...]]] = {
    "clip": (tiny_clip_folder, "dual-encoder", ("image", "text")),
    "clip-resnet": (lambda path: write_random_checkpoint(RESNET, path, 0), "dual-encoder", ("image", "text")),
    "captioning": (lambda path: tiny_blip_folder(path, "captioning"), "captioner", ("vision", "decoder")),
    "vqa": (lambda path: tiny_blip_folder(path, "vqa"), "answerer", ("vision", "question_encoder", "decoder")),
    "matching": (lambda path: tiny_blip_folder(path, "matching"), "matcher", ("vision", "matcher")),
}


@pytest.fixture(scope="module", params=EVERY)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, EVERY[request.param][0](tmp_path_factory.mktemp("family") / request.param)


def test_a_model_of_any_family_says_what_it_is(checkpoint: tuple[str, Path], tmp_path: Path) -> None:
    kind, folder = checkpoint
    _, head, components = EVERY[kind]
    model: FloatModel = load_checkpoint(folder)
    assert (model.name, model.head, model.components) == (folder.name, head, components)
    assert model.folder == folder.resolve()
    assert model.random_weights
    assert len({model.identity, model.weights_sha256}) == 2
    assert set(model.graphs) >= set(model.components) - {"decoder"}
    assert model.head in FAMILIES[json.loads((folder / "config.json").read_text())["model_type"]].heads
    model.save_preprocessing(tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()


@pytest.mark.parametrize(("name", "key"), [("preprocessor_config.json", "image_mean"), ("tokenizer_config.json", "x")])
def test_other_settings_give_another_identity(tiny_checkpoint: Path, tmp_path: Path, name: str, key: str) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(tiny_checkpoint, folder)
    before = load_model(folder)
    assert before.identity == load_model(tiny_checkpoint).identity
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**content, key: [0.1, 0.2, 0.3]}))
    after = load_model(folder)
    assert after.weights_sha256 == before.weights_sha256
    assert after.identity != before.identity


def test_another_family_is_refused_before_its_weights_are_read(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = tiny_blip_folder(tmp_path / "blip", "captioning")
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"is a BLIP \(captioner or answerer or matcher\); expected a CLIP or"):
        load_model(folder)
    with pytest.raises(ModelError, match=r"'clip' is a CLIP \(dual-encoder\); expected a BLIP"):
        load_blip(tiny_checkpoint)


def test_an_unknown_family_is_named_and_the_known_ones_listed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip", "architectures": ["SiglipModel"]}))
    with pytest.raises(ModelError, match="SiglipModel: unknown model_type 'siglip'; known: blip, clip, clip-resnet"):
        load_checkpoint(tmp_path)
