"""Compensation after quantization: nearer to the float tower, and exact where the error is a line."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vlmquant import get_recipe, load_model
from vlmquant.build.build import quantize_model
from vlmquant.bundle import verify
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.errors import RecipeError
from vlmquant.quantize.apply import plan_tower, quantize_tower
from vlmquant.quantize.damage import Judge, swapped
from vlmquant.quantize.methods.compensation import BLOCKS, CHANNELS
from vlmquant.quantize.recipes.recipe import Recipe


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> ClipModel:
    return load_model(tiny_checkpoint)


def pictures(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(nn.functional.interpolate(torch.randn(64, 3, 8, 8, generator=generator), size=(32, 32)).split(16))


def with_steps(name: str, *steps: str) -> Recipe:
    return replace(get_recipe(name), steps=steps)


def damage(model: ClipModel, recipe: Recipe) -> float:
    """1 - mean cosine to the float tower on pictures that were not calibrated on."""
    tower = quantize_tower(model.image_tower, recipe, pictures(0), "test")
    found, wanted = (Judge(each, pictures(1)).expected for each in (tower, model.image_tower))
    return float(1 - (found * wanted).sum(dim=1).mean())


@pytest.mark.parametrize("step", [BLOCKS, CHANNELS])
def test_it_takes_error_off_pictures_that_were_not_fitted(model: ClipModel, step: str) -> None:
    assert damage(model, with_steps("vanilla-w4a4", step)) < 0.9 * damage(model, get_recipe("vanilla-w4a4"))


def test_factors_go_into_scales_and_biases_and_leave_the_integers(model: ClipModel) -> None:
    plain, compensated = (
        plan_tower(model.image_tower, recipe, pictures(0), "test").modules
        for recipe in (get_recipe("vanilla-w4a4"), with_steps("vanilla-w4a4", CHANNELS))
    )
    assert set(plain) == set(compensated)
    name = next(name for name in plain if name.endswith("fc1"))
    one, other = plain[name], compensated[name]
    assert torch.equal(one.get_buffer("nibbles"), other.get_buffer("nibbles"))
    assert not torch.equal(one.get_buffer("scales"), other.get_buffer("scales"))
    assert len(list(other.parameters())) == 1, "the bias alone"


def test_a_plan_with_blocks_can_be_tried_and_taken_back(model: ClipModel) -> None:
    plan = plan_tower(model.image_tower, with_steps("vanilla-w6a6", BLOCKS), pictures(0), "test")
    before = plan.tower(pictures(1)[0])
    with swapped(plan.tower, plan.modules):
        assert not torch.equal(plan.tower(pictures(1)[0]), before)
    assert torch.equal(plan.tower(pictures(1)[0]), before)


@pytest.mark.parametrize("step", [BLOCKS, CHANNELS])
def test_a_bundle_with_compensation_verifies(
    model: ClipModel, calibration: CalibrationSet, step: str, tmp_path: Path
) -> None:
    more = replace(calibration, images=tuple(calibration.images) * 4)
    bundle = quantize_model(model, with_steps("static-int8", step), more, tmp_path / "bundle")
    assert {row.component for row in verify(bundle).rows} == {"image", "text"}


def test_what_has_no_blocks_or_no_channel_scales_is_refused(model: ClipModel) -> None:
    with pytest.raises(RecipeError, match=f"{BLOCKS} needs transformer blocks"):
        quantize_tower(nn.Linear(4, 4), with_steps("vanilla-w4a4", BLOCKS), [torch.randn(2, 4)], "test")
    with pytest.raises(RecipeError, match=f"{CHANNELS} needs Linears with one weight scale"):
        quantize_tower(model.image_tower, with_steps("fp16", CHANNELS), pictures(0), "test")
