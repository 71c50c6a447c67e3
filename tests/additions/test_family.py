"""A new family is one file and one row of `FAMILIES`: every verb that takes a checkpoint takes one of it."""

import json
from pathlib import Path

import pytest
from fake_family import FAMILY, write_fake

from vlmquant.bench.targets import named_targets
from vlmquant.checkpoints.families import FAMILIES


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fake(tmp_path_factory.mktemp("family") / "fake", tiny_checkpoint)


@pytest.fixture(autouse=True)
def row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "fake", FAMILY)


def test_it_is_quantized_verified_and_scored_against_itself(
    run, checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    run("quantize", checkpoint, "-o", bundle, "--calibrate", pictures, "--images", 4)
    rows = json.loads(run("verify", bundle, "--json"))
    assert {row["component"] for row in rows} == {"image", "text"}
    assert min(row["cosine_to_float_min"] for row in rows) > 0.99
    found = json.loads(run("evaluate", bundle, "--data", pictures, "--against", checkpoint, "--json"))
    assert "zero-shot" in found["tasks"]
    assert found["fidelity"] is not None


def test_a_video_is_searched_with_it_unquantized(run, checkpoint: Path, clip: Path, tmp_path: Path) -> None:
    words = ("detect", clip, "-m", checkpoint, "--float", "-e", "a dog", "-o", tmp_path / "out", "--no-annotate")
    found = json.loads(run(*words, "--json"))
    assert found["videos"][0]["frames"] == 5


def test_another_type_is_refused_with_the_list_it_is_in(run_refused, checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "foreign"}')
    words = ("quantize", other, "-o", tmp_path / "bundle", "--recipe", "dynamic-int8")
    assert "known: blip, clip, clip-resnet, fake" in run_refused(*words)


def test_a_bench_times_its_image_tower(checkpoint: Path) -> None:
    targets = named_targets(str(checkpoint), None)
    assert (targets.checkpoint, targets.component) == (checkpoint, "image")
