import numpy as np
import pytest

from vlmquant.quantize.affine import fake_quantize
from vlmquant.quantize.observe import Histogram, kl_grid, minmax_grid, mse_grid, percentile_grid


def histogram_of(values: np.ndarray, bins: int = 1 << 15) -> Histogram:
    counts, _ = np.histogram(values, bins, (values.min(), values.max()))
    return Histogram(float(values.min()), float(values.max()), counts.astype(np.float64))


def test_minmax_covers_everything() -> None:
    grid = minmax_grid(histogram_of(np.array([-1.0, 0.0, 3.0])), bits=8)
    assert grid.low <= -1.0 + grid.scale
    assert grid.high >= 3.0 - grid.scale


def test_clipping_by_error_beats_minmax_where_one_value_is_far_out() -> None:
    generator = np.random.default_rng(0)
    values = np.append(generator.normal(size=200_000), 40.0)
    histogram = histogram_of(values)
    for bits in (4, 6, 8):
        clipped, whole = mse_grid(histogram, bits), minmax_grid(histogram, bits)
        error_clipped = np.mean((fake_quantize(values, clipped) - values) ** 2)
        error_whole = np.mean((fake_quantize(values, whole) - values) ** 2)
        assert error_clipped < 0.9 * error_whole
    assert mse_grid(histogram, 8).high < 40.0


def test_a_uniform_site_is_not_clipped() -> None:
    values = np.linspace(-1.0, 1.0, 100_001)
    grid = mse_grid(histogram_of(values), bits=8)
    assert grid.high == pytest.approx(1.0, rel=0.02)
    assert grid.low == pytest.approx(-1.0, rel=0.02)


def test_a_silent_site_gets_a_harmless_grid() -> None:
    grid = mse_grid(Histogram(0.0, 0.0, np.array([8.0] + [0.0] * 7)), bits=8)
    assert fake_quantize(np.zeros(3), grid).tolist() == [0.0, 0.0, 0.0]


def test_percentile_leaves_out_one_value_in_ten_thousand() -> None:
    values = np.append(np.linspace(0.0, 1.0, 99_995), np.full(5, 50.0))
    grid = percentile_grid(histogram_of(values), bits=8)
    assert grid.low == 0.0
    assert grid.high == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("bits", [4, 8])
def test_divergence_cuts_a_lonely_outlier_and_leaves_a_uniform_site(bits: int) -> None:
    generator = np.random.default_rng(0)
    lonely = np.append(generator.normal(size=100_000), 60.0)
    assert kl_grid(histogram_of(lonely), bits).high < 30.0
    uniform = kl_grid(histogram_of(np.linspace(-1.0, 1.0, 100_001)), bits)
    assert (uniform.low, uniform.high) == (pytest.approx(-1.0, rel=0.1), pytest.approx(1.0, rel=0.1))
