"""Weights as integers: scales by channel, tensor or group, and rounding to nearest. Arrays in, arrays out.

Every weight is a matrix here, one row per output channel; a convolution's kernel is flattened to one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmquant.quantize.affine import SMALLEST_SCALE, Floats
from vlmquant.quantize.portable import LARGEST_PAIR, largest_pairs, within_pairs
from vlmquant.quantize.recipes.schemes import WeightScheme

# At 2 bits the best clip of a bell-shaped row lies at about half of its largest magnitude, at 8 bits near all of it.
SHRINKS = np.linspace(0.35, 1.0, 27)


@dataclass(frozen=True, eq=False, kw_only=True)
class IntegerWeight:
    """Integers (rows, columns) int8, int16 when `bits` is 16, and float32 scales (rows, groups).

    Column c of a row is read back with the scale of group `c // group_size`.
    """

    integers: NDArray[np.int8] | NDArray[np.int16]
    scales: NDArray[np.float32]
    group_size: int
    bits: int

    def dequantized(self) -> NDArray[np.float32]:
        """Return the real numbers that the integers stand for, (rows, columns) float32."""
        columns = per_column(self.scales, self.group_size, self.integers.shape[1])
        return np.asarray(self.integers * columns, dtype=np.float32)


def group_size_of(scheme: WeightScheme, columns: int) -> int:
    """Return how many columns share a scale; all of them unless the scheme has smaller groups."""
    return min(scheme.group_size, columns) if scheme.granularity == "group" else columns


def integer_range(scheme: WeightScheme) -> tuple[int, int]:
    """Return the least and the greatest integer: symmetric, but one more below zero per tensor, as in torch."""
    qmax: int = 2 ** (scheme.bits - 1) - 1
    return (-qmax - 1 if scheme.granularity == "tensor" else -qmax), qmax


def weight_scales(weight: Floats, scheme: WeightScheme) -> NDArray[np.float32]:
    """Return the scales (rows, groups) of `weight` (rows, columns) by `scheme`."""
    scales = _largest_scales(weight, scheme)
    return scales if scheme.scales == "max" else _least_error_scales(weight, scales, scheme)


def round_nearest(weight: Floats, scales: NDArray[np.float32], scheme: WeightScheme) -> IntegerWeight:
    """Round each number of `weight` (rows, columns) to the nearest integer of its group's scale, half to even."""
    size = group_size_of(scheme, weight.shape[1])
    steps = per_column(scales, size, weight.shape[1])
    qmin, qmax = integer_range(scheme)
    rounded = np.clip(np.rint(weight / steps), qmin, qmax)
    return integer_weight(rounded, scales, scheme)


def integer_weight(rounded: Floats, scales: NDArray[np.float32], scheme: WeightScheme) -> IntegerWeight:
    """Return whole numbers `rounded` (rows, columns), within the range of `scheme`, as the integers they are stored as.

    Portable 8-bit ones are fitted to `portable.LARGEST_PAIR`.
    """
    integers = rounded.astype(np.int16) if scheme.bits > 8 else rounded.astype(np.int8)
    if paired(scheme):
        integers = within_pairs(integers.astype(np.int8))
    size = group_size_of(scheme, rounded.shape[1])
    return IntegerWeight(integers=integers, scales=scales, group_size=size, bits=scheme.bits)


def paired(scheme: WeightScheme) -> bool:
    """Whether pairs of neighbours are held to `portable.LARGEST_PAIR`; fewer bits cannot exceed it."""
    return scheme.portable and scheme.bits == 8


def per_column(scales: NDArray[np.float32], group_size: int, columns: int) -> NDArray[np.float32]:
    """Spread scales (rows, groups) over the columns of their groups, (rows, columns)."""
    if scales.shape[1] == 1:
        return scales
    return np.repeat(scales, group_size, axis=1)[:, :columns]


def _largest_scales(weight: Floats, scheme: WeightScheme) -> NDArray[np.float32]:
    rows, columns = weight.shape
    if scheme.granularity == "tensor":
        # torch's symmetric observer divides by half the number of steps, 127.5 at 8 bits.
        step = np.abs(weight).max() / ((2**scheme.bits - 1) / 2)
        if paired(scheme):
            step = max(step, largest_pairs(weight).max() / LARGEST_PAIR)
        return np.full((rows, 1), max(step, SMALLEST_SCALE), dtype=np.float32)
    size = group_size_of(scheme, columns)
    groups = np.pad(weight, ((0, 0), (0, -columns % size))).reshape(rows, -1, size)
    steps = np.abs(groups).max(axis=2) / (2 ** (scheme.bits - 1) - 1)
    if paired(scheme):
        pairs = largest_pairs(groups.reshape(-1, size), columns).reshape(rows, -1)
        steps = np.maximum(steps, pairs / LARGEST_PAIR)
    return np.asarray(np.maximum(steps, SMALLEST_SCALE), dtype=np.float32)


def _least_error_scales(weight: Floats, largest: NDArray[np.float32], scheme: WeightScheme) -> NDArray[np.float32]:
    best = largest
    least = _group_errors(weight, largest, scheme)
    for shrink in SHRINKS[:-1]:
        scales = (largest * shrink).astype(np.float32)
        errors = _group_errors(weight, scales, scheme)
        best, least = np.where(errors < least, scales, best), np.minimum(errors, least)
    return best


def _group_errors(weight: Floats, scales: NDArray[np.float32], scheme: WeightScheme) -> NDArray[np.float64]:
    """Return the squared rounding error that each scale (rows, groups) answers for, in the same shape or (1, 1)."""
    rounded = round_nearest(weight, scales, scheme)
    squared = np.pad(
        (rounded.dequantized() - weight).astype(np.float64) ** 2, ((0, 0), (0, -weight.shape[1] % rounded.group_size))
    )
    errors = squared.reshape(weight.shape[0], -1, rounded.group_size).sum(axis=2)
    return np.asarray(errors.sum(keepdims=True) if scheme.granularity == "tensor" else errors)
