"""Both products inside attention as modules, whose operands later steps round."""

import copy
from dataclasses import replace

from vlmquant.quantize.attention import make_attention_explicit
from vlmquant.quantize.methods.step import Calibration, Draft, Step
from vlmquant.quantize.recipes.recipe import Recipe


def _run(draft: Draft, recipe: Recipe, _: Calibration) -> Draft:
    assert recipe.activations is not None
    tower = copy.deepcopy(draft.tower)
    make_attention_explicit(tower, per_head=recipe.activations.granularity == "head")
    return replace(draft, tower=tower)


STEP = Step(applies=lambda recipe: recipe.attention_matmuls, run=_run)
