"""Scores of runs as rows and charts: differences with their intervals, and scores against bits."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vlmquant.metrics.captions import METRICS as TEXT_METRICS
from vlmquant.metrics.intervals import Interval, bootstrap_mean
from vlmquant.opening.facts import FLOAT_BITS, ModelFacts
from vlmquant.report.matrices import Matrix
from vlmquant.report.plots import AFTER, BEFORE, LINE, QUIET, plain
from vlmquant.tasks.compare import Change
from vlmquant.tasks.result import Outcomes
from vlmquant.tasks.runs import Run

PER_CENT = 100.0

HEADLINES = ("top1", "image_to_text_r1", "text_to_image_r1", "CIDEr", "vqa_accuracy", "pair_accuracy")
"""The metrics that get charts of their own; the others are in the tables."""

METRIC_NAMES = {
    "top1": "top-1",
    "top5": "top-5",
    **{f"image_to_text_r{k}": f"image to text R@{k}" for k in (1, 5, 10)},
    **{f"text_to_image_r{k}": f"text to image R@{k}" for k in (1, 5, 10)},
}


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One model's score of one metric under one protocol, a rate in [0, 1] with its 95 % interval on `n` samples.

    `fidelity` is the mean cosine to the float model, None where it is not known; `benched_as` the name of the bundle
    in whose bench the model is a contender.
    """

    facts: ModelFacts
    engine: str
    fidelity: float | None
    benched_as: str
    score: Interval
    n: int

    @property
    def label(self) -> str:
        """Return what to call the model in a chart."""
        return model_label(self.facts, self.engine)


@dataclass(frozen=True, kw_only=True)
class Group:
    """All scores of one metric that may be compared: they have one protocol, written as its `signature`."""

    task: str
    metric: str
    data_name: str
    signature: str
    scores: tuple[Scored, ...]

    @property
    def title(self) -> str:
        """Return such as "zero-shot top-1 on cifar10"."""
        return f"{self.task} {metric_name(self.metric)} on {self.data_name}"


def unit_of(metrics: Iterable[str]) -> str:
    """Return what scores times 100 are in: "%" of rates, "x 100" where a score of texts is among them."""
    return "x 100" if set(metrics) & set(TEXT_METRICS) else "%"


def metric_name(metric: str) -> str:
    """Return a metric's name for people."""
    return METRIC_NAMES.get(metric, metric.replace("_", " "))


def model_label(facts: ModelFacts, engine: str) -> str:
    """Return such as "clip static-int8 W8A8 (openvino)"."""
    return f"{facts.name}, {facts.precision} ({engine})"


def group_scores(runs: Sequence[Run]) -> list[Group]:
    """Sort every metric of every run by protocol; a float model that several runs share is there once."""
    found: dict[tuple[str, str], list[Scored]] = {}
    heads: dict[tuple[str, str], tuple[str, str]] = {}
    for run in runs:
        sides = [(run.model, run.results, False)]
        if run.reference is not None:
            sides.append((run.reference, run.reference_results, True))
        for facts, results, is_reference in sides:
            for task, result in results.items():
                for metric, outcomes in result.outcomes.items():
                    key = (str(result.protocol), metric)
                    heads.setdefault(key, (task, run.data_name))
                    scored = Scored(
                        facts=facts,
                        engine=result.subject.get("engine", "unknown engine"),
                        fidelity=1.0 if is_reference else _fidelity(run),
                        benched_as=run.model.name,
                        score=interval_of(outcomes),
                        n=len(outcomes.ids),
                    )
                    if not (is_reference and any(_same_model(scored, other) for other in found.get(key, []))):
                        found.setdefault(key, []).append(scored)
    return [
        Group(task=heads[key][0], metric=key[1], data_name=heads[key][1], signature=key[0], scores=tuple(scores))
        for key, scores in found.items()
    ]


def _fidelity(run: Run) -> float | None:
    return None if run.fidelity is None else float(run.fidelity["measures"]["image_cosine"]["mean"]["estimate"])


def interval_of(outcomes: Outcomes) -> Interval:
    """Return a score with its 95 % bootstrap interval over pictures."""
    _, clusters = np.unique(np.asarray(outcomes.clusters), return_inverse=True)
    return bootstrap_mean(outcomes.values, clusters.astype(np.int64))


