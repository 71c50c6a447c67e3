"""Distributions before and after quantization, and how far apart they are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vlmquant.metrics.distances import wasserstein_1
from vlmquant.report.plots import AFTER, BEFORE, LINE, plain

BINS = 60
COLOURS = (BEFORE, AFTER, LINE, "#5b8c5a", "#8a4f9e", "#b23a48", "#2aa5a0", "#6b4a2b")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One distribution: `values` is (n,) float64, n >= 1."""

    label: str
    values: NDArray[np.float64]


def overlaid(panels: Sequence[tuple[str, Sequence[Sample]]], unit: str) -> Figure:
    """Draw the histograms of each panel over each other, one panel beside the other.

    Each panel is a title and its samples; from the second sample on, the legend gives the distance to the first.
    """
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    drawn = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, samples) in zip(drawn, panels, strict=True):
        together = np.concatenate([sample.values for sample in samples])
        edges = np.histogram_bin_edges(together, BINS)
        for position, sample in enumerate(samples):
            axes.hist(
                sample.values,
                bins=list(edges),
                weights=np.full(len(sample.values), 100 / len(sample.values)),
                color=COLOURS[position % len(COLOURS)],
                histtype="stepfilled" if position == 0 else "step",
                linewidth=1.4,
                label=_label(samples, position),
            )
        axes.set_xlabel(unit)
        axes.set_ylabel("share of the values (%)")
        axes.set_title(title, loc="left", fontsize=10)
        axes.margins(y=0.3)
        axes.legend(frameon=False, fontsize=8, loc="upper left")
        plain(axes)
    return figure


def histogram(sample: Sample, unit: str, *, worst: str = "lowest") -> Figure:
    """Draw one histogram with its mean and its worst value, which is the `worst`: "lowest" or "highest"."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    axes = figure.subplots()
    values = sample.values
    axes.hist(values, bins=BINS, color=AFTER, alpha=0.85)
    end = values.min() if worst == "lowest" else values.max()
    axes.axvline(values.mean(), color=LINE, linewidth=1.3, label=f"mean {values.mean():.5f}")
    axes.axvline(end, color=LINE, linewidth=1.3, linestyle=":", label=f"{worst} {end:.5f}")
    axes.ticklabel_format(useOffset=False)
    axes.set_xlabel(unit)
    axes.set_ylabel("number of samples")
    axes.set_title(f"{sample.label}, n = {len(values):,}", loc="left", fontsize=10)
    figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    plain(axes)
    return figure


def _label(samples: Sequence[Sample], position: int) -> str:
    sample = samples[position]
    size = f"n = {len(sample.values):,}"
    if position == 0:
        return f"{sample.label}, {size}"
    return f"{sample.label}, {size}, distance {wasserstein_1(samples[0].values, sample.values):.5f}"
