"""How far apart two distributions are, from a sample of each."""

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]


def wasserstein_1(first: Samples, second: Samples) -> float:
    """Return the Wasserstein-1 distance of two samples (n,) and (m,), in their unit.

    The area between the two cumulative distribution functions: how far a value has to move on average for one
    distribution to become the other. Source: Vallender, Theory of Probability and its Applications 18, 1974.
    """
    below_first, below_second, places = _cumulative(first, second)
    return float(np.sum(np.abs(below_first - below_second)[:-1] * np.diff(places)))


def kolmogorov_smirnov(first: Samples, second: Samples) -> float:
    """Return the Kolmogorov-Smirnov distance of two samples (n,) and (m,), in [0, 1].

    The greatest gap between the two cumulative distribution functions. Source: Smirnov, Annals of Mathematical
    Statistics 19, 1948.
    """
    below_first, below_second, _ = _cumulative(first, second)
    return float(np.abs(below_first - below_second).max())


def _cumulative(first: Samples, second: Samples) -> tuple[Samples, Samples, Samples]:
    """Return both distribution functions at every value that occurs, and these values in order."""
    if first.ndim != 1 or second.ndim != 1 or not len(first) or not len(second):
        raise ValueError(f"expected two samples of shape (n,), got {first.shape} and {second.shape}")
    places = np.sort(np.concatenate([first, second]))
    below_first = np.searchsorted(np.sort(first), places, side="right") / len(first)
    below_second = np.searchsorted(np.sort(second), places, side="right") / len(second)
    return below_first, below_second, places
