"""Every preset through `quantize_model`: a bundle that both engines confirm, or a refusal before any work."""

from pathlib import Path

import numpy as np
import pytest

from vlmquant.build.build import quantize_model
from vlmquant.bundle import Manifest, verify
from vlmquant.checkpoints import load_model
from vlmquant.checkpoints.architectures import clip_config
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.checkpoints.random_weights import write_random_checkpoint
from vlmquant.engines import installed_engines
from vlmquant.errors import RecipeError
from vlmquant.quantize.recipes.presets import RECIPES, get_recipe
from vlmquant.quantize.recipes.recipe import simulation_only

# Exporting takes as long as there are layers; one block holds every kind of them.
ONE_BLOCK = clip_config(
    image_size=16,
    patch_size=8,
    vision=(32, 1, 2),
    text=(32, 1, 2),
    projection=24,
    vocabulary=640,
    context_length=16,
)
SIMULATED = [name for name, recipe in RECIPES.items() if simulation_only(recipe)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ClipModel:
    return load_model(write_random_checkpoint(ONE_BLOCK, tmp_path_factory.mktemp("one") / "block", seed=0))


@pytest.fixture(scope="module")
def sample() -> CalibrationSet:
    generator = np.random.default_rng(3)
    images = tuple(generator.integers(0, 256, (20, 24, 3), dtype=np.uint8) for _ in range(4))
    return CalibrationSet(images=images, texts=("a red bus", "two dogs"), images_from="noise", texts_from="here")


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in SIMULATED])
def test_a_preset_makes_a_bundle_that_both_engines_confirm(
    name: str, model: ClipModel, sample: CalibrationSet, tmp_path: Path
) -> None:
    report = verify(quantize_model(model, get_recipe(name), sample, tmp_path / "bundle"))
    assert {(row.engine, row.component) for row in report.rows} == {
        (engine, component) for engine in installed_engines() for component in ("image", "text")
    }
    recipes = Manifest.read(tmp_path / "bundle").recipes
    assert [recipe and recipe["name"] for recipe in recipes.values()] == [name, name]


@pytest.mark.parametrize("name", SIMULATED)
def test_a_preset_for_simulation_only_is_refused_before_any_work(name: str, model: ClipModel, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=f"'{name}' is simulation only: "):
        quantize_model(model, get_recipe(name), None, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_what_the_sources_need_for_comparison() -> None:
    assert "torch-dynamic" in SIMULATED
    assert all(name.startswith(("torch-", "twin-")) for name in SIMULATED)
