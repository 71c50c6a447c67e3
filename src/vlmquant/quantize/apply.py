"""From a float tower and a recipe to a new, quantized tower."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from vlmquant.errors import RecipeError, unknown
from vlmquant.progress import Track, silent
from vlmquant.quantize.damage import TowerPlan
from vlmquant.quantize.methods import STEPS
from vlmquant.quantize.methods.outliers import handle_outliers
from vlmquant.quantize.methods.pruning import prune_tower
from vlmquant.quantize.methods.step import Calibration, Draft
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.sites import sites


def quantize_tower(
    tower: nn.Module, recipe: Recipe, inputs: Sequence[Tensor], description: str, track: Track = silent
) -> nn.Module:
    """Return a quantized copy of `tower`, calibrated on `inputs` (batches); the float tower is not touched.

    Raises CalibrationError when the recipe has to measure something and there are no inputs or a site sees a value
    that is not finite, RecipeError when the recipe names a step that does not exist.
    """
    return quantize_by_damage(tower, recipe, inputs, description, track)[0]


def quantize_by_damage(
    tower: nn.Module, recipe: Recipe, inputs: Sequence[Tensor], description: str, track: Track = silent
) -> tuple[nn.Module, Recipe]:
    """Return what `quantize_tower` does, and the recipe with its outlier handling spelled out for this tower."""
    plan, carried_out = plan_by_damage(tower, recipe, inputs, description, track)
    return plan.carried_out(), carried_out


def plan_by_damage(
    tower: nn.Module, recipe: Recipe, inputs: Sequence[Tensor], description: str, track: Track = silent
) -> tuple[TowerPlan, Recipe]:
    """Return the same before it is carried out: what takes which module's place, and the recipe spelled out."""
    if recipe.outliers is None:
        return plan_tower(tower, recipe, inputs, description, track), recipe
    tower, rest = pruned_first(tower, recipe, inputs, description, track)
    make_plan = partial(plan_tower, tower, inputs=inputs, description=description, track=track)
    handled = handle_outliers(make_plan, rest, sites(tower, rest), inputs, description, track)
    return handled.plan, replace(handled.recipe, prune=recipe.prune)


def pruned_first(
    tower: nn.Module, recipe: Recipe, inputs: Sequence[Tensor], description: str, track: Track = silent
) -> tuple[nn.Module, Recipe]:
    """Return the float tower after the pruning of `recipe`, and the rest of it: who tries several plans prunes once."""
    if not recipe.prune:
        return tower, recipe
    return prune_tower(tower, recipe.prune, Calibration(inputs, description, track)), replace(recipe, prune=0.0)


def plan_tower(
    tower: nn.Module, recipe: Recipe, inputs: Sequence[Tensor], description: str, track: Track = silent
) -> TowerPlan:
    """Return what the steps of `recipe`, which leave its outlier handling out, replace in a copy of `tower`."""
    check_steps(recipe)
    calibration = Calibration(inputs, description, track)
    draft = Draft(tower=copy.deepcopy(tower).eval())
    for step in STEPS.values():
        if step.applies(recipe):
            draft = step.run(draft, recipe, calibration)
    return TowerPlan(draft.tower, draft.modules)


def is_fitted(recipe: Recipe) -> bool:
    """Whether a step of `recipe` fits layers to the calibration inputs."""
    return any(step.fits and step.applies(recipe) for step in STEPS.values())


def check_steps(recipe: Recipe) -> None:
    """Raise RecipeError where `recipe.steps` names a step that does not exist or that its name does not switch on."""
    for name in recipe.steps:
        if name not in STEPS:
            raise unknown(RecipeError, "step", name, STEPS)
        if not STEPS[name].applies(recipe):
            raise RecipeError(f"recipe {recipe.name!r}: step {name!r} has a field of its own; set that and not `steps`")
