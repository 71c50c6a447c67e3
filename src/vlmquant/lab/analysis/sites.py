"""What each site of a tower holds and how much noise a recipe puts on it.

Signal-to-quantization-noise ratio: 10 log10(sum x^2 / sum (x' - x)^2) in dB, x the float values and x' those that a
recipe makes of them (Nagel et al. 2021, arXiv 2106.08295, section 2). Each site is looked at alone, on float inputs.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vlmquant.progress import Track, silent
from vlmquant.quantize.calibrate import histogram_of, input_histograms, watching
from vlmquant.quantize.damage import TowerPlan, up_to
from vlmquant.quantize.modules import (
    PerTokenLinear,
    QuantizedConv2d,
    QuantizedLinear,
    dequantize_groups,
    dequantize_weight,
)
from vlmquant.quantize.observe import Histogram
from vlmquant.quantize.rounding import FakeQuantize, TokenFakeQuantize, TwinFakeQuantize, WholeBatchFakeQuantize

BINS = 128
NOISE_INPUTS = 32
Rounded = QuantizedLinear | QuantizedConv2d | PerTokenLinear
Rounding = FakeQuantize | TwinFakeQuantize | TokenFakeQuantize | WholeBatchFakeQuantize | nn.Identity

_PLACE = re.compile(r"^(?P<block>.*\.\d+)\.(?P<kind>\D.*)$")


@dataclass(frozen=True, eq=False, kw_only=True)
class Distribution:
    """Counts of values in 128 equal bins over [low, high]."""

    low: float
    high: float
    counts: NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class SiteFacts:
    """One site: a Linear or Conv2d with its input, or an operand of an attention product, which has no weight.

    `block` is the name of the transformer block (or stage) that it lies in, empty outside of all; `kind` the rest of
    its name. `grid_low` and `grid_high` are the ends of the fixed grid of its input, None where the range is found at
    run time or the input stays float; `clipped_share` (0..1) of its input lies beyond them. Ratios are in dB, None
    where nothing is rounded; infinite ones (no error at all) are None too, with `exact` naming them.
    """

    site: str
    block: str
    kind: str
    input: Distribution
    weight: Distribution | None
    grid_low: float | None
    grid_high: float | None
    clipped_share: float | None
    input_sqnr_db: float | None
    weight_sqnr_db: float | None
    output_sqnr_db: float | None
    exact: tuple[str, ...] = ()


@dataclass
class _Power:
    """Sums of squares of a signal and of the noise on it."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, values: Tensor, rounded: Tensor) -> None:
        self.signal += float(values.double().square().sum())
        self.noise += float((rounded - values).double().square().sum())

    @property
    def ratio_db(self) -> float | None:
        """Return the ratio in dB: None where nothing was added, infinite without noise."""
        if not self.signal:
            return None
        return 10 * math.log10(self.signal / self.noise) if self.noise else math.inf


def site_facts(
    plan: TowerPlan, inputs: Sequence[Tensor], description: str, track: Track = silent
) -> tuple[SiteFacts, ...]:
    """Return the facts of every site of `plan`, in forward order of definition.

    Distributions are over all `inputs` (batches), ratios over about 32 of them. Where the recipe smooths, sites are
    those of the smoothed tower, which computes the same.
    """
    modules = {name: module for name, module in plan.modules.items() if isinstance(module, Rounded | Rounding)}
    names = [name for name, _ in plan.tower.named_modules() if name in modules]
    histograms = input_histograms(plan.tower, names, inputs, f"{description}: distributions", track)
    noise = _noise(plan.tower, {name: modules[name] for name in names}, inputs, f"{description}: noise", track)
    return tuple(_facts(plan.tower, name, modules[name], histograms[name], noise[name]) for name in names)


def place_of(site: str) -> tuple[str, str]:
    """Return the block that a site lies in, empty outside of all, and what it is called within."""
    found = _PLACE.match(site)
    return (found["block"], found["kind"]) if found else ("", site)


