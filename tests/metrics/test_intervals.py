"""Intervals and p-values against SciPy, simulation and hand-computed cases."""

import math

import numpy as np
import pytest

from vlmquant.metrics.intervals import (
    FEW_CHANGES,
    Z,
    bootstrap_mean,
    cluster_sums,
    mcnemar_p,
    paired_mean,
    score_interval,
    smallest_detectable_drop,
)


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


@pytest.mark.parametrize(("losses", "gains", "pairs"), [(2, 12, 50), (3, 3, 100), (0, 5, 1000), (7, 1, 60), (0, 0, 20)])
def test_the_score_interval_ends_where_the_score_test_begins_to_reject(losses: int, gains: int, pairs: int) -> None:
    """Against the likeliest rates at a difference, found by trying 200,000 of them."""
    for bound in score_interval(losses, gains, pairs):
        losing = np.linspace(max(0.0, -bound) + 1e-9, (1 - bound) / 2 - 1e-9, 200_001)
        gaining = losing + bound
        likelihood = (
            losses * np.log(losing) + gains * np.log(gaining) + (pairs - losses - gains) * np.log(1 - losing - gaining)
        )
        likeliest = losing[likelihood.argmax()]
        score = (gains - losses - pairs * bound) / math.sqrt(pairs * (2 * likeliest + bound * (1 - bound)))
        assert abs(score) == pytest.approx(Z, abs=2e-3)


def test_the_score_interval_is_symmetric_and_known_where_nothing_changed() -> None:
    low, high = score_interval(0, 0, 50)
    assert high == pytest.approx(Z**2 / (50 + Z**2))
    assert low == -high
    assert score_interval(2, 9, 70) == tuple(-bound for bound in reversed(score_interval(9, 2, 70)))
    with pytest.raises(ValueError, match="at least one pair"):
        score_interval(1, 0, 0)


@pytest.mark.parametrize("losing", [0.5, 0.8, 1.0])
@pytest.mark.parametrize("changes", [0.5, 2, 5, 12, 20])
def test_a_paired_interval_covers_the_truth_however_few_answers_change(changes: float, losing: float) -> None:
    from benchmarks.coverage import exact

    covered = exact(200, changes, losing)
    assert covered["paired"] >= 0.93
    assert covered["paired"] >= covered["bootstrap"]


def test_a_paired_interval_is_wide_where_nothing_changed_and_the_bootstrap_where_much_did() -> None:
    still = paired_mean(np.zeros(50), np.arange(50))
    assert (still.estimate, still.low, still.high) == (0.0, *score_interval(0, 0, 50))
    captions = paired_mean(np.zeros(50), np.arange(10).repeat(5))
    assert captions.high == score_interval(0, 0, 10)[1]
    busy = np.zeros(1000)
    busy[: FEW_CHANGES + 1] = -1.0
    assert paired_mean(busy, np.arange(1000), 3) == bootstrap_mean(busy, np.arange(1000), 3)
    most = np.array([-1.0, 1.0, -0.5, 0.0])
    assert paired_mean(most, np.arange(4)) == bootstrap_mean(most, np.arange(4))


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
