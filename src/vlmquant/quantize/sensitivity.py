"""How much each layer alone costs: only it is quantized, and the final embeddings are compared. Needs no labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from vlmquant.metrics.fidelity import rank_agreement
from vlmquant.progress import Track, silent
from vlmquant.quantize.apply import plan_tower
from vlmquant.quantize.calibrate import watching_outputs
from vlmquant.quantize.damage import Judge, TowerPlan, cosine_loss
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.sites import sites


@dataclass(frozen=True, kw_only=True)
class LayerSensitivity:
    """One Linear or Conv2d: what quantizing it alone does, and what it is worth.

    `cosine_loss` is 1 - mean cosine of the final embedding to the float one, in [0, 2]; `rank_agreement` the mean
    Spearman's rho between the orders in which an input ranks all inputs, in [-1, 1], 1 when there is only one input;
    `macs` the multiply-accumulates for one input; `weight_bytes` what its weight takes as the recipe stores it, and
    `float_bytes` as float32.
    """

    site: str
    cosine_loss: float
    rank_agreement: float
    macs: int
    weight_bytes: int
    float_bytes: int


def layer_sensitivity(
    tower: nn.Module, recipe: Recipe, inputs: Sequence[Tensor], description: str, track: Track = silent
) -> tuple[LayerSensitivity, ...]:
    """Return the sensitivity of every site that `recipe` quantizes in `tower`, the greatest cosine loss first.

    Calibrated on all `inputs` (batches) and judged on about 32 of them, one forward pass each per site. Where the
    recipe smooths, the sites are those of the smoothed tower; its outlier handling is left out. The tower is not
    touched. Raises CalibrationError as `quantize_tower` does.
    """
    plan = plan_tower(tower, replace(recipe, outliers=None), inputs, description, track)
    return plan_sensitivity(plan, recipe, inputs, description, track)


def plan_sensitivity(
    plan: TowerPlan, recipe: Recipe, inputs: Sequence[Tensor], description: str, track: Track = silent
) -> tuple[LayerSensitivity, ...]:
    """Return the same of a plan that was made with `recipe`."""
    judge = Judge(plan.tower, inputs)
    expected = judge.expected.numpy()
    macs = site_macs(plan.tower, sites(plan.tower, recipe), inputs[0][:1])
    found = []
    for site in track(list(macs), f"{description}: sensitivity of layers", len(macs)):
        rows = judge.embeddings({site: plan.modules[site]})
        finite = rows.nan_to_num(nan=0.0).numpy()
        ranks = rank_agreement(finite, expected, finite, expected) if len(expected) > 1 else np.ones(1)
        weight: Tensor = plan.tower.get_submodule(site).get_parameter("weight")
        found.append(
            LayerSensitivity(
                site=site,
                cosine_loss=cosine_loss(rows, judge.expected),
                rank_agreement=float(ranks.mean()),
                macs=macs[site],
                weight_bytes=_stored_bytes(weight, recipe, site),
                float_bytes=4 * weight.numel(),
            )
        )
    return tuple(sorted(found, key=lambda layer: -layer.cosine_loss))


def site_macs(tower: nn.Module, names: Sequence[str], one: Tensor) -> Mapping[str, int]:
    """Return the multiply-accumulates of each named Linear or Conv2d for the input `one` (1, ...), in forward order."""
    found: dict[str, int] = {}

    def count(site: str, _: tuple[Tensor, ...], output: Tensor) -> None:
        weight = tower.get_submodule(site).get_parameter("weight")
        found[site] = found.get(site, 0) + output.numel() * weight[0].numel()

    with torch.inference_mode(), watching_outputs(tower, names, count):
        tower(one)
    return found


def _stored_bytes(weight: Tensor, recipe: Recipe, site: str) -> int:
    """Return the bytes of the integers, of a Linear two to a byte up to 4 bits, and of the float32 scales."""
    scheme = recipe.weights_at(site)
    if scheme.number != "integer":
        return 2 * weight.numel()
    columns = weight[0].numel()
    grouped = scheme.granularity == "group" and weight.ndim == 2
    scales = len(weight) * (-(-columns // scheme.group_size) if grouped else 1)
    packed = scheme.bits <= 4 and weight.ndim == 2
    integers = -(-weight.numel() // 2) if packed else weight.numel() * (2 if scheme.bits > 8 else 1)
    return integers + 4 * scales