@dataclass
class _Noise:
    input: _Power
    output: _Power
    clipped: int = 0
    values: int = 0


def _noise(
    tower: nn.Module, modules: Mapping[str, nn.Module], inputs: Sequence[Tensor], description: str, track: Track
) -> dict[str, _Noise]:
    found = {name: _Noise(_Power(), _Power()) for name in modules}

    def look(site: str, values: Tensor) -> None:
        seen, module = found[site], modules[site]
        rounding = _rounding(module)
        if rounding is not None:
            seen.input.add(values, rounding(values))
        if rounding is not None and (ends := _ends(rounding)) is not None:
            low, high, slack = ends
            seen.clipped += int(((values < low - slack) | (values > high + slack)).sum())
            seen.values += values.numel()
        if isinstance(module, Rounded):
            # `forward` itself, as calling the module would come back here.
            seen.output.add(tower.get_submodule(site).forward(values), module(values))

    batches = up_to(inputs, NOISE_INPUTS)
    for batch in track(batches, description, len(batches)):
        with torch.inference_mode(), watching(tower, list(modules), look):
            tower(batch)
    return found


def _facts(tower: nn.Module, site: str, module: nn.Module, histogram: Histogram, noise: _Noise) -> SiteFacts:
    block, kind = place_of(site)
    weight, weight_noise = None, _Power()
    if isinstance(module, Rounded):
        values = tower.get_submodule(site).get_parameter("weight")
        weight = _coarse(histogram_of(values.detach()))
        weight_noise.add(values, _dequantized(module))
    rounding = _rounding(module)
    ends = None if rounding is None else _ends(rounding)
    ratios = {"input": noise.input.ratio_db, "weight": weight_noise.ratio_db, "output": noise.output.ratio_db}
    return SiteFacts(
        site=site,
        block=block,
        kind=kind,
        input=_coarse(histogram),
        weight=weight,
        grid_low=None if ends is None else ends[0],
        grid_high=None if ends is None else ends[1],
        clipped_share=noise.clipped / noise.values if noise.values else None,
        **{f"{name}_sqnr_db": _finite(ratio) for name, ratio in ratios.items()},
        exact=tuple(name for name, ratio in ratios.items() if ratio == math.inf),
    )


def _rounding(module: nn.Module) -> nn.Module | None:
    """Return what rounds the input of a site; None where it stays float."""
    found = module.rounding if isinstance(module, Rounded) else module
    return None if isinstance(found, nn.Identity) else found


def _ends(rounding: nn.Module) -> tuple[float, float, float] | None:
    """Return the ends of a fixed grid, and how far beyond them a value is rounded to them and not clipped."""
    if isinstance(rounding, FakeQuantize):
        grid = rounding.grid
        return grid.low, grid.high, grid.scale / 2
    if isinstance(rounding, TwinFakeQuantize):
        twin = rounding.grid
        low, high = twin.small_qmin * twin.small_step, twin.large_qmax * twin.large_step
        return low, high, max(twin.small_step, twin.large_step) / 2
    return None


def _dequantized(module: Rounded) -> Tensor:
    if isinstance(module, QuantizedConv2d):
        return module.weight
    if isinstance(module, PerTokenLinear):
        return cast(Tensor, dequantize_weight(module.integers, module.scales, 1)).t()
    if module.group_size is not None:
        return cast(Tensor, dequantize_groups(module.weight_integers, module.scales, module.group_size)).t()
    return cast(Tensor, dequantize_weight(module.weight_integers, module.scales, 1)).t()


def _coarse(histogram: Histogram) -> Distribution:
    return Distribution(low=histogram.low, high=histogram.high, counts=histogram.counts.reshape(BINS, -1).sum(axis=1))


def _finite(ratio: float | None) -> float | None:
    return None if ratio is None or math.isinf(ratio) else ratio
