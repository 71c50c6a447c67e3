"""A search on the stressed tiny CLIP, whose middle fc2 layers are hard, by fidelity: its embeddings mean nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlmquant.budget.budget import Budget
from vlmquant.budget.ladder import Rung
from vlmquant.budget.log import Drop, NothingInsideError, Tried
from vlmquant.budget.search import quantize_within_budget
from vlmquant.budget.trial import Workshop
from vlmquant.bundle.manifest import Manifest
from vlmquant.bundle.open import open_bundle
from vlmquant.checkpoints import load_model
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.data.folders import read_flat_folder
from vlmquant.data.sets import ImageSet
from vlmquant.errors import BudgetError, BundleError, DataError
from vlmquant.lab.stress import Severity, stressed


@pytest.fixture(scope="module")
def hard(tiny_checkpoint: Path) -> ClipModel:
    return stressed(load_model(str(tiny_checkpoint)), kinds=("hidden-channels",), severity=Severity(directions=1))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(24):
        pixels = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return read_flat_folder(folder)


def test_the_worst_layers_stay_float_until_the_drop_is_inside(
    hard: ClipModel, data: ImageSet, calibration: CalibrationSet, tmp_path: Path
) -> None:
    output = tmp_path / "bundle"
    log = quantize_within_budget(hard, calibration, data, Budget(max_drop_points=1.0), output, components=("image",))
    assert not log.tried[0].inside, "all in integers, the hidden channels do damage"
    chosen = next(one for one in log.tried if one.name == log.chosen)
    assert chosen.inside
    assert chosen.drop.points <= 1.0
    assert log.confirmed == "yes"
    manifest = Manifest.read(output)
    assert manifest.components["image"].kept_float == tuple(manifest.recipes["image"]["keep_float"])
    assert any(name.endswith("mlp.fc2") for name in manifest.components["image"].kept_float)
    assert "search.json" in manifest.files
    assert json.loads((output / "search.json").read_text())["chosen"] == log.chosen
    assert len(open_bundle(output).encode_images(data.images[:2])) == 2
    assert list(tmp_path.iterdir()) == [output], "nothing of the search is left behind"


def test_an_impossible_budget_names_the_nearest_and_writes_nothing(
    hard: ClipModel, data: ImageSet, calibration: CalibrationSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def beyond(workshop: Workshop, step: Rung) -> Tried:
        drop = Drop(metric="image cosine", points=3 - len(step.kept_float) / 10, low=1.0, high=4.0, samples=12)
        return Tried(
            name=step.name,
            recipe={},
            float_layers=len(step.kept_float),
            drop=drop,
            latency_ms=1.0,
            bytes=1,
            inside=False,
            decision="beyond",
            seconds=0.0,
        )

    monkeypatch.setattr(Workshop, "try_step", beyond)
    budget = Budget(max_drop_points=0.0)
    with pytest.raises(NothingInsideError, match=r"nearest is '.*4 worst layers float' with 2\.60") as caught:
        quantize_within_budget(hard, calibration, data, budget, tmp_path / "b", components=("image",))
    assert isinstance(caught.value, BudgetError)
    assert caught.value.exit_code == 6
    assert caught.value.log.nearest().name in str(caught.value)
    assert caught.value.log.chosen is None
    assert not list(tmp_path.iterdir())


def test_a_latency_beyond_reach_ends_the_search_at_once(
    hard: ClipModel, data: ImageSet, calibration: CalibrationSet, tmp_path: Path
) -> None:
    budget = Budget(max_drop_points=100, max_latency_ms=1e-6)
    with pytest.raises(NothingInsideError, match=r"too slow: .* are more than 1e-06") as caught:
        quantize_within_budget(hard, calibration, data, budget, tmp_path / "b", components=("image",))
    assert len(caught.value.log.tried) == 1
    assert not list(tmp_path.iterdir())


def test_mistakes_are_told_before_any_work(
    hard: ClipModel, data: ImageSet, calibration: CalibrationSet, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="between 0 and 100"):
        Budget(max_drop_points=-1)
    with pytest.raises(DataError, match="above 0 ms"):
        Budget(max_drop_points=1, max_latency_ms=0)
    with pytest.raises(DataError, match="no labels"):
        quantize_within_budget(hard, calibration, data, Budget(max_drop_points=1, metric="top1"), tmp_path / "b")
    (tmp_path / "taken").mkdir()
    with pytest.raises(BundleError, match="is not a bundle"):
        quantize_within_budget(hard, calibration, data, Budget(max_drop_points=1), tmp_path / "taken")
