"""Measuring what each site sees: hooks that live inside one call, two passes over the calibration inputs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vlmquant.errors import CalibrationError
from vlmquant.progress import Track, silent
from vlmquant.quantize.observe import HISTOGRAM_BINS, Histogram


def input_histograms(
    tower: nn.Module, sites: Sequence[str], inputs: Sequence[Tensor], description: str, track: Track = silent
) -> dict[str, Histogram]:
    """Return, for each named module of `tower`, the histogram of its input over all `inputs` (batches).

    The first pass finds each site's range, the second counts within it, so that no value is lost and none is guessed.
    Raises CalibrationError when there are no inputs or a site sees a value that is not finite.
    """
    if not inputs:
        raise CalibrationError("the calibration set is empty; static ranges need at least one input")
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
        with torch.inference_mode(), _watching(tower, sites, visit):
            tower(batch)
    return {site: Histogram(low[site], high[site], counts[site].numpy()) for site in sites}


@contextmanager
def _watching(tower: nn.Module, sites: Sequence[str], visit: Callable[[str, Tensor], None]) -> Iterator[None]:
    handles = [
        tower.get_submodule(site).register_forward_pre_hook(lambda _, args, site=site: visit(site, args[0]))
        for site in sites
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
