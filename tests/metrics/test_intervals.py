"""Intervals and p-values against SciPy, simulation and hand-computed cases."""

import math

import numpy as np
import pytest

from vlmquant.metrics.intervals import bootstrap_mean, cluster_sums, mcnemar_p, smallest_detectable_drop


def test_mcnemar_equals_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    pairs = [(losses, gains) for losses in range(13) for gains in range(13) if losses + gains]
    pairs += [(100, 80), (3, 500), (1000, 1100), (2500, 2500)]
    for losses, gains in pairs:
        expected = stats.binomtest(losses, losses + gains).pvalue
        assert mcnemar_p(losses, gains) == pytest.approx(expected, rel=1e-12, abs=1e-300)


def test_mcnemar_by_hand() -> None:
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(6, 0) == 2 / 64
    assert mcnemar_p(1, 3) == 2 * 5 / 16
    assert mcnemar_p(2, 2) == 1.0
    with pytest.raises(ValueError, match="negative"):
        mcnemar_p(-1, 0)


@pytest.mark.parametrize(("pictures", "captions"), [(300, 1), (120, 5)])
def test_interval_covers_the_truth_in_93_to_97_of_100(pictures: int, captions: int) -> None:
    random = np.random.default_rng(5)
    runs, covered = 600, 0
    clusters = np.repeat(np.arange(pictures), captions)
    for run in range(runs):
        # A picture moves its own loss rate, so its captions are correlated; the true mean is -0.06.
        rate = 0.12 * random.beta(2, 2, pictures).repeat(captions) * 2
        draw = random.random(len(clusters))
        values = np.where(draw < rate, -1.0, np.where(draw > 0.94, 1.0, 0.0))
        interval = bootstrap_mean(values, clusters, seed=run)
        covered += interval.low <= -0.06 <= interval.high
    assert 0.93 <= covered / runs <= 0.97


def test_bootstrap_is_seeded_and_exact_where_nothing_varies() -> None:
    values = np.array([0.0, 1.0, 0.0, -1.0, 1.0])
    clusters = np.array([0, 0, 1, 2, 3])
    assert bootstrap_mean(values, clusters, seed=3) == bootstrap_mean(values, clusters, seed=3)
    still = bootstrap_mean(np.zeros(50), np.arange(50))
    assert (still.estimate, still.low, still.high) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="one shape"):
        bootstrap_mean(np.zeros(3), np.arange(2))


def test_clustering_widens_the_interval_of_correlated_samples() -> None:
    random = np.random.default_rng(1)
    values = random.choice([-1.0, 0.0, 1.0], 200).repeat(5)
    together = bootstrap_mean(values, np.arange(200).repeat(5))
    alone = bootstrap_mean(values, np.arange(1000))
    assert (together.high - together.low) > 1.9 * (alone.high - alone.low)


def test_cluster_sums_do_not_need_sorted_clusters() -> None:
    sums, sizes = cluster_sums(np.array([1.0, 2.0, 4.0]), np.array([9, 3, 9]))
    assert sums.tolist() == [2.0, 5.0]
    assert sizes.tolist() == [1.0, 2.0]


def test_smallest_detectable_drop() -> None:
    quiet = np.zeros(1000)
    assert smallest_detectable_drop(quiet, np.arange(1000)) == 6 / 1000
    busy = np.tile([1.0, -1.0], 500)
    expected = (1.959964 + 0.841621) * math.sqrt(1000 / 999) / math.sqrt(1000)
    assert smallest_detectable_drop(busy, np.arange(1000)) == pytest.approx(expected)
    assert smallest_detectable_drop(np.zeros(5), np.zeros(5, dtype=np.int64)) == 6.0
