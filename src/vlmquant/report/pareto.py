"""Which models are worth having: those that no other model beats in size, speed and score at once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vlmquant.metrics.intervals import Interval
from vlmquant.report.plots import AFTER, BEFORE, LINE, QUIET, plain
from vlmquant.text import counted

MIB = 2**20
LABELS_THAT_FIT = np.array([18.0, 24.0])
"""How many labels a panel holds beside and above each other."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One model with what it costs and what it scores; None for what was not measured.

    `size_bytes` is what must be on disk to run it, `latency_ms` the median of one image. `score` is a rate in [0, 1]
    on `n` samples with its 95 % interval, `fidelity` the mean cosine to the float model.
    """

    label: str
    size_bytes: int | None
    latency_ms: float | None
    score: Interval | None
    fidelity: float | None
    n: int

    @property
    def size_mib(self) -> float:
        """Return the size in MiB. Raises ValueError when it is not known."""
        if self.size_bytes is None:
            raise ValueError(f"the size of {self.label} is not known")
        return self.size_bytes / MIB


@dataclass(frozen=True)
class Axis:
    """A cost or a gain that a chart can have along an axis: its values are (candidates,) float64, NaN for none.

    None of them can be above `highest`.
    """

    label: str
    values: NDArray[np.float64]
    highest: float = math.inf

    @property
    def known(self) -> bool:
        """Return whether at least one candidate has a value."""
        return bool(np.isfinite(self.values).any())


def pareto_front(costs: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return (n,) which rows of (n, m) costs no other row dominates; lower is better in every column.

    A row dominates another when it is nowhere worse and somewhere better, so equal rows stay together. In
    lexicographic order a row can only be dominated by an earlier one, and by one on the front if by any.
    Raises ValueError where a cost is not finite: what was not measured cannot be on a front.
    """
    if costs.ndim != 2 or not np.isfinite(costs).all():
        raise ValueError(f"expected finite costs of shape (n, m), got {costs.shape}")
    front: list[int] = []
    for row in np.lexsort(costs.T[::-1]):
        chosen = costs[front]
        dominated = (chosen <= costs[row]).all(axis=1) & (chosen < costs[row]).any(axis=1)
        if not dominated.any():
            front.append(int(row))
    mask = np.zeros(len(costs), dtype=np.bool_)
    mask[front] = True
    return mask


def costs_of(candidates: Sequence[Candidate]) -> list[Axis]:
    """Return size and latency of the candidates."""
    return [
        Axis(
            "size on disk (MiB)", _numbers([None if c.size_bytes is None else c.size_bytes / MIB for c in candidates])
        ),
        Axis("latency of one image, median (ms)", _numbers([c.latency_ms for c in candidates])),
    ]


def gains_of(candidates: Sequence[Candidate], metric: str, unit: str = "%") -> list[Axis]:
    """Return score and fidelity of the candidates; `metric` names the score, which is shown times 100 in `unit`."""
    return [
        Axis(
            f"{metric} ({unit})",
            _numbers([None if c.score is None else 100 * c.score.estimate for c in candidates]),
            100,
        ),
        Axis("mean cosine to the float model", _numbers([c.fidelity for c in candidates]), 1),
    ]


def best(candidates: Sequence[Candidate]) -> NDArray[np.bool_]:
    """Return (n,) which candidates are on the front of all costs and gains that every candidate has."""
    axes = costs_of(candidates) + [Axis(g.label, -g.values) for g in gains_of(candidates, "score")]
    complete = [axis.values for axis in axes if np.isfinite(axis.values).all()]
    if not complete:
        return np.ones(len(candidates), dtype=np.bool_)
    return pareto_front(np.stack(complete, axis=1))


def pareto_figure(candidates: Sequence[Candidate], metric: str, unit: str = "%") -> Figure:
    """Draw every gain that is known over every cost that is known, each with its front; 1 is the first candidate.

    Raises ValueError when no candidate has both a cost and a gain.
    """
    costs = [axis for axis in costs_of(candidates) if axis.known]
    gains = [axis for axis in gains_of(candidates, metric, unit) if axis.known]
    if not costs or not gains:
        raise ValueError("a Pareto plot needs at least one cost and one gain of the same model")
    pairs = [(cost, gain) for gain in gains for cost in costs]
    rows, columns = -(-len(pairs) // 2), min(2, len(pairs))
    figure = Figure(figsize=(11, 4.2 * rows), layout="constrained")
    for axes, (cost, gain) in zip(figure.subplots(rows, columns, squeeze=False).ravel(), pairs, strict=True):
        _panel(axes, candidates, cost, gain, with_intervals=gain.label.endswith(f"({unit})"))
    return figure


def _panel(axes: Axes, candidates: Sequence[Candidate], cost: Axis, gain: Axis, *, with_intervals: bool) -> None:
    drawn = np.flatnonzero(np.isfinite(cost.values) & np.isfinite(gain.values))
    x, y = cost.values[drawn], gain.values[drawn]
    axes.set_xlabel(cost.label)
    axes.set_ylabel(gain.label)
    plain(axes)
    axes.ticklabel_format(useOffset=False)
    counts = sorted({candidates[i].n for i in drawn.tolist()})
    axes.set_title(
        f"n = {', '.join(f'{n:,}' for n in counts)}; {counted(len(drawn), 'model')}", loc="left", fontsize=10, pad=16
    )
    if not len(drawn):
        return
    front = pareto_front(np.stack([x, -y], axis=1))
    if with_intervals:
        scores = [candidates[i].score for i in drawn.tolist()]
        below = [100 * (s.estimate - s.low) for s in scores if s is not None]
        above = [100 * (s.high - s.estimate) for s in scores if s is not None]
        axes.errorbar(x, y, yerr=[below, above], fmt="none", ecolor=QUIET, elinewidth=1, capsize=3, zorder=1)
    order = np.argsort(x[front])
    axes.step(x[front][order], y[front][order], where="post", color=LINE, linewidth=1.3, zorder=2)
    axes.scatter(x, y, s=46, c=[AFTER if kept else BEFORE for kept in front], zorder=3, clip_on=False)
    axes.set_xlim(0, 1.1 * x.max())
    axes.margins(y=0.25)
    axes.set_ylim(top=min(axes.get_ylim()[1], gain.highest))
    for label, at_x, at_y in _labels(axes, drawn, np.stack([x, y], axis=1)):
        axes.annotate(label, (at_x, at_y), xytext=(7, 5), textcoords="offset points", fontsize=9, weight="bold")


def _labels(axes: Axes, drawn: NDArray[np.int64], places: NDArray[np.float64]) -> list[tuple[str, float, float]]:
    """Return the numbers of the points at `places` (n, 2), those too near each other for two labels together."""
    room = np.array([np.ptp(axes.get_xlim()), np.ptp(axes.get_ylim())]) / LABELS_THAT_FIT
    together: list[list[int]] = []
    for position, place in enumerate(places):
        near = (group for group in together if (np.abs(places[group[0]] - place) < room).all())
        group = next(near, None)
        if group is None:
            together.append([position])
        else:
            group.append(position)
    return [(", ".join(str(drawn[i] + 1) for i in group), *places[group[-1]].tolist()) for group in together]


def _numbers(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
