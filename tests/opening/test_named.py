"""One way to open what was named: its head, its identity, and what is kept under it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fakes import tiny_blip_folder
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.errors import EngineError, ModelError
from vlmquant.models.generate import GenerationOptions
from vlmquant.opening import RunsOn, open_named
from vlmquant.tasks.evaluate import evaluate


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_blip_folder(tmp_path_factory.mktemp("blip") / "captions", "captioning")


def changed(source: Path, target: Path, file: str, change: Callable[[dict[str, Any]], None]) -> Path:
    """Copy a checkpoint and change one of its JSON files."""
    shutil.copytree(source, target)
    content = json.loads((target / file).read_text())
    change(content)
    (target / file).write_text(json.dumps(content))
    return target


def other_activation(config: dict[str, Any]) -> None:
    config["vision_config"]["hidden_act"] = "relu"


def other_resampling(config: dict[str, Any]) -> None:
    config["resample"] = 2


def other_vocabulary(tokenizer: dict[str, Any]) -> None:
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["s"], vocabulary["t"] = vocabulary["t"], vocabulary["s"]


CHANGES = {
    "config.json": other_activation,
    "preprocessor_config.json": other_resampling,
    "tokenizer.json": other_vocabulary,
}


def test_whatever_changes_a_result_changes_the_identity(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folders = [changed(tiny_checkpoint, tmp_path / file, file, change) for file, change in CHANGES.items()]
    shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    weights = tmp_path / "other-weights"
    shutil.copytree(tiny_checkpoint, weights)
    content = (weights / "model.safetensors").read_bytes()
    (weights / "model.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    own = open_named(tiny_checkpoint).identity
    assert open_named(tmp_path / "copy").identity == own
    assert len({own, *(open_named(folder).identity for folder in (*folders, weights))}) == 5


def test_how_texts_are_generated_is_part_of_the_identity(captioner: Path) -> None:
    options = [GenerationOptions(), GenerationOptions(beams=3), GenerationOptions(max_new_tokens=7)]
    assert len({open_named(captioner, options=one).identity for one in options}) == 3


def test_what_runs_a_bundle_is_part_of_its_identity(tiny_bundle: Path) -> None:
    engines = ("openvino", "onnxruntime")
    found = [open_named(tiny_bundle, runs_on=RunsOn(engine=engine, probe=False)) for engine in engines]
    assert [one.facts["engine"] for one in found] == list(engines)
    assert found[0].identity != found[1].identity
    assert found[0].facts["weights"] == found[1].facts["weights"]


def test_the_manifest_is_part_of_a_bundles_identity(tiny_bundle: Path, tmp_path: Path) -> None:
    def rescale(manifest: dict[str, Any]) -> None:
        manifest["head"]["logit_scale"] = 2.0

    other = changed(tiny_bundle, tmp_path / "b", "manifest.json", rescale)
    trusting = RunsOn(probe=False)
    assert open_named(other, runs_on=trusting).identity != open_named(tiny_bundle, runs_on=trusting).identity


@pytest.mark.parametrize("file", CHANGES)
def test_nothing_stored_for_another_configuration_is_used(tiny_checkpoint: Path, tmp_path: Path, file: str) -> None:
    rng = np.random.default_rng(0)
    for name in ("a street", "a tall bus"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 256, (50, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")

    def confidence(model: Path, cache: str) -> float:
        found = evaluate(model, tmp_path / "data", tasks=["zero-shot"], templates="one", cache=tmp_path / cache)
        return float(found.results["zero-shot"].details["mean_confidence"])

    old = confidence(tiny_checkpoint, "shared")
    other = changed(tiny_checkpoint, tmp_path / "other", file, CHANGES[file])
    assert confidence(other, "shared") == confidence(other, "fresh") != old
    assert confidence(tiny_checkpoint, "shared") == old


def test_a_bundle_of_first_use_is_kept_for_its_checkpoint_only(
    tiny_checkpoint: Path,
    tiny_bundle: Path,
    calibration: CalibrationSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []

    def quantize(model: Any, recipe: Any, given: CalibrationSet, folder: Path, **_: Any) -> None:
        made.append(given)
        shutil.copytree(tiny_bundle, folder)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("vlmquant.build.build.quantize_model", quantize)

    def notes(model: Path) -> str:
        return " ".join(open_named(model, calibrate=lambda: calibration, runs_on=RunsOn(probe=False)).notes)

    assert "quantized clip on first use" in notes(tiny_checkpoint)
    assert "first use" not in notes(tiny_checkpoint)
    for file, change in CHANGES.items():
        assert "first use" in notes(changed(tiny_checkpoint, tmp_path / file, file, change))
    assert made == [calibration] * 4
    unquantized = open_named(tiny_checkpoint, calibrate=lambda: calibration, runs_on=RunsOn(engine="torch"))
    assert unquantized.facts["kind"] == "checkpoint"
    assert len(made) == 4


def test_another_head_is_refused_in_a_sentence_that_says_what_it_is_for(
    captioner: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"is a captioner, which writes captions .*; this takes a dual-encoder, which"):
        open_named(captioner, head="dual-encoder")
    with pytest.raises(ModelError, match=r"is a dual-encoder, which finds events .*; this takes an answerer"):
        open_named(tiny_bundle, head="answerer")
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    manifest["head"] = {"type": "captioner", "start_id": 1, "end_id": 2, "pad_id": 0}
    manifest["components"] = dict.fromkeys(("vision", "cross", "decoder"), manifest["components"]["image"])
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="is a captioner, which writes captions"):
        open_named(tmp_path, head="dual-encoder")
    with pytest.raises(ModelError, match="a matcher is not bundled; name one"):
        open_named(None, head="matcher")


def test_what_cannot_run_there_is_refused(
    tiny_bundle: Path, tiny_checkpoint: Path, calibration: CalibrationSet
) -> None:
    with pytest.raises(EngineError, match=r"quantized bundle; to run in torch .*, name the checkpoint"):
        open_named(tiny_bundle, runs_on=RunsOn(engine="torch"))
    with pytest.raises(EngineError, match="--device cuda needs a checkpoint"):
        open_named(tiny_bundle, runs_on=RunsOn(device="cuda"))
    with pytest.raises(EngineError, match="--device cuda needs a checkpoint"):
        open_named(tiny_checkpoint, calibrate=lambda: calibration, runs_on=RunsOn(device="cuda"))
    with pytest.raises(EngineError, match="runs in torch, not on 'openvino'"):
        open_named(tiny_checkpoint, runs_on=RunsOn(engine="openvino"))
    with pytest.raises(EngineError, match=r"threads must be at least 1 .*, got 0"):
        RunsOn(threads=0)
