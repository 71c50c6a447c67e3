"""A CLIP rewritten into an equal float model whose activations are as hard to quantize as a large CLIP's.

Real CLIPs have a few channels of LayerNorm outputs and values that are tens to hundreds of times the rest, and in the
MLPs of their middle blocks a few hidden units that are huge, some for every token and some for one or two (Xiao et al.
2022, arXiv 2211.10438; Sun et al. 2024, arXiv 2402.17762; RegCache, arXiv 2510.04547). A small healthy checkpoint has
none of it, so every 8-bit method passes on it. These rewrites put it there and change no output:

- `norm-channels`: some gains and biases of a LayerNorm times g, the same input columns of the Linears that read it
  divided by g. Exact because both are linear, and bit for bit since every g is a power of two.
- `value-channels`: some output rows of the value projection times g, the same input columns of the output projection
  divided by g. Exact because attention is linear in the values, bit for bit again.
- `hidden-channels`: four new hidden units per direction t of the MLP's input: GELU(gt), GELU(-gt), GELU(t), GELU(-t),
  read with weights v/g, -v/g, -v, v. Exact because GELU(x) - GELU(-x) = x for GELU and QuickGELU alike (x F(x) with
  F(x) + F(-x) = 1), so the four add up to v t - v t. The first two are outliers for every token, and unlike a pair of
  twins they cannot be clipped: cutting gt loses v t, which the small units then subtract all the same.
- `massive-tokens`: two new equal hidden units, read with weights v and -v, that are off except where a direction of
  the MLP's input passes a threshold which the typical picture or text has one token above. There they are huge.

Only the first two can be folded back into the weights by smoothing; behind a GELU no scale passes exactly.
"""

import copy
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from vlmquant.checkpoints.clip import ClipModel
from vlmquant.errors import ModelError, unknown

PICTURES = 16
TEXTS = 16
_PATCH = 8
"""Side, in pixels, of the coarse half of the seeded pictures that thresholds are measured on."""


@dataclass(frozen=True, kw_only=True)
class Severity:
    """How hard the outliers are.

    `share` of the channels of each LayerNorm and value projection (at least one) are multiplied by powers of two
    drawn from [2^least_log2, 2^most_log2]. Each middle MLP gets `directions` new directions of either kind: hidden
    channels of `hidden_gain` standard deviations, massive tokens of `massive_gain` per standard deviation above the
    threshold. `reader_norm` is the length of the columns of fc2 that read them and cancel, in multiples of the longest
    one there was.
    """

    share: float = 0.02
    least_log2: int = 4
    most_log2: int = 8
    directions: int = 2
    hidden_gain: float = 64.0
    massive_gain: float = 512.0
    reader_norm: float = 32.0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or not 0 <= self.least_log2 <= self.most_log2 or self.directions < 1:
            raise ModelError(f"a share must be in (0, 1), the gains in order, directions at least 1; got {self}")


def stressed(
    model: ClipModel, *, seed: int = 0, kinds: Iterable[str] | None = None, severity: Severity | None = None
) -> ClipModel:
    """Return a copy of `model` with outliers of all or some `kinds` (see `KINDS`) in both towers and equal embeddings.

    Equal up to float32 rounding. The towers must be made of transformers' CLIP blocks and be on the CPU. Raises
    ModelError for an unknown kind and for a tower without such blocks.
    """
    chosen = tuple(KINDS) if kinds is None else tuple(kinds)
    for kind in chosen:
        if kind not in KINDS:
            raise unknown(ModelError, "kind of outlier", kind, KINDS)
    generator = torch.Generator().manual_seed(seed)
    size = (model.image_spec.crop_height, model.image_spec.crop_width)
    image_tower = _stress(model.image_tower, _pictures(size, generator), chosen, severity or Severity(), generator)
    text_tower = _stress(model.text_tower, _texts(model, generator), chosen, severity or Severity(), generator)
    return replace(
        model,
        name=f"{model.name} stressed",
        image_tower=image_tower,
        text_tower=text_tower,
        weights_sha256=_digest(image_tower, text_tower),
    )


@dataclass(frozen=True)
class _Site:
    """One transformer block to rewrite, and what to measure it with."""

    tower: nn.Module
    block: Any  # transformers' CLIPEncoderLayer
    inputs: Tensor
    severity: Severity
    generator: torch.Generator

    def directions(self) -> Tensor:
        """Return (directions, width) rows that map the MLP's input to numbers of standard deviation 1."""
        states = _mlp_inputs(self)
        rows = torch.randn(self.severity.directions, states.shape[-1], generator=self.generator)
        return rows / (states @ rows.T).flatten(0, -2).std(dim=0)[:, None]

    def readers(self) -> Tensor:
        """Return (width, directions) new fc2 columns."""
        weight = self.block.mlp.fc2.weight
        length = float(weight.norm(dim=0).max()) * self.severity.reader_norm
        columns = torch.randn(len(weight), self.severity.directions, generator=self.generator)
        columns *= length / columns.norm(dim=0)
        return columns

    def gains(self, channels: int) -> Tensor:
        """Return (channels,) factors: 1 for most, a power of two for a few."""
        count = max(1, round(self.severity.share * channels))
        least, most = self.severity.least_log2, self.severity.most_log2
        gains = torch.ones(channels)
        where = torch.randperm(channels, generator=self.generator)[:count]
        gains[where] = 2.0 ** torch.randint(least, most + 1, (count,), generator=self.generator)
        return gains


