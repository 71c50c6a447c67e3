"""Two step sizes in one tensor, after a GELU and after a softmax, and the first guess of them."""

import numpy as np
import torch
from torch import nn

from vlmquant.quantize.observe import OBSERVERS, Histogram
from vlmquant.quantize.rounding import TwinFakeQuantize, TwinGrid, activation_minimum, gelu_twin_grid, softmax_twin_grid

# The fine range of probabilities ends at 2^-shift; below 2^-19 a share of attention moves nothing.
SHIFTS = range(20)


def twin_rounding(
    tower: nn.Module, name: str, histogram: Histogram, observer: str, bits: int
) -> TwinFakeQuantize | None:
    """Return the twin rounding for the input called `name`; None where it follows neither a GELU nor a softmax."""
    owner, _, last = name.rpartition(".")
    if ".values_product.left" in name:
        return TwinFakeQuantize(_softmax_grid(histogram, bits))
    activation = getattr(tower.get_submodule(owner), "activation_fn", None)
    if last != "fc2" or not isinstance(activation, nn.Module):
        return None
    minimum = activation_minimum(activation)
    if minimum >= 0:
        return None
    high = OBSERVERS[observer](_above_zero(histogram), bits - 1).high
    return TwinFakeQuantize(gelu_twin_grid(minimum, high, bits))


def _above_zero(histogram: Histogram) -> Histogram:
    """Return the bins that lie above zero; one empty bin when none does."""
    above = histogram.centres > 0
    if not above.any():
        return Histogram(0.0, 1e-6, np.zeros(1))
    width = (histogram.high - histogram.low) / len(histogram.counts)
    first = int(np.argmax(above))
    return Histogram(max(histogram.low + first * width, 0.0), histogram.high, histogram.counts[first:])


def _softmax_grid(histogram: Histogram, bits: int) -> TwinGrid:
    values, counts = torch.from_numpy(histogram.centres), torch.from_numpy(histogram.counts)

    def error(grid: TwinGrid) -> float:
        return float(torch.dot(counts, (TwinFakeQuantize(grid)(values) - values) ** 2))

    return min((softmax_twin_grid(shift, bits) for shift in SHIFTS), key=error)
