"""Uniform affine quantization: arrays in, arrays out.

A real number x is stored as the integer q = clip(round(x / scale) + zero_point, qmin, qmax) and read back as
(q - zero_point) * scale (Jacob et al. 2018, section 2.1). Rounding is half to even, as in ONNX QuantizeLinear.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32] | NDArray[np.float64]
Integers = NDArray[np.int32]

# Below this a range is one point; any scale represents it and this one avoids a division by zero.
SMALLEST_SCALE = 1e-12


@dataclass(frozen=True)
class Grid:
    """A per-tensor grid of representable numbers: `(q - zero_point) * scale` for q in [qmin, qmax]."""

    scale: float
    zero_point: int
    qmin: int
    qmax: int

    def __post_init__(self) -> None:
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"scale must be finite and positive, got {self.scale}")
        if not self.qmin <= self.zero_point <= self.qmax:
            raise ValueError(f"zero point {self.zero_point} is outside [{self.qmin}, {self.qmax}]")

    @property
    def low(self) -> float:
        """The smallest representable number."""
        return (self.qmin - self.zero_point) * self.scale

    @property
    def high(self) -> float:
        """The largest representable number."""
        return (self.qmax - self.zero_point) * self.scale


def asymmetric_grid(low: float, high: float, bits: int) -> Grid:
    """Return the unsigned `bits`-bit grid that covers [low, high]; zero is always representable exactly.

    Zero must be exact because padding, masks and the quiet half of an activation sit on it.
    """
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    qmax = 2**bits - 1
    scale = max((high - low) / qmax, SMALLEST_SCALE)
    return Grid(scale=scale, zero_point=int(np.clip(round(-low / scale), 0, qmax)), qmin=0, qmax=qmax)


def quantize(values: Floats, grid: Grid) -> Integers:
    """Return the integers of `values` on `grid`, same shape, int32."""
    return np.asarray(np.clip(np.rint(values / grid.scale) + grid.zero_point, grid.qmin, grid.qmax), dtype=np.int32)


def dequantize(integers: Integers, grid: Grid) -> NDArray[np.float32]:
    """Return the real numbers of `integers` on `grid`, same shape, float32."""
    return ((integers - grid.zero_point) * np.float32(grid.scale)).astype(np.float32)


def fake_quantize(values: Floats, grid: Grid) -> NDArray[np.float32]:
    """Round `values` to the nearest numbers of `grid`, same shape, float32."""
    return dequantize(quantize(values, grid), grid)
