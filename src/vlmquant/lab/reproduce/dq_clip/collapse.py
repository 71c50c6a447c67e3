"""Why a tower collapses under torch's dynamic quantization: the damage of each layer, and what it has to round."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from vlmquant.lab.reproduce.dq_clip.quantized_towers import TORCH_RECIPE
from vlmquant.lab.reproduce.dq_clip.towers_worker import MLP_LINEARS
from vlmquant.progress import Track
from vlmquant.quantize.apply import plan_tower
from vlmquant.quantize.calibrate import histogram_of, input_histograms
from vlmquant.quantize.damage import Judge, up_to
from vlmquant.quantize.observe import Histogram, percentile_grid
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.quantize.sensitivity import plan_sensitivity

WORST = 3
LOOKED_AT = 16
BINS = 256


def layers_of(tower: nn.Module, inputs: Sequence[Tensor], what: str, track: Track) -> dict[str, Any]:
    """Return what torch's 7 whole-batch bits do to `tower`, on about 16 of the calibration inputs.

    `damage` is 1 - mean cosine of the embeddings with all Linears rounded, a layer's with it alone. `outliers` is the
    share of the range of a layer's input that one value in ten thousand takes. `weights` and `activations` are
    histograms: of the weights of the worst layers, and of what GELU gives to the first, the last and the worst `fc2`.
    """
    recipe, inputs = get_recipe(TORCH_RECIPE), up_to(inputs, LOOKED_AT)
    plan = plan_tower(tower, recipe, inputs, what, track)
    layers = plan_sensitivity(plan, recipe, inputs, what, track)
    seen = input_histograms(plan.tower, [layer.site for layer in layers], inputs, f"{what}: distributions", track)
    worst = [layer.site for layer in layers[:WORST]]
    behind_gelu = [name for name, _ in plan.tower.named_modules() if name in seen and name.endswith(MLP_LINEARS[1])]
    shown = [*behind_gelu[:1], *behind_gelu[-1:], *(name for name in (x.site for x in layers) if name in behind_gelu)]
    return {
        "damage": Judge(plan.tower, inputs).damage(plan.modules),
        "layers": [
            {"site": layer.site, "damage": layer.cosine_loss, "outliers": outlier_share(seen[layer.site])}
            for layer in layers
        ],
        "weights": {
            name: _points(histogram_of(plan.tower.get_submodule(name).get_parameter("weight"))) for name in worst
        },
        "activations": {name: _points(seen[name]) for name in list(dict.fromkeys(shown))[:WORST]},
    }


def outlier_share(seen: Histogram) -> float:
    """Return the share (0..1) of the range of what a site saw that one value in ten thousand takes."""
    if seen.high <= seen.low:
        return 0.0
    inner = percentile_grid(seen, 8)
    return max(0.0, 1 - (inner.high - inner.low) / (seen.high - seen.low))


def _points(histogram: Histogram) -> dict[str, Any]:
    """Return the middles of the bins that are not empty, the percentage of the values in each, and their number."""
    counts = histogram.counts.reshape(BINS, -1).sum(axis=1)
    edges = np.linspace(histogram.low, histogram.high, BINS + 1)
    filled = counts > 0
    middles = (edges[:-1] + edges[1:]) / 2
    return {
        "x": middles[filled].tolist(),
        "y": (100 * counts[filled] / counts.sum()).tolist(),
        "n": int(counts.sum()),
    }
