"""Choosing a static activation range from what a site saw during calibration."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmquant.quantize.affine import Grid, asymmetric_grid, fake_quantize, quantize

# Fine enough that an 8-bit grid clipped to a hundredth of the full range still spans many bins.
HISTOGRAM_BINS = 1 << 14
COARSE_SHRINKS = np.geomspace(1.0, 0.01, 14)
FINE_SHRINKS = np.geomspace(0.72, 1.39, 9)
OUTSIDE = 1e-4
KL_CUTS = np.geomspace(1.0, 0.02, 60)
KL_FLOOR = 1e-9


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
        return np.asarray(self.low + width * (np.arange(len(self.counts)) + 0.5), dtype=np.float64)


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


def percentile_grid(histogram: Histogram, bits: int) -> Grid:
    """Return the grid that leaves out `OUTSIDE` of the values, half of it at either end."""
    shares = np.cumsum(histogram.counts) / histogram.counts.sum()
    edges = np.linspace(histogram.low, histogram.high, len(histogram.counts) + 1)
    low = edges[int(np.searchsorted(shares, OUTSIDE / 2))]
    high = edges[min(int(np.searchsorted(shares, 1 - OUTSIDE / 2)) + 1, len(histogram.counts))]
    return asymmetric_grid(low, high, bits)


def kl_grid(histogram: Histogram, bits: int) -> Grid:
    """Return the grid whose rounded and clipped distribution diverges least from what the site saw.

    Migacz 2017 ("8-bit inference with TensorRT"), with one limit on the magnitude: the reference holds the clipped
    values in its end bins, the candidate spreads each level's count over the filled bins that round to it.
    """
    centres, counts = histogram.centres, histogram.counts
    magnitude = max(-histogram.low, histogram.high)

    def clipped(cut: float) -> Grid:
        return asymmetric_grid(max(histogram.low, -cut * magnitude), min(histogram.high, cut * magnitude), bits)

    def divergence(cut: float) -> float:
        grid = clipped(cut)
        inside = (centres >= grid.low - grid.scale / 2) & (centres <= grid.high + grid.scale / 2)
        kept = counts[inside]
        if not kept.any():
            return np.inf
        first, last = int(np.argmax(inside)), len(inside) - 1 - int(np.argmax(inside[::-1]))
        reference = kept.copy()
        reference[0] += counts[:first].sum()
        reference[-1] += counts[last + 1 :].sum()
        levels = quantize(centres[inside], grid)
        filled = np.bincount(levels, weights=kept > 0, minlength=grid.qmax + 1)
        totals = np.bincount(levels, weights=kept, minlength=grid.qmax + 1)
        candidate = np.where(kept > 0, (totals / np.maximum(filled, 1))[levels], 0.0)
        reference, candidate = reference / reference.sum(), candidate / candidate.sum()
        # Bins that only the reference fills (values clipped onto an empty end bin) count at the smoothing floor.
        seen = reference > 0
        return float(np.sum(reference[seen] * np.log(reference[seen] / np.maximum(candidate[seen], KL_FLOOR))))

    best = min((float(cut) for cut in KL_CUTS), key=divergence)
    return clipped(best)


OBSERVERS = {"minmax": minmax_grid, "percentile": percentile_grid, "mse": mse_grid, "kl": kl_grid}
