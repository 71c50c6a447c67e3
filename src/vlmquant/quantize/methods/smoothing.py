"""Smoothing: moving outlier channels of activations into the weights that read them.

A Linear sees x W; x / s and s W give the same product, and where x comes out of something linear the division folds
into that: a LayerNorm's gain and bias, or the value projection's rows (attention is linear in the values). With
s_j = max|x_j|^a / max|W_j|^(1-a), the strength a divides the difficulty between the two (Xiao et al. 2022,
SmoothQuant, arXiv 2211.10438, eq. 4). One fixed strength wrecks some CLIPs, so each place gets its own, or none, by
what it does to the final embedding.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vlmquant.progress import Track, silent
from vlmquant.quantize.attention import is_attention, is_fused_attention
from vlmquant.quantize.calibrate import check_inputs, histogram_of, watching
from vlmquant.quantize.methods.ranges import rounding_of
from vlmquant.quantize.methods.step import Calibration, Draft, Step
from vlmquant.quantize.modules import quantized_module
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.sites import weight_matrix, weight_scheme
from vlmquant.quantize.weights import round_nearest, weight_scales

STRENGTHS = (0.15, 0.3, 0.5, 0.7, 0.85)
# How many batches of the calibration set strengths are compared on; ranges are still measured on all of it.
JUDGING_BATCHES = 2
# A strength must take at least this share off the embedding's error, or the place stays as it is.
LEAST_GAIN = 0.02
# A place whose readers do less damage than this as they are (1 - mean cosine) is left alone.
NEGLIGIBLE_ERROR = 1e-5

MakeQuantized = Callable[[str, nn.Linear, Tensor], nn.Module]
"""From a site's name, the Linear with its new weights and the inputs it will see to the quantized module."""


@dataclass(frozen=True)
class Place:
    """Linears that read one activation (`readers`), and the module whose output is divided (`source`)."""

    source: str
    readers: tuple[str, ...]


def places(tower: nn.Module) -> list[Place]:
    """Return where `tower` can be smoothed exactly: both LayerNorms and the values of every transformer block."""
    found: list[Place] = []
    for name, block in tower.named_modules():
        if not (hasattr(block, "self_attn") and hasattr(block, "layer_norm1")):
            continue
        if is_fused_attention(block.self_attn):
            found.append(Place(f"{name}.layer_norm1", (f"{name}.self_attn.qkv",)))
            found.append(Place(f"{name}.layer_norm2", (f"{name}.mlp.fc1",)))
        if not is_attention(block.self_attn):
            continue
        queries = tuple(f"{name}.self_attn.{projection}" for projection in ("q_proj", "k_proj", "v_proj"))
        found.append(Place(f"{name}.layer_norm1", queries))
        found.append(Place(f"{name}.self_attn.v_proj", (f"{name}.self_attn.out_proj",)))
        found.append(Place(f"{name}.layer_norm2", (f"{name}.mlp.fc1",)))
    return found


def smoothing_scales(inputs: Tensor, weights: Sequence[Tensor], strength: float) -> Tensor:
    """Return s (in,), float32, mean 1 in the logarithm, for inputs (..., in) and weights (out, in) that read them."""
    seen = inputs.abs().flatten(0, -2).amax(dim=0).clamp(min=1e-5)
    weight = torch.stack([w.abs().amax(dim=0) for w in weights]).amax(dim=0).clamp(min=1e-5)
    scales = seen**strength / weight ** (1 - strength)
    return scales / scales.log().mean().exp()


def fold(tower: nn.Module, place: Place, scales: Tensor) -> None:
    """Divide the activation at `place` by `scales` and multiply its readers' columns, in place; exact."""
    source: Any = tower.get_submodule(place.source)
    if isinstance(source, nn.LayerNorm):
        source.weight = _frozen(source.weight / scales)
    else:
        source.weight = _frozen(source.weight / scales[:, None])
    if source.bias is not None:
        source.bias = _frozen(source.bias / scales)
    for reader in place.readers:
        linear: Any = tower.get_submodule(reader)
        linear.weight = _frozen(linear.weight * scales)


