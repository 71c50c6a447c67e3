import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from vlmquant.build import recover as building
from vlmquant.bundle import verify
from vlmquant.checkpoints import load_model
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.checkpoints.part import Preparation
from vlmquant.cli.app import make_app
from vlmquant.errors import RecipeError
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.quantize.recovery.tuning import RecoverySettings


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for index in range(32):
        Image.fromarray(generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


def test_a_recovered_bundle_says_so_and_verifies(tiny_checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    arguments = ["recover", str(tiny_checkpoint), "--images", str(pictures), "-o", str(output)]
    options = ["--recipe", "vanilla-w4a4", "--steps", "2", "--components", "image", "--device", "cpu", "--json"]
    result = CliRunner().invoke(make_app(), [*arguments, *options], catch_exceptions=False)
    assert result.exit_code == 0
    manifest = json.loads(result.stdout)
    assert manifest["components"]["image"]["recipe"]["name"] == "vanilla-w4a4 recovered"
    facts = manifest["source"]["recovered"]
    assert facts["steps"] == 2
    assert facts["device"] == "cpu"
    assert facts["inputs"] == {"image": 32}
    assert set(facts["loss_before"]) == set(facts["loss_after"]) == {"image"}
    assert {row.component for row in verify(output).rows} == {"image", "text"}
    assert list(tmp_path.iterdir()) == [output], "the state of the tuning is gone"


def test_a_simulation_only_recipe_is_refused_before_any_tuning(
    tiny_checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    arguments = ["recover", str(tiny_checkpoint), "--images", str(pictures), "-o", str(tmp_path / "b")]
    with pytest.raises(RecipeError, match="simulation only"):
        CliRunner().invoke(make_app(), [*arguments, "--recipe", "twin-hessian-w4a4"], catch_exceptions=False)
    assert not list(tmp_path.iterdir())


def test_a_recovered_bundle_is_judged_on_what_it_was_not_tuned_on(
    tiny_checkpoint: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: dict[str, int] = {}

    def proved(folder: Path, model: ClipModel, prepared: Preparation, *rest: object, **more: object) -> None:
        judged.update({part.component: sum(map(len, part.judged)) for part in prepared.parts})
        real(folder, model, prepared, *rest, **more)

    real = building.write_proved
    monkeypatch.setattr(building, "write_proved", proved)
    unlabelled = CalibrationSet.from_files(pictures, count=32)
    settings = RecoverySettings(steps=1, device="cpu")
    model, recipe = load_model(tiny_checkpoint), get_recipe("vanilla-w4a4")
    building.recover_model(model, recipe, unlabelled, tmp_path / "b", settings, components=("image",))
    assert judged["image"] == 16, "two of four batches"


def test_prune_goes_with_recover_and_not_with_a_budget(tiny_checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    start = ["recover", str(tiny_checkpoint), "--images", str(pictures), "--recipe", "static-int8", "--json"]
    options = ["--steps", "1", "--components", "image", "--device", "cpu", "--prune", "0.3", "-o", str(tmp_path / "b")]
    result = CliRunner().invoke(make_app(), [*start, *options], catch_exceptions=False)
    manifest = json.loads(result.stdout)
    assert manifest["components"]["image"]["recipe"]["name"] == "static-int8-pruned-30 recovered"
    assert manifest["source"]["recovered"]["pruned"] == 0.3
    quantize = ["quantize", str(tiny_checkpoint), "--calibrate", str(pictures), "-o", str(tmp_path / "c")]
    quantize += ["--prune", "0.3"]
    with pytest.raises(RecipeError, match="leave --prune out"):
        CliRunner().invoke(make_app(), [*quantize, "--max-drop", "1", "--data", str(pictures)], catch_exceptions=False)
    result = CliRunner().invoke(make_app(), [*quantize, "--components", "image"], catch_exceptions=False)
    assert "static-int8-pruned-30" in result.stdout
