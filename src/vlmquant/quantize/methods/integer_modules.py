"""The modules of a quantized tower: integer weights, and roundings in front of them."""

from dataclasses import replace

from vlmquant.quantize.methods.ranges import rounding_of
from vlmquant.quantize.methods.step import Calibration, Draft, Step
from vlmquant.quantize.modules import quantized_module
from vlmquant.quantize.recipes.recipe import Recipe


def _run(draft: Draft, recipe: Recipe, _: Calibration) -> Draft:
    modules = {**draft.modules, **draft.roundings}
    for name, weight in draft.weights.items():
        # Only rows rounded on ranges of their own have nothing in the draft.
        rounding = draft.roundings[name] if name in draft.roundings else rounding_of(draft.tower, recipe, name, None)
        modules[name] = quantized_module(draft.tower.get_submodule(name), weight, rounding)
    return replace(draft, modules=modules)


STEP = Step(applies=lambda recipe: recipe.integer_weights, run=_run)
