"""What of a tower can be left out as a whole, and what work that saves: heads of an attention, channels of an MLP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vlmquant.quantize.attention import is_attention
from vlmquant.quantize.calibrate import rows_of, watching

PROJECTIONS = ("q_proj", "k_proj", "v_proj")
MLPS = (("fc1", "fc2"), ("intermediate.dense", "output.dense"))
"""The Linear before the activation and the one behind it: as CLIP and as BERT name them."""
CHUNKS = 48
"""An MLP loses its channels in this many equal chunks: integer kernels like widths that are multiples of 32."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Channels that one Linear reads (`reader`) and others write (`writers`): those of an attention or of an MLP.

    They go by `groups` of `width` channels, whole heads or chunks; which channels make up a chunk is free.
    """

    owner: str
    reader: str
    writers: tuple[str, ...]
    width: int
    groups: int

    @property
    def heads(self) -> bool:
        """Whether the groups are heads, each with channels of its own."""
        return len(self.writers) > 1

    @property
    def channels(self) -> int:
        """How many channels the reader has."""
        return self.width * self.groups


def units(tower: nn.Module) -> list[Unit]:
    """Return the attentions of transformers' CLIP kind and all MLPs of `tower`, in forward order.

    BLIP's heads stay: those of an image share one projection, those of a text a cache.
    """
    found = []
    for name, module in tower.named_modules():
        each: Any = module
        if is_attention(module):
            found.append(
                Unit(
                    owner=name,
                    reader=f"{name}.out_proj",
                    writers=tuple(f"{name}.{projection}" for projection in PROJECTIONS),
                    width=each.head_dim,
                    groups=each.out_proj.in_features // each.head_dim,
                )
            )
        for writer, reader in MLPS:
            if _has_linear(module, writer) and _has_linear(module, reader):
                found.append(_mlp(tower, name, writer, reader))
    return found


def _has_linear(module: nn.Module, path: str) -> bool:
    try:
        return isinstance(module.get_submodule(path), nn.Linear)
    except AttributeError:
        return False


def _mlp(tower: nn.Module, owner: str, writer: str, reader: str) -> Unit:
    hidden = int(tower.get_submodule(f"{owner}.{reader}").get_parameter("weight").shape[1])
    chunks = next(count for count in range(min(CHUNKS, hidden), 0, -1) if hidden % count == 0)
    return Unit(
        owner=owner,
        reader=f"{owner}.{reader}",
        writers=(f"{owner}.{writer}",),
        width=hidden // chunks,
        groups=chunks,
    )


def without_channels(
    tower: nn.Module, unit: Unit, kept: Tensor, weight: Tensor, bias: Tensor | None
) -> dict[str, nn.Module]:
    """Return, by name, the smaller Linears of `unit` that have the `kept` channels (sorted indices) only.

    `weight` (out, kept) and `bias` (out,) are the reader's.
    """
    made: dict[str, nn.Module] = {}
    for name in unit.writers:
        writer: Any = tower.get_submodule(name)
        rows = None if writer.bias is None else writer.bias[kept]
        made[name] = _linear(writer.weight[kept], rows)
    made[unit.reader] = _linear(weight, bias)
    return made


def put_in(tower: nn.Module, unit: Unit, modules: Mapping[str, nn.Module]) -> None:
    """Put the smaller Linears of `unit` into `tower`, for good."""
    for name, module in modules.items():
        tower.set_submodule(name, module)
    if unit.heads:
        attention: Any = tower.get_submodule(unit.owner)
        attention.num_heads = attention.out_proj.in_features // unit.width


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight.detach().float().contiguous(), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().float().contiguous(), requires_grad=False)
    return made


@dataclass(frozen=True)
class MacCount:
    """Multiply-accumulates of a tower for one input: all of them, and those of one group of each unit by its reader.

    `most_share` is the share of all that can go: of each unit one group stays.
    """

    total: int
    of_group: Mapping[str, int]
    most_share: float


def macs_of(tower: nn.Module, batch: Tensor, chosen: Sequence[Unit]) -> MacCount:
    """Count the multiply-accumulates of Linears, convolutions and attention's two products on `batch`, per input."""
    names = [name for name, module in tower.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    rows: dict[str, int] = {}

    def count(name: str, values: Tensor) -> None:
        rows[name] = len(rows_of(tower.get_submodule(name), values))

    with torch.inference_mode(), watching(tower, names, count):
        tower(batch)
    weights = {name: tower.get_submodule(name).get_parameter("weight") for name in rows}
    total = sum(rows[name] * weight.numel() for name, weight in weights.items())
    of_group, can_go = {}, 0
    for unit in chosen:
        tokens = rows[unit.reader]
        reads_and_writes = sum(weights[name].shape[1] for name in unit.writers) + weights[unit.reader].shape[0]
        one = tokens * reads_and_writes * unit.width
        if unit.heads:
            products = 2 * tokens * (tokens // len(batch)) * unit.width
            total += products * unit.groups
            one += products
        of_group[unit.reader] = one // len(batch)
        can_go += one * (unit.groups - 1)
    return MacCount(total // len(batch), of_group, can_go / total)