def smooth(
    tower: nn.Module,
    make_quantized: MakeQuantized,
    inputs: Sequence[Tensor],
    description: str,
    track: Track = silent,
) -> dict[str, float | None]:
    """Smooth `tower` in place, each place at the strength that hurts the embedding least; return them by source.

    For every place and strength only that place's readers are quantized, so that the choice depends on no other. A
    strength counts by the mean cosine of the tower's output to the float tower's over the first calibration batches.
    """
    check_inputs(inputs)
    step = max(1, len(inputs) // JUDGING_BATCHES)
    judged = list(inputs)[::step][:JUDGING_BATCHES]
    chosen: dict[str, float | None] = {}
    with torch.inference_mode(False), torch.no_grad():
        expected = [tower(batch) for batch in judged]
        for place in track(places(tower), description, len(places(tower))):
            seen = _inputs_of(tower, place.readers[0], judged)
            weights = [tower.get_submodule(reader).get_parameter("weight") for reader in place.readers]
            candidates: dict[float | None, Tensor | None] = {None: None}
            off = _embedding_error(tower, place, None, seen, make_quantized, judged, expected)
            if off > NEGLIGIBLE_ERROR:
                candidates |= {strength: smoothing_scales(seen, weights, strength) for strength in STRENGTHS}
            errors = {
                strength: off
                if scales is None
                else _embedding_error(tower, place, scales, seen, make_quantized, judged, expected)
                for strength, scales in candidates.items()
            }
            best = min(errors, key=lambda strength: errors[strength])
            if errors[best] > (1 - LEAST_GAIN) * errors[None]:
                best = None
            scales = candidates[best]
            if scales is not None:
                fold(tower, place, scales)
            chosen[place.source] = best
    return chosen


class _Divided(nn.Module):
    """A quantized Linear whose input is divided first: what smoothing amounts to, without touching the source."""

    def __init__(self, scales: Tensor, linear: nn.Module) -> None:
        super().__init__()
        self.scales, self.linear = scales, linear

    def forward(self, values: Tensor) -> Tensor:
        result: Tensor = self.linear(values / self.scales)
        return result


def _embedding_error(
    tower: nn.Module,
    place: Place,
    scales: Tensor | None,
    seen: Tensor,
    make_quantized: MakeQuantized,
    judged: Sequence[Tensor],
    expected: Sequence[Tensor],
) -> float:
    """Return 1 - mean cosine of the output with only the readers of `place` quantized."""
    factors = torch.ones(seen.shape[-1]) if scales is None else scales
    originals = {reader: tower.get_submodule(reader) for reader in place.readers}
    for reader, original in originals.items():
        assert isinstance(original, nn.Linear)
        scaled = nn.Linear(original.in_features, original.out_features, bias=original.bias is not None)
        scaled.weight, scaled.bias = _frozen(original.weight * factors), original.bias
        tower.set_submodule(reader, _Divided(factors, make_quantized(reader, scaled, seen / factors)))
    errors = [
        1 - nn.functional.cosine_similarity(tower(batch).double(), wanted.double())
        for batch, wanted in zip(judged, expected, strict=True)
    ]
    for reader, original in originals.items():
        tower.set_submodule(reader, original)
    return float(torch.cat(errors).mean())


def _inputs_of(tower: nn.Module, site: str, batches: Sequence[Tensor]) -> Tensor:
    rows: list[Tensor] = []
    with watching(tower, [site], lambda _, values: rows.append(values.flatten(0, -2))):
        for batch in batches:
            tower(batch)
    return torch.cat(rows)


def _frozen(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=False)


def _quantized(tower: nn.Module, recipe: Recipe, name: str, linear: nn.Linear, seen: Tensor) -> nn.Module:
    """Return `linear` quantized for the inputs `seen` alone, or as it is where the recipe keeps it float."""
    if recipe.keeps_float(name):
        return linear
    matrix, scheme = weight_matrix(linear), weight_scheme(tower, recipe, name)
    weight = round_nearest(matrix, weight_scales(matrix, scheme), scheme)
    histogram = histogram_of(seen) if recipe.static else None
    return quantized_module(linear, weight, rounding_of(tower, recipe, name, histogram))


def _run(draft: Draft, recipe: Recipe, calibration: Calibration) -> Draft:
    tower = copy.deepcopy(draft.tower)
    description = f"{calibration.description}: smoothing"
    smooth(tower, partial(_quantized, tower, recipe), calibration.inputs, description, calibration.track)
    return replace(draft, tower=tower)


STEP = Step(applies=lambda recipe: recipe.smoothing, run=_run)
