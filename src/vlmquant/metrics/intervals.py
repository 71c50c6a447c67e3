"""How sure a difference between two models is, when both answered the same questions."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 10_000
Z = 1.959964
POWER_FACTOR = Z + 0.841621
"""Normal quantiles of a two-sided 5 % test with 80 % power."""
FEWEST_FLIPS = 6
"""2 * 0.5**6 = 0.031: fewer flips, even all one way, cannot reach p < 0.05 in the exact McNemar test."""
CHUNK_ENTRIES = 4_000_000
FEW_CHANGES = 20
"""Up to so many changed clusters a bootstrap resamples too few kinds of them, and its interval is too narrow."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval, all in the unit of the samples."""

    estimate: float
    low: float
    high: float


def bootstrap_mean(values: FloatArray, clusters: NDArray[np.int64], seed: int = 0) -> Interval:
    """Return the mean of (n,) values with the percentile bootstrap interval over clusters.

    `clusters` is (n,) int64: samples of one cluster (the captions of one image) are drawn together, because they
    succeed and fail together. 10,000 resamples; the same seed gives the same bits. Clusters with the same sum and
    size are interchangeable, so a resample is one multinomial draw over the distinct (sum, size) pairs: the same
    distribution as drawing indices, and a hundred times faster for outcomes that are 0 or 1.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13.
    """
    if values.shape != clusters.shape or values.ndim != 1 or not len(values):
        raise ValueError(f"expected values and clusters of one shape (n,), got {values.shape} and {clusters.shape}")
    sums, sizes = cluster_sums(values, clusters)
    kinds, multiplicity = np.unique(np.stack([sums, sizes], axis=1), axis=0, return_counts=True)
    share = multiplicity / multiplicity.sum()
    random = np.random.default_rng(seed)
    step = max(1, CHUNK_ENTRIES // len(kinds))
    means = []
    for start in range(0, RESAMPLES, step):
        drawn = random.multinomial(len(sums), share, size=min(step, RESAMPLES - start)).astype(np.float64)
        means.append((drawn @ kinds[:, 0]) / (drawn @ kinds[:, 1]))
    low, high = np.quantile(np.concatenate(means), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(math.fsum(values) / len(values), float(low), float(high))


def paired_mean(differences: FloatArray, clusters: NDArray[np.int64], seed: int = 0) -> Interval:
    """Return the mean of paired differences (n,), each in [-1, 1], with its interval; `clusters` as `bootstrap_mean`.

    Where few clusters changed, and most did not, the bootstrap's interval is widened to a score interval of how many
    got worse and better, each by as much as the one that changed most; where none did, by all it has.
    `benchmarks/coverage.py` simulates how often the interval holds the truth.
    """
    found = bootstrap_mean(differences, clusters, seed)
    sums, sizes = cluster_sums(differences, clusters)
    worse, better = int((sums < 0).sum()), int((sums > 0).sum())
    changed = len(np.unique(clusters[differences != 0]))
    if changed > FEW_CHANGES or 2 * changed > len(sums):
        return found
    most = float(np.abs(sums).max()) or float(sizes.max())
    low, high = (bound * most / float(sizes.mean()) for bound in score_interval(worse, better, len(sums)))
    return Interval(found.estimate, max(-1.0, min(found.low, low)), min(1.0, max(found.high, high)))


def score_interval(losses: int, gains: int, pairs: int) -> tuple[float, float]:
    """Return the 95 % score interval of (gains - losses) / pairs, for paired answers that are right or wrong.

    Source: Tango, Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design, Statistics in Medicine 17, 1998, section 3.
    """
    if min(losses, gains) < 0 or losses + gains > pairs or not pairs:
        raise ValueError(f"expected losses and gains of at least one pair, got {losses} and {gains} of {pairs}")
    low = -_bound(gains, losses, pairs)
    return low, _bound(losses, gains, pairs)


def _bound(losses: int, gains: int, pairs: int) -> float:
    """Return the largest difference that the score test does not reject, by bisection."""
    inside, outside = (gains - losses) / pairs, 1.0
    for _ in range(60):
        middle = (inside + outside) / 2
        if middle in (inside, outside):
            break
        spread = 2 * pairs + losses - gains
        linear = spread * middle - losses - gains
        root = math.sqrt(linear**2 + 8 * pairs * losses * middle * (1 - middle))
        losing = (root - linear) / (4 * pairs)  # the likeliest rate of losses at this difference
        variance = pairs * (2 * losing + middle * (1 - middle))
        rejected = (pairs * middle - gains + losses) ** 2 > Z**2 * variance
        inside, outside = (inside, middle) if rejected else (middle, outside)
    return inside


def cluster_sums(values: FloatArray, clusters: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    """Return the sum and the number of the samples of every cluster, both (clusters,) float64."""
    _, position = np.unique(clusters, return_inverse=True)
    sums = np.bincount(position, weights=values).astype(np.float64)
    return sums, np.bincount(position).astype(np.float64)


def mcnemar_p(losses: int, gains: int) -> float:
    """Return the exact two-sided McNemar p-value of `losses` right->wrong and `gains` wrong->right flips.

    The binomial test with p = 1/2, in integers, so it is exact to the last bit; 1.0 when nothing flipped.
    Source: McNemar, Psychometrika 12, 1947; the exact form is the sign test.
    """
    if losses < 0 or gains < 0:
        raise ValueError(f"flip counts must not be negative, got {losses} and {gains}")
    flips = losses + gains
    ways, tail = 1, 0
    for chosen in range(min(losses, gains) + 1):
        tail += ways
        ways = ways * (flips - chosen) // (chosen + 1)
    return float(min(1.0, 2 * tail / (1 << flips)))


def smallest_detectable_drop(differences: FloatArray, clusters: NDArray[np.int64]) -> float:
    """Return the drop of the mean that these samples would have shown with 80 % power, in the samples' unit.

    The normal approximation on the spread that the paired differences (n,) really have, and never less than a
    flip in each of six clusters, without which no exact test can say anything (more than 1 below six clusters).
    """
    sums, sizes = cluster_sums(differences, clusters)
    floor = FEWEST_FLIPS / len(sums)
    if len(sums) < 2:
        return floor
    mean = sums.sum() / sizes.sum()
    spread = float(np.std(sums - mean * sizes, ddof=1)) * math.sqrt(len(sums)) / float(sizes.sum())
    return max(POWER_FACTOR * spread, floor)
