"""Measuring what each site sees: hooks that live inside one call, over the calibration inputs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vlmquant.errors import CalibrationError
from vlmquant.progress import Track, silent
from vlmquant.quantize.observe import HISTOGRAM_BINS, Histogram

Visit = Callable[[str, Tensor], None]


def input_histograms(
    tower: nn.Module, sites: Sequence[str], inputs: Sequence[Tensor], description: str, track: Track = silent
) -> dict[str, Histogram]:
    """Return, for each named module of `tower`, the histogram of its input over all `inputs` (batches).

    The first pass finds each site's range, the second counts within it, so that no value is lost and none is guessed.
    Raises CalibrationError when there are no inputs or a site sees a value that is not finite.
    """
    check_inputs(inputs)
    low = dict.fromkeys(sites, 0.0)
    high = dict.fromkeys(sites, 0.0)

    def widen(site: str, values: Tensor) -> None:
        smallest, largest = torch.aminmax(values)
        if not (torch.isfinite(smallest) and torch.isfinite(largest)):
            raise CalibrationError(f"site {site} saw a value that is not finite; the checkpoint or an input is broken")
        low[site] = min(low[site], float(smallest))
        high[site] = max(high[site], float(largest))

    counts = {site: torch.zeros(HISTOGRAM_BINS, dtype=torch.float64) for site in sites}

    def count(site: str, values: Tensor) -> None:
        counts[site] += torch.histc(values.float(), HISTOGRAM_BINS, low[site], high[site]).double()

    steps = [(widen, batch) for batch in inputs] + [(count, batch) for batch in inputs]
    for visit, batch in track(steps, description, len(steps)):
        with torch.inference_mode(), watching(tower, sites, visit):
            tower(batch)
    return {site: Histogram(low[site], high[site], counts[site].numpy()) for site in sites}


def histogram_of(values: Tensor) -> Histogram:
    """Return the histogram of `values`, zero included in its range."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    counts = torch.histc(values.float(), HISTOGRAM_BINS, low, high).double()
    return Histogram(low, high, counts.numpy())


def second_moments(
    tower: nn.Module,
    roundings: Mapping[str, nn.Module],
    inputs: Sequence[Tensor],
    description: str,
    track: Track = silent,
) -> dict[str, NDArray[np.float64]]:
    """Return the mean of x x^T, (in, in), over the rows x of the rounded input of each module named in `roundings`.

    Those of a Linear are its input's rows, those of a Conv2d what its kernel lies on at each place, channel by channel.
    """
    check_inputs(inputs)
    sums: dict[str, Tensor] = {}
    rows = dict.fromkeys(roundings, 0)

    def add(site: str, values: Tensor) -> None:
        seen = _rows(tower.get_submodule(site), roundings[site](values))
        product = seen.T @ seen
        sums[site] = sums[site] + product if site in sums else product
        rows[site] += len(seen)

    for batch in track(inputs, description, len(inputs)):
        with torch.inference_mode(), watching(tower, list(roundings), add):
            tower(batch)
    return {site: (total / rows[site]).double().numpy() for site, total in sums.items()}


def _rows(module: nn.Module, values: Tensor) -> Tensor:
    if not isinstance(module, nn.Conv2d):
        return values.flatten(0, -2)
    assert isinstance(module.padding, tuple)
    patches = functional.unfold(values, module.kernel_size, module.dilation, module.padding, module.stride)
    return patches.transpose(1, 2).flatten(0, 1)


def mean_output_errors(
    tower: nn.Module,
    replacements: Mapping[str, nn.Module],
    inputs: Sequence[Tensor],
    description: str,
    track: Track = silent,
) -> dict[str, Tensor]:
    """Return, for each module of `tower` named in `replacements`, by how much its replacement is off on average.

    One float32 number per output channel (the last axis, or the second of a convolution): replacement minus module,
    both on the module's float input.
    """
    check_inputs(inputs)
    sums: dict[str, Tensor] = {}
    counts = dict.fromkeys(replacements, 0)

    def compare(site: str, values: Tensor) -> None:
        module = tower.get_submodule(site)
        error = replacements[site](values) - module.forward(values)
        channels = error.movedim(1, -1) if isinstance(module, nn.Conv2d) else error
        flat = channels.flatten(0, -2)
        sums[site] = sums[site] + flat.sum(dim=0) if site in sums else flat.sum(dim=0)
        counts[site] += len(flat)

    for batch in track(inputs, description, len(inputs)):
        with torch.inference_mode(), watching(tower, list(replacements), compare):
            tower(batch)
    return {site: (total / counts[site]).clone() for site, total in sums.items()}


def check_inputs(inputs: Sequence[Tensor]) -> None:
    """Raise CalibrationError when there is nothing to calibrate on."""
    if not inputs:
        raise CalibrationError("the calibration set is empty; static ranges need at least one input")


@contextmanager
def watching(tower: nn.Module, sites: Sequence[str], visit: Visit) -> Iterator[None]:
    """Call `visit(name, input)` before each named module of `tower` runs."""
    handles = [
        tower.get_submodule(site).register_forward_pre_hook(lambda _, args, site=site: visit(site, args[0]))
        for site in sites
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
