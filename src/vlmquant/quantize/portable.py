"""8-bit weights that every CPU multiplies correctly.

x86 CPUs without VNNI multiply unsigned by signed bytes with VPMADDUBSW, which adds the products of two neighbours along
the inner dimension in 16 bits and saturates there. An activation is at most 255, so a pair of weights cannot overflow
when those of one sign add up to 128 or less: 255 * 128 < 2^15. The engines pack matrices in this order, two by two from
the first, so a row of weights needs no more than a slightly larger scale; 7 bits would need twice the scale. Where the
inner dimension is not a multiple of 4, OpenVINO's kernels cut it so that other weights meet: there any two may.
The order in which a convolution's kernel is unrolled differs by engine and shape; 7-bit weights are safe in any.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST_PAIR = 128
"""What the weights of one sign in a pair of neighbours may add up to."""
LARGEST_ALONE = LARGEST_PAIR // 2
"""Weights up to this are safe, whichever of them meet."""
ORDERED_MULTIPLE = 4
"""Inner dimensions that this divides are packed in the order of the weights (scanned from 240 to 3,079)."""


def largest_pairs(weight: NDArray[Any], inner: int | None = None) -> NDArray[np.float64]:
    """Return, for each row of `weight` (rows, columns), the greatest sum of one sign of two weights that can meet.

    Those are columns 0 and 1, 2 and 3 and so on where 4 divides the inner dimension `inner`, which is the number of
    columns unless the rows are parts of longer ones; elsewhere any two. (rows,) float64, >= 0.
    """
    if (inner or weight.shape[1]) % ORDERED_MULTIPLE:
        return np.asarray(2.0 * np.abs(weight.astype(np.float64)).max(axis=1))
    pairs = _pairs(np.asarray(weight, dtype=np.float64))
    positive, negative = np.maximum(pairs, 0).sum(axis=2), np.maximum(-pairs, 0).sum(axis=2)
    return np.asarray(np.maximum(positive, negative).max(axis=1))


def within_pairs(integers: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return `integers` (rows, columns) with the larger of each pair that could overflow made smaller until it cannot.

    Where the scale is that of `weights.weight_scales`, rounding to nearest leaves no such pair; second-order rounding
    leaves a few.
    """
    if integers.shape[1] % ORDERED_MULTIPLE:
        return np.clip(integers, -LARGEST_ALONE, LARGEST_ALONE)
    pairs = _pairs(integers.astype(np.int16))
    left, right = pairs[..., 0], pairs[..., 1]
    excess = np.where(left * right > 0, np.maximum(np.abs(left) + np.abs(right) - LARGEST_PAIR, 0), 0)
    larger = np.abs(left) >= np.abs(right)
    left -= np.sign(left) * np.where(larger, excess, 0)
    right -= np.sign(right) * np.where(larger, 0, excess)
    return pairs.reshape(integers.shape).astype(np.int8)


def _pairs(matrix: NDArray[Any]) -> NDArray[Any]:
    return matrix.reshape(len(matrix), -1, 2)
