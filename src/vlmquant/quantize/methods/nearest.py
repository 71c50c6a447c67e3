"""Every weight rounded to the nearest integer of its scale: where all other ways of rounding start."""

from dataclasses import replace

from vlmquant.quantize.methods.step import Calibration, Draft, Step
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.sites import sites, weight_matrix, weight_scheme
from vlmquant.quantize.weights import round_nearest, weight_scales


def _run(draft: Draft, recipe: Recipe, _: Calibration) -> Draft:
    scales, weights = dict(draft.scales), {}
    for name in sites(draft.tower, recipe):
        matrix = weight_matrix(draft.tower.get_submodule(name))
        scheme = weight_scheme(draft.tower, recipe, name)
        if name not in scales:
            scales[name] = weight_scales(matrix, scheme)
        weights[name] = round_nearest(matrix, scales[name], scheme)
    return replace(draft, scales=scales, weights=weights)


STEP = Step(applies=lambda recipe: recipe.integer_weights, run=_run)
