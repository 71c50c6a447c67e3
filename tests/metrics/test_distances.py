import numpy as np
import pytest

from vlmquant.metrics.distances import kolmogorov_smirnov, wasserstein_1


def test_wasserstein_by_hand() -> None:
    assert wasserstein_1(np.array([0.0, 1.0]), np.array([0.5, 1.5])) == pytest.approx(0.5)
    assert wasserstein_1(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])) == 0


def test_kolmogorov_smirnov_by_hand() -> None:
    assert kolmogorov_smirnov(np.array([0.0, 1.0]), np.array([0.5, 1.5])) == pytest.approx(0.5)
    assert kolmogorov_smirnov(np.array([1.0, 2.0]), np.array([3.0])) == 1
    assert kolmogorov_smirnov(np.array([1.0, 1.0, 2.0]), np.array([2.0, 1.0, 1.0])) == 0


def test_both_agree_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=200), rng.normal(0.3, 2, size=77)
    assert wasserstein_1(one, other) == pytest.approx(stats.wasserstein_distance(one, other), abs=1e-12)
    assert kolmogorov_smirnov(one, other) == pytest.approx(stats.ks_2samp(one, other).statistic, abs=1e-12)


@pytest.mark.parametrize("distance", [wasserstein_1, kolmogorov_smirnov])
def test_an_empty_sample_is_refused(distance) -> None:
    with pytest.raises(ValueError, match="two samples"):
        distance(np.zeros(2), np.empty(0))
