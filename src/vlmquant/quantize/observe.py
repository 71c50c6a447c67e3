"""Choosing a static activation range from what a site saw during calibration."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmquant.quantize.affine import Grid, asymmetric_grid, fake_quantize

# Fine enough that an 8-bit grid clipped to a hundredth of the full range still spans many bins.
HISTOGRAM_BINS = 1 << 14
COARSE_SHRINKS = np.geomspace(1.0, 0.01, 14)
FINE_SHRINKS = np.geomspace(0.72, 1.39, 9)


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

    Coordinate search over the two ends of the range, each shrunk towards zero by `COARSE_SHRINKS` and then, around the
    best of them, by `FINE_SHRINKS`; the best cut of one end depends little on the other's (cf. the MSE range setting
    of Nagel et al. 2021, arXiv 2106.08295, section 3.1).
    """
    filled = histogram.counts > 0
    values, weights = histogram.centres[filled], histogram.counts[filled]

    def error(low: float, high: float) -> float:
        return float(np.dot(weights, (fake_quantize(values, asymmetric_grid(low, high, bits)) - values) ** 2))

    low_cut = high_cut = 1.0
    for shrinks in (COARSE_SHRINKS, FINE_SHRINKS):
        highs, lows = np.minimum(high_cut * shrinks, 1.0), np.minimum(low_cut * shrinks, 1.0)
        low = histogram.low * low_cut
        high_cut = min(highs, key=lambda cut: error(low, histogram.high * cut))
        high = histogram.high * high_cut
        low_cut = min(lows, key=lambda cut: error(histogram.low * cut, high))
    return asymmetric_grid(histogram.low * low_cut, histogram.high * high_cut, bits)


OBSERVERS = {"minmax": minmax_grid, "mse": mse_grid}