def _norm_channels(site: _Site) -> None:
    attention, block = site.block.self_attn, site.block
    for norm, readers in (
        (block.layer_norm1, (attention.q_proj, attention.k_proj, attention.v_proj)),
        (block.layer_norm2, (block.mlp.fc1,)),
    ):
        gains = site.gains(len(norm.weight))
        norm.weight.mul_(gains)
        norm.bias.mul_(gains)
        for reader in readers:
            reader.weight.div_(gains)


def _value_channels(site: _Site) -> None:
    value, output = site.block.self_attn.v_proj, site.block.self_attn.out_proj
    gains = site.gains(len(value.weight))
    value.weight.mul_(gains[:, None])
    value.bias.mul_(gains)
    output.weight.div_(gains)


def _hidden_channels(site: _Site) -> None:
    rows, columns, gain = site.directions(), site.readers(), site.severity.hidden_gain
    _widen(
        site.block.mlp,
        torch.cat([gain * rows, -gain * rows, rows, -rows]),
        torch.zeros(4 * len(rows)),
        torch.cat([columns / gain, -columns / gain, -columns, columns], dim=1),
    )


def _massive_tokens(site: _Site) -> None:
    rows, columns, gain = site.directions(), site.readers(), site.severity.massive_gain
    highest = (_mlp_inputs(site) @ rows.T).topk(2, dim=1).values  # (n, 2, directions): the two highest tokens
    thresholds = highest.mean(dim=1).median(dim=0).values
    _widen(
        site.block.mlp,
        gain * torch.cat([rows, rows]),
        -gain * torch.cat([thresholds, thresholds]),
        torch.cat([columns, -columns], dim=1),
    )


KINDS: dict[str, Callable[[_Site], None]] = {
    "hidden-channels": _hidden_channels,
    "massive-tokens": _massive_tokens,
    "norm-channels": _norm_channels,
    "value-channels": _value_channels,
}
MIDDLE_ONLY = ("hidden-channels", "massive-tokens")
"""Kinds that real models show in the MLPs of their middle blocks: here the second third."""


def _stress(
    tower: nn.Module, inputs: Tensor, kinds: tuple[str, ...], severity: Severity, generator: torch.Generator
) -> nn.Module:
    result = copy.deepcopy(tower).eval()
    blocks = [module for module in result.modules() if hasattr(module, "layer_norm2") and hasattr(module, "mlp")]
    if not blocks:
        raise ModelError(f"{type(tower).__name__} has no transformer blocks of transformers' CLIP to put outliers in")
    middle = range(len(blocks) // 3, max(len(blocks) // 3 + 1, 2 * len(blocks) // 3))
    with torch.no_grad():
        for kind, rewrite in KINDS.items():
            for index, block in enumerate(blocks):
                if kind in kinds and (kind not in MIDDLE_ONLY or index in middle):
                    rewrite(_Site(result, block, inputs, severity, generator))
    return result


def _widen(mlp: Any, rows: Tensor, biases: Tensor, columns: Tensor) -> None:
    """Add hidden units: `rows` (units, in) and `biases` (units,) to fc1, `columns` (out, units) to fc2."""
    first = nn.Linear(mlp.fc1.in_features, mlp.fc1.out_features + len(rows))
    second = nn.Linear(mlp.fc2.in_features + len(rows), mlp.fc2.out_features)
    first.weight.copy_(torch.cat([mlp.fc1.weight, rows]))
    first.bias.copy_(torch.cat([mlp.fc1.bias, biases]))
    second.weight.copy_(torch.cat([mlp.fc2.weight, columns], dim=1))
    second.bias.copy_(mlp.fc2.bias)
    mlp.fc1, mlp.fc2 = first.requires_grad_(False).eval(), second.requires_grad_(False).eval()


def _mlp_inputs(site: _Site) -> Tensor:
    """Return what the block's MLP sees: (n, tokens, width)."""
    seen: list[Tensor] = []
    handle = site.block.mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        site.tower(site.inputs)
    finally:
        handle.remove()
    return seen[0]


def _pictures(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Return (PICTURES, 3, *size) normalized pixels: large blots of colour under fine noise."""
    coarse = torch.randn(PICTURES, 3, max(2, size[0] // _PATCH), max(2, size[1] // _PATCH), generator=generator)
    blots = nn.functional.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    return blots + 0.3 * torch.randn(PICTURES, 3, *size, generator=generator)


def _texts(model: ClipModel, generator: torch.Generator) -> Tensor:
    """Return (TEXTS, length) token ids: start, random tokens, end."""
    frame = torch.from_numpy(model.tokenizer.encode_batch([""]))[0]
    length = min(16, model.tokenizer.context_length) - len(frame)
    words = torch.randint(0, int(frame.min()), (TEXTS, length), generator=generator)
    return torch.cat([frame[:1].expand(TEXTS, 1), words, frame[1:].expand(TEXTS, -1)], dim=1)


def _digest(*towers: nn.Module) -> str:
    sha = hashlib.sha256()
    for tower in towers:
        for name, tensor in sorted(tower.state_dict().items()):
            sha.update(name.encode())
            sha.update(tensor.numpy().tobytes())
    return sha.hexdigest()
