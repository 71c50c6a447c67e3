"""The picture of a detection: per event its score over time, the thresholds, what was found and what is true."""

import io
import warnings
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from vlmquant.metrics.events import EventSpan
from vlmquant.models.spec import FloatArray
from vlmquant.text import printable
from vlmquant.video.detect import Detection

_SCORE, _FOUND, _TRUE = "#1f4e79", "#e07b00", "#2e8b57"
_LONGEST_LABEL = 100
STRETCHES = 1500
"""More than the pixels of the picture's width."""
_FOUND_BAR, _TRUE_BAR = (-0.16, 0.10), (-0.30, 0.10)
"""Bottom and height, in the units of the score axis: both lie below probability 0."""


def timeline_figure(detection: Detection, truth: Sequence[EventSpan] = ()) -> Figure:
    """Draw one row per event asked for, over a common time axis in seconds.

    The line is the probability of each scored frame before smoothing. `truth` adds bars of the true events with the
    names that were asked for.
    """
    rows = len(detection.names)
    figure = Figure(figsize=(11, 1.0 + 1.35 * rows), layout="constrained")
    panels = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    for column, (axes, name, rule) in enumerate(zip(panels, detection.names, detection.rules, strict=True)):
        scores = detection.scores[:, column]
        seen = outline(scores)
        axes.step(detection.pts_seconds[seen], scores[seen], where="post", color=_SCORE, linewidth=1.0)
        axes.axhline(rule.on, color="0.35", linewidth=0.8, linestyle="--")
        axes.axhline(rule.off, color="0.35", linewidth=0.8, linestyle=":")
        found = [event for event in detection.events if event.name == name]
        true = [event for event in truth if event.name == name]
        _bars(axes, found, _FOUND_BAR, _FOUND)
        _bars(axes, true, _TRUE_BAR, _TRUE)
        axes.set_ylim(-0.36 if truth else -0.22, 1.05)
        axes.set_yticks([0, 0.5, 1])
        axes.set_ylabel("probability", fontsize=8)
        counts = f"{len(found)} found" + (f", {len(true)} true" if truth else "")
        axes.set_title(f"{_label(name)}: {counts}", loc="left", fontsize=9, parse_math=False)
        axes.tick_params(labelsize=8)
    panels[-1].set_xlim(0, detection.end_seconds)
    panels[-1].set_xlabel("time (s)", fontsize=9)
    figure.suptitle(
        f"{_label(detection.info.path.name)}: n = {len(detection.pts_seconds)} frames at {detection.fps:g} per second, "
        f"{_label(detection.model)}",
        fontsize=10,
        parse_math=False,
    )
    _legend(figure, detection, with_truth=bool(truth))
    return figure


def outline(scores: FloatArray) -> NDArray[np.int64]:
    """Return the indices to draw of (n,) scores: all, or of many the least and the greatest of each stretch.

    A picture has no room for more, and memory for drawing does not grow with the length of a video.
    """
    if len(scores) <= 2 * STRETCHES:
        return np.arange(len(scores))
    borders = np.linspace(0, len(scores), STRETCHES + 1).astype(np.int64)
    stretches = [slice(start, stop) for start, stop in pairwise(borders)]
    extremes = [[part.start + find(scores[part]) for find in (np.argmin, np.argmax)] for part in stretches]
    return np.unique(np.asarray(extremes, dtype=np.int64))


def timeline_png(detection: Detection, truth: Sequence[EventSpan] = (), dpi: int = 120) -> bytes:
    """Return `timeline_figure` as a PNG file."""
    data = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph .* missing from", UserWarning
        )  # a script without a font shows as boxes
        timeline_figure(detection, truth).savefig(data, format="png", dpi=dpi)
    return data.getvalue()


def _label(text: str) -> str:
    """Return a name as it fits over a panel, with nothing in it that is drawn otherwise than it is written."""
    shown = printable(text)
    return shown if len(shown) <= _LONGEST_LABEL else f"{shown[: _LONGEST_LABEL - 3]}..."


def _bars(axes: Axes, events: Sequence[EventSpan], bar: tuple[float, float], color: str) -> None:
    spans = [(event.start_seconds, event.end_seconds - event.start_seconds) for event in events]
    axes.broken_barh(spans, bar, facecolors=color)


def _legend(figure: Figure, detection: Detection, with_truth: bool) -> None:
    first, *others = set(detection.rules)
    on, off = ("", "") if others else (f" {first.on:g}", f" {first.off:g}")
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=_SCORE, linewidth=1.0, label="score"),
        Line2D([], [], color="0.35", linewidth=0.8, linestyle="--", label=f"on{on}"),
        Line2D([], [], color="0.35", linewidth=0.8, linestyle=":", label=f"off{off}"),
        Patch(color=_FOUND, label="found"),
    ]
    if with_truth:
        handles.append(Patch(color=_TRUE, label="true"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
