"""Choosing scales by what the error of an output does to the embedding.

Yuan et al. 2022 (PTQ4ViT, arXiv 2111.12293, section 3.2): the scales of a layer minimize the squared error of its
output, each element weighted with the square of its gradient. Their gradient is of the divergence from the model's own
prediction, which is zero at that prediction. Ours is of v . z, z the normalized embedding and v random signs: over v,
the mean of the squared gradient is the diagonal of J^T J (Hutchinson 1990), the curvature of the embedding's cosine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vlmquant.progress import Track, silent
from vlmquant.quantize.affine import Floats
from vlmquant.quantize.calibrate import check_inputs, rows_of, trace
from vlmquant.quantize.damage import up_to
from vlmquant.quantize.methods.step import Calibration, Draft, Step
from vlmquant.quantize.methods.twin import SHIFTS
from vlmquant.quantize.modules import MatMul
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.recipes.schemes import WeightScheme
from vlmquant.quantize.rounding import FakeQuantize, TwinFakeQuantize, softmax_twin_grid
from vlmquant.quantize.sites import matmuls, sites, weight_matrix, weight_scheme
from vlmquant.quantize.weights import round_nearest, weight_scales

# The paper finds 15 candidates enough and a second round to change less than 0.05 points.
WEIGHT_FACTORS = np.linspace(0.4, 1.1, 15)
STEP_FACTORS = np.geomspace(0.4, 1.8, 15)
INPUTS = 32
ROWS = 512
"""How many rows (tokens) of a site are kept, spread over all inputs."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What one site saw and how much its output matters.

    `operands`: (rows, in) of a Linear or an unfolded convolution, or both factors (n, heads, ., .) of a MatMul.
    `importance`: the squared gradient, in the shape of the output.
    """

    operands: tuple[Tensor, ...]
    importance: Tensor


def observe_importance(
    tower: nn.Module,
    sites: Sequence[str],
    inputs: Sequence[Tensor],
    description: str,
    track: Track = silent,
    seed: int = 0,
) -> dict[str, Seen]:
    """Run up to `INPUTS` inputs forward and back and return what every named Linear, Conv2d or MatMul saw."""
    check_inputs(inputs)
    generator = torch.Generator().manual_seed(seed)
    batches = up_to(inputs, INPUTS)
    found: dict[str, list[Seen]] = {site: [] for site in sites}
    with torch.inference_mode(False), torch.enable_grad():
        tower.requires_grad_(True)
        for batch in track(batches, description, len(batches)):
            seen, outputs, embedding = trace(tower, sites, batch)
            signs = torch.randint(0, 2, embedding.shape, generator=generator) * 2.0 - 1
            probe = (functional.normalize(embedding, dim=-1) * signs).sum()
            gradients = torch.autograd.grad(probe, [outputs[site] for site in sites])
            for site, gradient in zip(sites, gradients, strict=True):
                module = tower.get_submodule(site)
                found[site].append(_kept(module, seen[site], gradient.square(), ROWS // len(batches)))
        tower.requires_grad_(False)
    return {site: _joined(parts) for site, parts in found.items()}


def search_scales(
    tower: nn.Module,
    schemes: Mapping[str, WeightScheme],
    sites: Sequence[str],
    roundings: Mapping[str, nn.Module],
    inputs: Sequence[Tensor],
    description: str,
    track: Track = silent,
) -> tuple[dict[str, nn.Module], dict[str, NDArray[np.float32]]]:
    """Return better roundings of inputs than `roundings`, by name, and the weight scales (rows, groups) by site.

    `sites` are Linears, Conv2ds and MatMuls; a MatMul's operands are called `site.left` and `site.right`, or
    `site.left.heads.0` and so on. `schemes` holds that of each Linear and Conv2d. Weight scales are chosen first,
    activation steps with them. A convolution of several groups keeps what it has: its output is not one matrix product.
    """
    sites = [site for site in sites if getattr(tower.get_submodule(site), "groups", 1) == 1]
    saw = observe_importance(tower, sites, inputs, f"{description}: gradients", track)
    better, scales = dict(roundings), dict[str, NDArray[np.float32]]()
    for site in track(list(sites), f"{description}: scales", len(sites)):
        module = tower.get_submodule(site)
        if isinstance(module, MatMul):
            pairs = [(f"{site}.{left}", f"{site}.{right}") for left, right in module.roundings]
            for pair, part in zip(pairs, _by_head(saw.pop(site), len(pairs)), strict=True):
                better.update(zip(pair, _search_matmul(part, better[pair[0]], better[pair[1]]), strict=True))
        else:
            matrix = weight_matrix(module)
            better[site], scales[site] = _search_linear(saw.pop(site), matrix, schemes[site], better[site])
    return better, scales


def _search_linear(
    seen: Seen, weight: Floats, scheme: WeightScheme, rounding: nn.Module
) -> tuple[nn.Module, NDArray[np.float32]]:
    (values,) = seen.operands
    target, rounded = values @ torch.from_numpy(weight).T, rounding(values)
    start = weight_scales(weight, replace(scheme, scales="max"))
    scales, least = start, np.full(len(weight), np.inf)
    for factor in WEIGHT_FACTORS:
        candidate = (start * factor).astype(np.float32)
        errors = _weighted(seen, rounded @ _weight(weight, candidate, scheme).T - target).sum(dim=0).numpy()
        if scheme.granularity == "tensor":
            errors = np.full_like(errors, errors.sum())
        scales = np.where((errors < least)[:, None], candidate, scales)
        least = np.minimum(least, errors)
    right = _weight(weight, scales, scheme).T
    choices = [(float(_weighted(seen, choice(values) @ right - target).sum()), choice) for choice in _like(rounding)]
    return min(choices, key=lambda pair: pair[0])[1], scales


def _search_matmul(seen: Seen, left: nn.Module, right: nn.Module) -> tuple[nn.Module, nn.Module]:
    first, second = seen.operands
    target, rounded = first @ second, right(second)
    lefts = [(float(_weighted(seen, choice(first) @ rounded - target).sum()), choice) for choice in _like(left)]
    left = min(lefts, key=lambda pair: pair[0])[1]
    rounded = left(first)
    rights = [(float(_weighted(seen, rounded @ choice(second) - target).sum()), choice) for choice in _like(right)]
    return left, min(rights, key=lambda pair: pair[0])[1]


def _by_head(seen: Seen, parts: int) -> list[Seen]:
    """Split what a MatMul saw into its heads; one part is all of them."""
    if parts == 1:
        return [seen]
    first, second = seen.operands
    heads = zip(*(torch.chunk(values, parts, dim=1) for values in (first, second, seen.importance)), strict=True)
    return [Seen((left, right), importance) for left, right, importance in heads]


def _like(rounding: nn.Module) -> list[nn.Module]:
    """Return the rounding itself and its like with other steps."""
    if isinstance(rounding, FakeQuantize):
        grid = rounding.grid
        return [rounding, *(FakeQuantize(replace(grid, scale=grid.scale * float(f))) for f in STEP_FACTORS)]
    if isinstance(rounding, TwinFakeQuantize):
        twin = rounding.grid
        if twin.border > 0:
            bits = (twin.large_qmax + 1).bit_length()
            return [TwinFakeQuantize(softmax_twin_grid(shift, bits)) for shift in SHIFTS]
        steps = [twin.large_step * float(f) for f in STEP_FACTORS]
        return [rounding, *(TwinFakeQuantize(replace(twin, large_step=step)) for step in steps)]
    return [rounding]


def _weight(weight: Floats, scales: NDArray[np.float32], scheme: WeightScheme) -> Tensor:
    return torch.from_numpy(round_nearest(weight, scales, scheme).dequantized())


def _weighted(seen: Seen, error: Tensor) -> Tensor:
    return seen.importance * error.square()


def _kept(module: nn.Module, inputs: tuple[Tensor, ...], importance: Tensor, rows: int) -> Seen:
    operands = [values.detach() for values in inputs]
    if isinstance(module, MatMul):
        return Seen(tuple(operand[:2] for operand in operands), importance[:2])
    (values,) = operands
    if isinstance(module, nn.Conv2d):
        importance = importance.flatten(2).transpose(1, 2)
    values, importance = rows_of(module, values), importance.flatten(0, -2)
    step = max(1, len(values) // max(rows, 1))
    return Seen((values[::step],), importance[::step])


def _joined(parts: Sequence[Seen]) -> Seen:
    operands = zip(*(part.operands for part in parts), strict=True)
    return Seen(tuple(_stacked(operand) for operand in operands), _stacked([part.importance for part in parts]))


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """Join along the first axis; factors of a MatMul over texts of several lengths are filled up with zeros.

    A zero stays zero on every grid and its importance is zero, so the filling counts for nothing.
    """
    if parts[0].ndim < 4:
        return torch.cat(list(parts))
    height, width = (max(part.shape[axis] for part in parts) for axis in (-2, -1))
    return torch.cat([functional.pad(p, (0, width - p.shape[-1], 0, height - p.shape[-2])) for p in parts])


def _run(draft: Draft, recipe: Recipe, calibration: Calibration) -> Draft:
    tower = draft.tower
    schemes = {name: weight_scheme(tower, recipe, name) for name in sites(tower, recipe)}
    names = [*schemes, *matmuls(tower, recipe)]
    roundings, scales = search_scales(
        tower, schemes, names, draft.roundings, calibration.inputs, calibration.description, calibration.track
    )
    return replace(draft, roundings=roundings, scales={**draft.scales, **scales})


STEP = Step(applies=lambda recipe: recipe.search == "hessian", run=_run)
