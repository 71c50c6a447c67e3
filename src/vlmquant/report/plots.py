"""Charts as PNG files: axes with units, and n on every one."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from vlmquant.metrics.intervals import Interval
from vlmquant.text import counted, printable

BEFORE, AFTER, LINE, QUIET = "#9aa7b5", "#1f4e79", "#e07b00", "0.35"
DPI = 120
_OF_A_SCALE = "$\\mathdefault{"
"""How matplotlib begins the numbers of a logarithmic axis."""


@dataclass(frozen=True, kw_only=True)
class BeforeAfter:
    """One measure on the same `n` samples by two models, each with its 95 % interval, both in the chart's unit."""

    label: str
    n: int
    before: Interval
    after: Interval


def latency_figure(pts_seconds: NDArray[np.float64], latency_ms: NDArray[np.float64]) -> Figure:
    """Draw the latency of each frame over the video's time, with its median, 95th percentile and maximum.

    `pts_seconds` and `latency_ms` are (n,), n >= 1. Raises ValueError for other shapes.
    """
    if pts_seconds.shape != latency_ms.shape or pts_seconds.ndim != 1 or not len(pts_seconds):
        raise ValueError(f"expected (n,) times and latencies, got {pts_seconds.shape} and {latency_ms.shape}")
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(pts_seconds, latency_ms, ".", markersize=3.5, color=AFTER, alpha=0.65)
    levels = (
        ("median", float(np.median(latency_ms)), "-"),
        ("p95", float(np.quantile(latency_ms, 0.95)), "--"),
        ("max", float(latency_ms.max()), ":"),
    )
    for name, level, style in levels:
        axes.axhline(level, color=LINE, linewidth=1.1, linestyle=style, label=f"{name} {level:.1f} ms")
    axes.margins(x=0.01)
    axes.set_ylim(0, 1.15 * levels[-1][1])
    axes.set_xlabel("time in the video (s)")
    axes.set_ylabel("latency (ms per frame)")
    axes.set_title(f"n = {counted(len(latency_ms), 'frame')}", loc="left", fontsize=10)
    figure.legend(loc="outside upper right", ncols=3, frameon=False, fontsize=9)
    plain(axes)
    return figure


def latency_png(pts_seconds: NDArray[np.float64], latency_ms: NDArray[np.float64]) -> bytes:
    """Return `latency_figure` as a PNG file."""
    return png(latency_figure(pts_seconds, latency_ms))


def before_after_figure(
    measures: Sequence[BeforeAfter], unit: str, before: str = "float", after: str = "INT8"
) -> Figure:
    """Draw each measure as a pair of bars with 95 % intervals; `before` and `after` name the two models.

    Raises ValueError without a measure.
    """
    if not measures:
        raise ValueError("expected at least one measure to draw")
    figure = Figure(figsize=(11, 1.2 + 0.85 * len(measures)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(measures), dtype=np.float64)
    highest = max(max(measure.before.high, measure.after.high) for measure in measures)
    for offset, name, color, intervals in (
        (-0.19, before, BEFORE, [measure.before for measure in measures]),
        (0.19, after, AFTER, [measure.after for measure in measures]),
    ):
        estimates = np.array([interval.estimate for interval in intervals])
        below = estimates - [interval.low for interval in intervals]
        above = [interval.high for interval in intervals] - estimates
        axes.barh(
            places + offset,
            estimates,
            height=0.34,
            color=color,
            label=name,
            xerr=np.stack([below, above]),
            error_kw={"ecolor": QUIET, "elinewidth": 1.2, "capsize": 3},
        )
        for place, interval in zip(places + offset, intervals, strict=True):
            axes.text(interval.high + 0.012 * highest, place, f"{interval.estimate:.1f}", va="center", fontsize=9)
    axes.set_yticks(places, [f"{measure.label}\nn = {measure.n:,}" for measure in measures])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.09 * highest)
    axes.set_xlabel(f"{unit}; bars show 95 % intervals")
    figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    plain(axes)
    return figure


def before_after_png(measures: Sequence[BeforeAfter], unit: str, before: str = "float", after: str = "INT8") -> bytes:
    """Return `before_after_figure` as a PNG file."""
    return png(before_after_figure(measures, unit, before, after))


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file; what is written in it is shown literally, dollars and control characters too."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        # A number of an axis has no text yet, and is a formula where the axis is logarithmic.
        if text.get_text() and not text.get_text().startswith(_OF_A_SCALE):
            text.set_parse_math(False)
            text.set_text("\n".join(map(printable, text.get_text().split("\n"))))
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DPI)
    return data.getvalue()


def plain(axes: Axes) -> None:
    """Take the frame and large ticks off a chart."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
