"""Outlier handling: smoothing, then the worst layers in float, and both only where outliers do damage.

Large CLIPs have a few activations that are hundreds of times the rest. Those behind a LayerNorm or a value projection
can be folded away (`smoothing`); those behind a GELU, in the second layer of the middle blocks' MLPs, can not, and one
8-bit grid cannot hold them and the rest (Bondarenko et al. 2021, arXiv 2109.12948, who leave such sites wider). Most
layers of most models have none of it, so the damage to the final embedding is measured first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from vlmquant.progress import Track, silent
from vlmquant.quantize.damage import Judge, Plan
from vlmquant.quantize.recipes.recipe import Recipe


@dataclass(frozen=True, eq=False, kw_only=True)
class Handled:
    """A plan without the damage of outliers, what of its recipe was carried out, and the damage that is left.

    `recipe` says it without outlier handling: smoothing on or off, and every layer that stays float by name.
    `damage_before` and `damage` are 1 - mean cosine of the final embedding over some calibration inputs.
    """

    plan: Plan
    recipe: Recipe
    damage_before: float
    damage: float


def handle_outliers(
    make_plan: Callable[[Recipe], Plan],
    recipe: Recipe,
    sites: Sequence[str],
    inputs: Sequence[Tensor],
    description: str,
    track: Track = silent,
) -> Handled:
    """Return the plan of `recipe` once its outlier handling has done what it must; `sites` can be left in float."""
    handling = recipe.outliers
    assert handling is not None
    chosen = replace(recipe, outliers=None)
    plan = make_plan(chosen)
    judge = Judge(plan.tower, inputs)
    before = damage = judge.damage(plan.modules)
    if damage > handling.tolerated_damage and not chosen.smoothing:
        smoothing = replace(chosen, smoothing=True)
        smoothed = make_plan(smoothing)
        judge_smoothed = Judge(smoothed.tower, inputs)
        if (less := judge_smoothed.damage(smoothed.modules)) < damage:
            chosen, plan, judge, damage = smoothing, smoothed, judge_smoothed, less
    if damage > handling.tolerated_damage and handling.worst_layers_float:
        alone = {
            site: judge.damage({site: plan.modules[site]})
            for site in track(sites, f"{description}: damage by layer", len(sites))
        }
        worst = [site for site in sorted(sites, key=lambda s: -alone[s]) if alone[site] >= handling.least_layer_damage]
        kept: list[str] = []
        for site in worst[: handling.worst_layers_float]:
            kept.append(site)
            rest = plan.without(kept)
            damage = judge.damage(rest.modules)
            if damage <= handling.tolerated_damage:
                break
        plan = plan.without(kept)
        chosen = replace(chosen, keep_float=(*chosen.keep_float, *kept))
    return Handled(plan=plan, recipe=chosen, damage_before=before, damage=damage)
