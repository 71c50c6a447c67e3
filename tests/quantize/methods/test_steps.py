"""The loop over the steps: a new method is one `Step` and one row, and no step changes what it is given."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vlmquant import get_recipe, load_model
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.errors import RecipeError
from vlmquant.quantize import apply
from vlmquant.quantize.apply import quantize_tower
from vlmquant.quantize.methods import STEPS
from vlmquant.quantize.methods.step import Calibration, Draft, Step
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.recipes.schemes import WeightScheme
from vlmquant.quantize.sites import sites, weight_matrix, weight_scheme
from vlmquant.quantize.weights import weight_scales

NAME = "power_of_two_scales"


def power_of_two_scales(draft: Draft, recipe: Recipe, _: Calibration) -> Draft:
    """Widen every weight scale to the next power of two, so that dequantizing is a shift."""
    scales = {}
    for name in sites(draft.tower, recipe):
        matrix = weight_matrix(draft.tower.get_submodule(name))
        plain = weight_scales(matrix, weight_scheme(draft.tower, recipe, name))
        scales[name] = np.exp2(np.ceil(np.log2(plain))).astype(np.float32)
    return replace(draft, scales=scales)


STEP = Step(applies=lambda recipe: NAME in recipe.steps, run=power_of_two_scales)


@pytest.fixture
def with_a_new_row(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {}
    for name, step in STEPS.items():
        rows |= {NAME: STEP, name: step} if name == "nearest" else {name: step}
    monkeypatch.setattr(apply, "STEPS", rows)


@pytest.fixture
def model(tiny_checkpoint: Path) -> ClipModel:
    return load_model(tiny_checkpoint)


@pytest.fixture
def pixels(model: ClipModel) -> list[Tensor]:
    size = (model.image_spec.crop_height, model.image_spec.crop_width)
    return [torch.randn(4, 3, *size, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]


def weight_scales_of(tower: nn.Module) -> Tensor:
    return torch.cat([value.flatten() for name, value in tower.named_buffers() if name.endswith(".scales")])


@pytest.mark.usefixtures("with_a_new_row")
@pytest.mark.parametrize("preset", ["static-int8", "dynamic-int8", "int8-weights"])
def test_a_new_method_is_one_step_and_one_row(model: ClipModel, pixels: list[Tensor], preset: str) -> None:
    plain = replace(get_recipe(preset), token_table_bits=None, outliers=None, bias_correction=False)
    recipe = Recipe.from_dict({**plain.to_dict(), "steps": [NAME]})
    assert recipe.needs_calibration
    result = quantize_tower(model.image_tower, recipe, pixels, "test")
    exponents = weight_scales_of(result).log2()
    assert torch.equal(exponents, exponents.round())
    others = weight_scales_of(quantize_tower(model.image_tower, plain, pixels, "test"))
    assert not torch.equal(others.log2(), others.log2().round())
    with torch.inference_mode():
        cosine = nn.functional.cosine_similarity(result(pixels[0]), model.image_tower(pixels[0]))
    assert cosine.min() > 0.95


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
