"""A method in a file of its own, as a contributor would write one."""

from dataclasses import replace

import numpy as np

from vlmquant.quantize.methods.step import Calibration, Draft, Step
from vlmquant.quantize.recipes.recipe import Recipe
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