def differences_figure(rows: Sequence[tuple[str, Change]]) -> Figure:
    """Draw each difference with its 95 % interval, in percentage points; rows are a label and a comparison.

    A dashed line is the largest drop that was allowed, where there is one for all. Raises ValueError without a row.
    """
    if not rows:
        raise ValueError("expected at least one comparison to draw")
    figure = Figure(figsize=(11, 1.3 + 0.5 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows), dtype=np.float64)
    axes.axvline(0, color=QUIET, linewidth=1)
    for place, (_, found) in zip(places, rows, strict=True):
        low, high = PER_CENT * found.difference.low, PER_CENT * found.difference.high
        axes.plot([low, high], [place, place], color=BEFORE, linewidth=5, solid_capstyle="butt")
        axes.plot(PER_CENT * found.difference.estimate, place, "o", color=AFTER, markersize=6)
    limits = {found.max_drop for _, found in rows}
    limit = next(iter(limits)) if len(limits) == 1 else None
    if limit is not None:
        axes.axvline(-PER_CENT * limit, color=LINE, linewidth=1.3, linestyle="--", label="largest drop allowed")
        figure.legend(loc="outside upper right", frameon=False, fontsize=9)
    axes.set_yticks(places, [f"{label}\nn = {found.samples:,}" for label, found in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("difference to the float model (percentage points); bars show 95 % paired intervals")
    plain(axes)
    return figure


def bits_figure(groups: Sequence[Group]) -> Figure:
    """Draw scores against the bits of the weights, one panel per group, one line per method, each from the float model.

    Only models whose towers have the same bits are drawn; `has_bit_sweep` tells whether there are enough of them.
    """
    figure = Figure(figsize=(11, 4.2 * -(-len(groups) // 2)), layout="constrained")
    panels = figure.subplots(-(-len(groups) // 2), 2 if len(groups) > 1 else 1, squeeze=False).ravel()
    for axes, group in zip(panels, groups, strict=False):
        _bits_panel(axes, group)
    for axes in panels[len(groups) :]:
        axes.set_visible(False)
    return figure


def _bits_panel(axes: Axes, group: Group) -> None:
    uniform = [(scored, bits) for scored in group.scores if (bits := _uniform_bits(scored.facts)) is not None]
    floats = [(FLOAT_BITS, scored.score) for scored, bits in uniform if bits == (FLOAT_BITS, FLOAT_BITS)][:1]
    lines: dict[str, list[tuple[int, Interval]]] = {}
    for scored, bits in uniform:
        if bits != (FLOAT_BITS, FLOAT_BITS):
            lines.setdefault(scored.facts.method, []).append((bits[0], scored.score))
    ticks = sorted({bits for line in lines.values() for bits, _ in line} | {bits for bits, _ in floats})
    for method, points in sorted(lines.items()):
        line = sorted(points, key=lambda point: point[0]) + floats
        estimates = np.array([PER_CENT * score.estimate for _, score in line])
        below = estimates - [PER_CENT * score.low for _, score in line]
        above = [PER_CENT * score.high for _, score in line] - estimates
        places = [ticks.index(bits) for bits, _ in line]
        axes.errorbar(places, estimates, yerr=[below, above], marker="o", capsize=3, linewidth=1.4, label=method)
    axes.set_xticks(range(len(ticks)), ["float" if bits == FLOAT_BITS else str(bits) for bits in ticks])
    axes.set_xlabel("bits of the weights")
    axes.set_ylabel(f"score ({unit_of([group.metric])}), 95 % intervals")
    counts = sorted({scored.n for scored in group.scores})
    axes.set_title(f"{group.title}, n = {', '.join(f'{n:,}' for n in counts)}", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    plain(axes)


def has_bit_sweep(group: Group) -> bool:
    """Return whether the group has models of at least two different bits, float apart."""
    found = {_uniform_bits(scored.facts) for scored in group.scores} - {None, (FLOAT_BITS, FLOAT_BITS)}
    return len(found) > 1


def bits_matrix(group: Group) -> Matrix | None:
    """Return scores (%) over the weight bits of both towers; None unless some model has towers of different bits.

    Only a dual encoder has an image and a text tower.

    Where several models have the same bits, the best counts.
    """
    cells: dict[tuple[int, int], float] = {}
    if any({"image", "text"} - set(scored.facts.bits) for scored in group.scores):
        return None
    for scored in group.scores:
        pair = (scored.facts.bits["image"][0], scored.facts.bits["text"][0])
        cells[pair] = max(cells.get(pair, 0.0), PER_CENT * scored.score.estimate)
    images, texts = sorted({image for image, _ in cells}), sorted({text for _, text in cells})
    if all(image == text for image, text in cells):
        return None
    values = np.array([[cells.get((image, text), np.nan) for text in texts] for image in images])
    name = {FLOAT_BITS: "float"}
    return Matrix(
        title=group.title,
        values=values,
        rows=tuple(name.get(bits, f"{bits} bits") for bits in images),
        columns=tuple(name.get(bits, f"{bits} bits") for bits in texts),
    )


def _uniform_bits(facts: ModelFacts) -> tuple[int, int] | None:
    found = set(facts.bits.values())
    return next(iter(found)) if len(found) == 1 else None


def _same_model(one: Scored, other: Scored) -> bool:
    return (one.facts, one.engine, one.score.estimate) == (other.facts, other.engine, other.score.estimate)
