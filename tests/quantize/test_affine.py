import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmquant.quantize.affine import (
    Grid,
    asymmetric_grid,
    dequantize,
    fake_quantize,
    quantize,
)

finite = st.floats(-1e4, 1e4, width=32)


def test_asymmetric_grid_by_hand() -> None:
    grid = asymmetric_grid(-1.0, 2.0, bits=2)
    assert grid == Grid(scale=1.0, zero_point=1, qmin=0, qmax=3)
    values = np.array([-5.0, -0.6, 0.4, 1.5, 9.0])
    assert quantize(values, grid).tolist() == [0, 0, 1, 3, 3]
    assert dequantize(quantize(values, grid), grid).tolist() == [-1.0, -1.0, 0.0, 2.0, 2.0]


def test_rounding_is_half_to_even_as_in_onnx() -> None:
    grid = Grid(scale=1.0, zero_point=0, qmin=-8, qmax=7)
    assert quantize(np.array([0.5, 1.5, 2.5, -0.5]), grid).tolist() == [0, 2, 2, 0]


@given(finite, finite, st.integers(2, 8), st.lists(finite, min_size=1, max_size=20))
def test_grid_properties(a: float, b: float, bits: int, values: list[float]) -> None:
    grid = asymmetric_grid(min(a, b), max(a, b), bits)
    numbers = np.array(values)
    once = fake_quantize(numbers, grid)
    assert fake_quantize(once, grid) == pytest.approx(once, rel=1e-5)
    assert fake_quantize(np.zeros(1), grid)[0] == 0.0
    inside = (numbers >= grid.low) & (numbers <= grid.high)
    assert np.all(np.abs(once - numbers)[inside] <= grid.scale * 0.5001 + 1e-3 * np.abs(numbers[inside]))
    assert np.all(np.diff(fake_quantize(np.sort(numbers), grid)) >= 0)


@pytest.mark.parametrize(("scale", "zero_point"), [(0.0, 0), (float("nan"), 0), (1.0, 300)])
def test_an_impossible_grid_is_refused(scale: float, zero_point: int) -> None:
    with pytest.raises(ValueError, match=r"scale|zero point"):
        Grid(scale=scale, zero_point=zero_point, qmin=0, qmax=255)
