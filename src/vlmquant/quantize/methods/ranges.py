"""What rounds activations: the ranges of static recipes, measured over the calibration set, and those of run time."""

from dataclasses import replace

from torch import nn

from vlmquant.quantize.calibrate import input_histograms
from vlmquant.quantize.methods.step import Calibration, Draft, Step
from vlmquant.quantize.methods.twin import twin_rounding
from vlmquant.quantize.observe import OBSERVERS, Histogram
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.rounding import FakeQuantize, TokenFakeQuantize, WholeBatchFakeQuantize
from vlmquant.quantize.sites import activation_bits, operands, sites, stored_tensors


def input_roundings(tower: nn.Module, recipe: Recipe, calibration: Calibration) -> dict[str, nn.Module]:
    """Return what rounds the input of each site, and with static ranges each operand of a MatMul and stored tensor.

    Empty when rows are rounded on ranges of their own. Raises CalibrationError where there is nothing to measure on.
    """
    if recipe.activations is not None and recipe.activations.ranges == "per-token":
        return {}
    names = sites(tower, recipe)
    if not recipe.static:
        return {name: rounding_of(tower, recipe, name, None) for name in names}
    names += [*operands(tower, recipe), *stored_tensors(tower, recipe)]
    measured = [name for name in names if not recipe.has_float_input(name)]
    histograms = input_histograms(tower, measured, calibration.inputs, calibration.description, calibration.track)
    return {name: rounding_of(tower, recipe, name, histograms.get(name)) for name in names}


def rounding_of(tower: nn.Module, recipe: Recipe, name: str, histogram: Histogram | None) -> nn.Module:
    """Return what rounds the input called `name`; the `histogram` of that input is needed for static ranges only."""
    if recipe.activations is None or recipe.has_float_input(name):
        return nn.Identity()
    bits = activation_bits(recipe, name)
    if recipe.activations.ranges == "whole-batch":
        return WholeBatchFakeQuantize(bits)
    if recipe.activations.ranges == "per-token":
        return TokenFakeQuantize(bits)
    assert histogram is not None
    twin = twin_rounding(tower, name, histogram, recipe.activations.observer, bits) if recipe.twin else None
    return twin or FakeQuantize(OBSERVERS[recipe.activations.observer](histogram, bits))


def _run(draft: Draft, recipe: Recipe, calibration: Calibration) -> Draft:
    return replace(draft, roundings={**input_roundings(draft.tower, recipe, calibration), **draft.roundings})


STEP = Step(applies=lambda recipe: recipe.integer_weights, run=_run)
