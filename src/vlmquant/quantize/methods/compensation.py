"""Compensation after quantization, in closed form: what a linear map can take back of the error of a quantized layer.

"block_compensation" is QwT (Fu et al. 2025, Quantization without Tears, arXiv 2411.13918, section 3): beside each
transformer block runs one Linear from the block's input, fitted by least squares to what the block's output lacks.
"channel_compensation" is its channel-wise form (Tang et al. 2025, QwT-v2, arXiv 2505.20932): a factor and an offset for
each output channel of each quantized Linear, which go into its weight scales and its bias and cost nothing to run.
Both go from the first layer to the last, each fitted on what the quantized layers before it, compensated, really give.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from vlmquant.errors import RecipeError
from vlmquant.quantize.calibrate import check_inputs, trace
from vlmquant.quantize.least_squares import Sums
from vlmquant.quantize.methods.step import Calibration, Draft, Step
from vlmquant.quantize.modules import PerTokenLinear, QuantizedLinear
from vlmquant.quantize.prunable import units
from vlmquant.quantize.recipes.recipe import Recipe

BLOCKS, CHANNELS = "block_compensation", "channel_compensation"


class CompensatedBlock(nn.Module):
    """A transformer block with a Linear from its input to its output beside it."""

    def __init__(self, block: nn.Module, beside: nn.Linear) -> None:
        super().__init__()
        self.block = block
        self.beside = beside

    def forward(self, hidden_states: Tensor, *args: Any, **keywords: Any) -> Tensor:
        """Map (n, length, width) to the same shape."""
        output: Tensor = self.block(hidden_states, *args, **keywords)
        return output + cast(Tensor, self.beside(hidden_states))


def _blocks(draft: Draft, recipe: Recipe, calibration: Calibration) -> Draft:
    check_inputs(calibration.inputs)
    names = _block_names(draft.tower)
    if not names:
        raise RecipeError(f"recipe {recipe.name!r}: {BLOCKS} needs transformer blocks, and this component has none")
    quantized = _quantized(draft)
    found: dict[str, nn.Module] = {}
    for name in calibration.track(names, f"{calibration.description}: block compensation", len(names)):
        beside = _beside(draft.tower, quantized, name, calibration.inputs)
        quantized.set_submodule(name, CompensatedBlock(quantized.get_submodule(name), beside))
        found[name] = CompensatedBlock(draft.tower.get_submodule(name), beside)
    # Last, as what takes the places inside a block is put there before the block gets its new place.
    return replace(draft, modules={**draft.modules, **found})


def _beside(tower: nn.Module, quantized: nn.Module, name: str, inputs: Sequence[Tensor]) -> nn.Linear:
    sums: Sums | None = None
    for batch in inputs:
        with torch.inference_mode():
            _, wanted, _ = trace(tower, [name], batch)
            given, found, _ = trace(quantized, [name], batch)
        rows, missing = (each.flatten(0, -2).double() for each in (given[name][0], wanted[name] - found[name]))
        sums = sums or Sums(rows.shape[1], missing.shape[1])
        sums.add(rows, missing)
    assert sums is not None
    weight, bias = sums.fit()
    beside = nn.Linear(weight.shape[1], weight.shape[0])
    beside.weight = nn.Parameter(weight.float(), requires_grad=False)
    beside.bias = nn.Parameter(bias.float(), requires_grad=False)
    return beside


def _channels(draft: Draft, recipe: Recipe, calibration: Calibration) -> Draft:
    check_inputs(calibration.inputs)
    sites = [
        name
        for name, module in draft.modules.items()
        if isinstance(module, PerTokenLinear) or (isinstance(module, QuantizedLinear) and module.group_size is None)
    ]
    if not sites:
        raise RecipeError(f"recipe {recipe.name!r}: {CHANNELS} needs Linears with one weight scale per output channel")
    quantized, modules = _quantized(draft), dict(draft.modules)
    blocks = _by_block(draft.tower, sites)
    for names in calibration.track(blocks, f"{calibration.description}: channel compensation", len(blocks)):
        for name, line in _lines(draft.tower, quantized, names, calibration.inputs).items():
            modules[name] = _scaled(modules[name], line)
            quantized.set_submodule(name, modules[name])
    return replace(draft, modules=modules)


def _by_block(tower: nn.Module, sites: Sequence[str]) -> list[list[str]]:
    """Group sites that follow one another by the transformer block that they are in; those in none are alone."""
    blocks = [f"{name}." for name in _block_names(tower)]
    found: dict[str, list[str]] = {}
    for site in sites:
        found.setdefault(next((block for block in blocks if site.startswith(block)), site), []).append(site)
    return list(found.values())


class _Line:
    """By channel the line through (quantized output, float output) with the least squared error."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: Tensor = torch.zeros(())

    def add(self, found: Tensor, wanted: Tensor) -> None:
        """Add float64 rows (n, channels)."""
        self.count += len(found)
        self.sums = self.sums + torch.stack([found, wanted, found.square(), found * wanted]).sum(dim=1)

    def factor_and_offset(self) -> tuple[Tensor, Tensor]:
        """Return both, (channels,) float32."""
        mean, goal, squares, products = self.sums / self.count
        variance, covariance = squares - mean.square(), products - mean * goal
        # A channel that never changes, or whose error has drowned it, only gets its offset.
        factor = torch.where((variance > 1e-12) & (covariance > 0), covariance / variance.clamp(min=1e-12), 1.0)
        return factor.float(), (goal - factor * mean).float()


def _lines(tower: nn.Module, quantized: nn.Module, names: Sequence[str], inputs: Sequence[Tensor]) -> dict[str, _Line]:
    lines = {name: _Line() for name in names}
    for batch in inputs:
        with torch.inference_mode():
            wanted, found = (trace(each, names, batch)[1] for each in (tower, quantized))
        for name, line in lines.items():
            line.add(found[name].flatten(0, -2).double(), wanted[name].flatten(0, -2).double())
    return lines


def _scaled(module: nn.Module, line: _Line) -> nn.Module:
    assert isinstance(module, QuantizedLinear | PerTokenLinear)
    factor, offset = line.factor_and_offset()
    made = copy.deepcopy(module)
    made.scales = module.scales * factor
    bias = offset if module.bias is None else module.bias * factor + offset
    made.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return made


def _block_names(tower: nn.Module) -> list[str]:
    return [unit.owner.rpartition(".")[0] for unit in units(tower) if unit.heads]


def _quantized(draft: Draft) -> nn.Module:
    """Return a copy of the tower with the modules in, for measuring."""
    tower = copy.deepcopy(draft.tower)
    for name, module in draft.modules.items():
        tower.set_submodule(name, copy.deepcopy(module))
    return tower


BLOCK_STEP = Step(applies=lambda recipe: BLOCKS in recipe.steps, run=_blocks, fits=True)
CHANNEL_STEP = Step(applies=lambda recipe: CHANNELS in recipe.steps, run=_channels, fits=True)
