"""Choosing a static activation range from what a site saw during calibration."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmquant.quantize.affine import Grid, asymmetric_grid

# Fine enough that an 8-bit grid clipped to a hundredth of the full range still spans many bins.
HISTOGRAM_BINS = 1 << 15
SHRINK_FACTORS = np.geomspace(1.0, 0.02, 48)


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of the values of one site in `len(counts)` equal bins over [low, high]."""

    low: float
    high: float
    counts: NDArray[np.float64]

    @property
    def centres(self) -> NDArray[np.float64]:
        """The middle of each bin."""
        width = (self.high - self.low) / len(self.counts)
        return self.low + width * (np.arange(len(self.counts)) + 0.5)


def minmax_grid(histogram: Histogram, bits: int) -> Grid:
    """Return the grid that covers everything the site saw."""
    return asymmetric_grid(histogram.low, histogram.high, bits)


def mse_grid(histogram: Histogram, bits: int) -> Grid:
    """Return the grid with the least squared rounding-and-clipping error over the histogram.

    Coordinate search over the two ends of the range, each shrunk towards zero by `SHRINK_FACTORS`; two rounds, because
    the best cut of one end depends little on the other (cf. "MSE" range setting in Nagel et al. 2021, section 3.1).
    """
    filled = histogram.counts > 0
    values, weights = histogram.centres[filled], histogram.counts[filled]

    def error(low: float, high: float) -> float:
        grid = asymmetric_grid(low, high, bits)
        rounded = (np.clip(np.rint(values / grid.scale) + grid.zero_point, grid.qmin, grid.qmax) - grid.zero_point) * grid.scale
        return float(np.dot(weights, (rounded - values) ** 2))

    low, high = histogram.low, histogram.high
    for _ in range(2):
        high = min((histogram.high * f for f in SHRINK_FACTORS), key=lambda candidate: error(low, candidate))
        low = min((histogram.low * f for f in SHRINK_FACTORS), key=lambda candidate: error(candidate, high))
    return asymmetric_grid(low, high, bits)


OBSERVERS = {"minmax": minmax_grid, "mse": mse_grid}
