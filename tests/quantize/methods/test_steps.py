"""The loop over the steps: no step changes what it is given."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vlmquant import get_recipe, load_model
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.errors import RecipeError
from vlmquant.quantize.apply import quantize_tower
from vlmquant.quantize.methods import STEPS
from vlmquant.quantize.methods.compensation import BLOCKS, CHANNELS
from vlmquant.quantize.methods.step import Calibration, Draft
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.recipes.schemes import WeightScheme

NAME = "power_of_two_scales"


@pytest.fixture
def model(tiny_checkpoint: Path) -> ClipModel:
    return load_model(tiny_checkpoint)


@pytest.fixture
def pixels(model: ClipModel) -> list[Tensor]:
    size = (model.image_spec.crop_height, model.image_spec.crop_width)
    return [torch.randn(4, 3, *size, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]


def test_steps_that_do_not_exist_or_have_a_field_are_refused(model: ClipModel, pixels: list[Tensor]) -> None:
    for steps, message in (((NAME,), f"unknown step '{NAME}'; known: .*bias_correction"), (("smoothing",), "own")):
        with pytest.raises(RecipeError, match=message):
            quantize_tower(model.image_tower, replace(get_recipe("dynamic-int8"), steps=steps), pixels, "test")


@pytest.mark.parametrize("name", ["static-int8", "dynamic-int8", "int8-weights", "fp16", "torch-dynamic"])
def test_every_kind_of_recipe_ends_in_modules(name: str) -> None:
    applied = [step for step in STEPS if STEPS[step].applies(get_recipe(name))]
    assert applied[-2:] == ["integer_modules", "token_table"] or name in ("fp16", "torch-dynamic")
    assert applied[-1] in ("half_precision", "integer_modules", "token_table")


def test_no_step_changes_what_it_is_given(model: ClipModel, pixels: list[Tensor]) -> None:
    recipe = Recipe(
        name="everything",
        description="every step that goes with integers",
        weights=WeightScheme(bits=4, rounding="reconstruction"),
        attention_matmuls=True,
        smoothing=True,
        bias_correction=True,
        search="hessian",
        twin=True,
        byte_pixels=True,
        keep_float=("*layers.1.*",),
        prune=0.3,
        steps=(CHANNELS, BLOCKS),
    )
    assert {name for name, step in STEPS.items() if step.applies(recipe)} == {*STEPS} - {"half_precision"}
    draft = Draft(tower=copy.deepcopy(model.image_tower))
    for name, step in STEPS.items():
        if step.applies(recipe):
            before = state_of(draft)
            draft, given = step.run(draft, recipe, Calibration([pixels[0][:2]], "test")), draft
            assert state_of(given) == before, name


def state_of(draft: Draft) -> list[object]:
    """Return everything a draft holds in a form that compares."""
    modules = {"": draft.tower, **draft.roundings, **draft.modules}
    tensors = [
        (at, name, value.detach().numpy().tobytes(), value.requires_grad)
        for at, module in modules.items()
        for name, value in (*module.named_parameters(), *module.named_buffers())
    ]
    kinds = [(at, name, type(m).__name__) for at, module in modules.items() for name, m in module.named_modules()]
    weights = [(name, weight.integers.tobytes(), weight.scales.tobytes()) for name, weight in draft.weights.items()]
    return [tensors, kinds, weights, [(name, scales.tobytes()) for name, scales in draft.scales.items()]]
