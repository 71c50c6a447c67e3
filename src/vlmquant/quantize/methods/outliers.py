"""Outlier handling: smoothing, then the worst layers in float, and both only where outliers do damage.

Large CLIPs have a few activations hundreds of times larger than the rest. Those after a LayerNorm or a value projection
can be folded away (`smoothing`). Those after a GELU, in the second layer of the middle blocks' MLPs, cannot, and one
8-bit grid cannot hold both them and the rest (Bondarenko et al. 2021, arXiv 2109.12948, who give such sites more bits).
Most layers of most models have no such outliers, so the damage to the final embedding is measured first.

This is not a step: it decides which recipe to carry out, and every trial runs the steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from vlmquant.progress import Track, silent
from vlmquant.quantize.damage import Judge, TowerPlan
from vlmquant.quantize.recipes.recipe import Recipe


@dataclass(frozen=True, eq=False, kw_only=True)
class Handled:
    """A plan without the damage of outliers, what of its recipe was carried out, and the damage that is left.

    `recipe` no longer has outlier handling: smoothing is on or off, and every layer that stays float is named.
    `damage` is 1 - mean cosine of the final embedding over some calibration inputs.
    """

    plan: TowerPlan
    recipe: Recipe
    damage: float


def handle_outliers(
    make_plan: Callable[[Recipe], TowerPlan],
    recipe: Recipe,
    sites: Sequence[str],
    inputs: Sequence[Tensor],
    description: str,
    track: Track = silent,
) -> Handled:
    """Return the plan of `recipe` with its outlier handling carried out; only `sites` can stay in float."""
    handling = recipe.outliers
    assert handling is not None
    chosen = replace(recipe, outliers=None)
    plan = make_plan(chosen)
    judge = Judge(plan.tower, inputs)
    damage = judge.damage(plan.modules)
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
    return Handled(plan=plan, recipe=chosen, damage=damage)
