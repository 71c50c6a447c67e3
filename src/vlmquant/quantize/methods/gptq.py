"""Second-order weight rounding: each column's rounding error is spread over the columns still to come.

Frantar et al. 2022 (GPTQ, arXiv 2210.17323), algorithm 1, with columns in order of falling input power.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.linalg import cholesky, solve_triangular

from vlmquant.quantize.affine import Floats
from vlmquant.quantize.calibrate import second_moments
from vlmquant.quantize.methods.step import Calibration, Draft, Step
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.recipes.schemes import WeightScheme
from vlmquant.quantize.sites import weight_matrix, weight_scheme
from vlmquant.quantize.weights import IntegerWeight, group_size_of, integer_range, integer_weight, per_column

# Of the mean diagonal, added to it: keeps the Cholesky factor alive where inputs are linearly dependent.
DAMPING = 0.01
BLOCK = 128
# The second moments of all layers of a ViT-L/14 take gigabytes; no pass gathers more bytes than this.
MOMENT_BYTES = 1 << 30


def round_gptq(
    weight: Floats, scales: NDArray[np.float32], second_moment: NDArray[np.float64], scheme: WeightScheme
) -> IntegerWeight:
    """Round `weight` (rows, columns) so that its products with the inputs change little.

    `scales` (rows, groups) stay as given; `second_moment` (columns, columns) is the mean of x x^T over the inputs x.
    A column that never saw an input is rounded to nearest.
    """
    columns = weight.shape[1]
    size = group_size_of(scheme, columns)
    order = np.argsort(-np.diag(second_moment), kind="stable")
    factor = _inverse_factor(second_moment[np.ix_(order, order)])
    rest = weight[:, order].astype(np.float64)
    steps = np.broadcast_to(per_column(scales, size, columns), weight.shape)[:, order].astype(np.float64)
    qmin, qmax = integer_range(scheme)
    integers = np.zeros(weight.shape)
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        errors = np.zeros((len(weight), stop - start))
        for column in range(start, stop):
            rounded = np.clip(np.rint(rest[:, column] / steps[:, column]), qmin, qmax)
            integers[:, order[column]] = rounded
            error = (rest[:, column] - rounded * steps[:, column]) / factor[column, column]
            rest[:, column:stop] -= np.outer(error, factor[column, column:stop])
            errors[:, column - start] = error
        rest[:, stop:] -= errors @ factor[start:stop, stop:]
    return integer_weight(integers, scales, scheme)


def _inverse_factor(second_moment: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the upper Cholesky factor of the inverse of the damped matrix."""
    damped = second_moment + np.eye(len(second_moment)) * max(DAMPING * np.diag(second_moment).mean(), 1e-12)
    lower = cholesky(torch.from_numpy(damped))
    half = solve_triangular(lower, torch.eye(len(lower), dtype=lower.dtype), upper=False)
    return np.asarray(cholesky(half.mT @ half).mT, dtype=np.float64)


def _run(draft: Draft, recipe: Recipe, calibration: Calibration) -> Draft:
    tower = draft.tower
    schemes = {name: weight_scheme(tower, recipe, name) for name in draft.weights}
    chosen = [
        name
        for name, scheme in schemes.items()
        if scheme.rounding != "nearest" and getattr(tower.get_submodule(name), "groups", 1) == 1
    ]
    matrices = {name: weight_matrix(tower.get_submodule(name)) for name in chosen}
    weights = dict(draft.weights)
    description = f"{calibration.description}: second moments"
    for names in _within_memory(matrices):
        seen = {name: draft.roundings.get(name, nn.Identity()) for name in names}
        moments = second_moments(tower, seen, calibration.inputs, description, calibration.track)
        for name in names:
            weights[name] = round_gptq(matrices[name], draft.scales[name], moments.pop(name), schemes[name])
    return replace(draft, weights=weights)


def _within_memory(matrices: Mapping[str, Floats]) -> Iterator[Sequence[str]]:
    """Split the names so that the (in, in) float64 moments of one part stay within `MOMENT_BYTES`, or are one's."""
    part: list[str] = []
    room = MOMENT_BYTES
    for name, matrix in matrices.items():
        size = 8 * matrix.shape[1] ** 2
        if part and size > room:
            yield part
            part, room = [], MOMENT_BYTES
        part.append(name)
        room -= size
    if part:
        yield part


STEP = Step(
    applies=lambda recipe: (
        recipe.integer_weights and {recipe.weights.rounding, recipe.weights.kernel_rounding} != {"nearest"}
    ),
    run=_run,
)
