"""Measuring what each site sees: hooks that live inside one call, over the calibration inputs."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from vlmquant.errors import CalibrationError
from vlmquant.progress import Track, silent
from vlmquant.quantize.observe import HISTOGRAM_BINS, Histogram

Visit = Callable[[str, Tensor], None]
VisitOutput = Callable[[str, tuple[Tensor, ...], Tensor], None]


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
    """Return the mean of x x^T, (in, in), over the rows x of the rounded input of each module named in `roundings`."""

    def squares(site: str, values: Tensor) -> tuple[Tensor, int]:
        rows = rows_of(tower.get_submodule(site), roundings[site](values))
        return rows.T @ rows, len(rows)

    means = _means(tower, list(roundings), squares, inputs, description, track)
    return {site: mean.double().numpy() for site, mean in means.items()}


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

    def error(site: str, values: Tensor) -> tuple[Tensor, int]:
        module = tower.get_submodule(site)
        found = replacements[site](values) - module.forward(values)
        rows = (found.movedim(1, -1) if isinstance(module, nn.Conv2d) else found).flatten(0, -2)
        return rows.sum(dim=0), len(rows)

    means = _means(tower, list(replacements), error, inputs, description, track)
    return {site: mean.clone() for site, mean in means.items()}


def _means(
    tower: nn.Module,
    sites: Sequence[str],
    sum_and_count: Callable[[str, Tensor], tuple[Tensor, int]],
    inputs: Sequence[Tensor],
    description: str,
    track: Track,
) -> dict[str, Tensor]:
    """Return for each site the mean over all `inputs` of what `sum_and_count(site, its input)` adds up and counts."""
    check_inputs(inputs)
    sums: dict[str, Tensor] = {}
    counts = dict.fromkeys(sites, 0)

    def add(site: str, values: Tensor) -> None:
        total, count = sum_and_count(site, values)
        sums[site] = sums[site] + total if site in sums else total
        counts[site] += count

    for batch in track(inputs, description, len(inputs)):
        with torch.inference_mode(), watching(tower, sites, add):
            tower(batch)
    return {site: total / counts[site] for site, total in sums.items()}


def rows_of(module: nn.Module, values: Tensor) -> Tensor:
    """Return the rows (n, in) that the weight matrix of `module` multiplies for the input `values`.

    Those of a Linear are its input's, those of a Conv2d what its kernel lies on at each place, channel by channel.
    """
    if not isinstance(module, nn.Conv2d):
        return values.flatten(0, -2)
    assert isinstance(module.padding, tuple)
    patches = functional.unfold(values, module.kernel_size, module.dilation, module.padding, module.stride)
    return patches.transpose(1, 2).flatten(0, 1)


def trace(
    tower: nn.Module, sites: Sequence[str], batch: Tensor
) -> tuple[dict[str, tuple[Tensor, ...]], dict[str, Tensor], Tensor]:
    """Run `batch` and return what each named module was called with, what it returned, and the tower's output."""
    inputs: dict[str, tuple[Tensor, ...]] = {}
    outputs: dict[str, Tensor] = {}

    def keep(site: str, args: tuple[Tensor, ...], output: Tensor) -> None:
        inputs[site], outputs[site] = args, output

    with watching_outputs(tower, sites, keep):
        embedding: Tensor = tower(batch)
    return inputs, outputs, embedding


def check_inputs(inputs: Sequence[Tensor]) -> None:
    """Raise CalibrationError when there is nothing to calibrate on."""
    if not inputs:
        raise CalibrationError("the calibration set is empty; static ranges need at least one input")


def watching(tower: nn.Module, sites: Sequence[str], visit: Visit) -> AbstractContextManager[None]:
    """Call `visit(name, input)` before each named module of `tower` runs."""
    return _until_left(
        tower.get_submodule(site).register_forward_pre_hook(lambda _, args, site=site: visit(site, args[0]))
        for site in sites
    )


def watching_outputs(tower: nn.Module, sites: Sequence[str], visit: VisitOutput) -> AbstractContextManager[None]:
    """Call `visit(name, inputs, output)` after each named module of `tower` has run."""
    return _until_left(
        tower.get_submodule(site).register_forward_hook(lambda _, args, output, site=site: visit(site, args, output))
        for site in sites
    )


@contextmanager
def _until_left(hooks: Iterable[RemovableHandle]) -> Iterator[None]:
    """Register `hooks`, and remove them at the end of the `with`."""
    registered: list[RemovableHandle] = []
    try:
        registered.extend(hooks)
        yield
    finally:
        for hook in registered:
            hook.remove()
