"""The tables of a sweep, and its points in the form that the charts of an evaluation take."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vlmquant.lab.sweep.plan import FLOAT
from vlmquant.lab.sweep.point import Point, Score
from vlmquant.lab.sweep.run import Sweep
from vlmquant.opening.facts import ModelFacts, bits_name
from vlmquant.report.evaluation_tables import NOT_MEASURED, NOTHING, points
from vlmquant.report.page import Table
from vlmquant.report.pareto import MIB, Candidate, best
from vlmquant.report.scores import HEADLINES, Group, Scored, metric_name
from vlmquant.text import csv_table

PLACES = ("image", "text", "both")
CSV_COLUMNS = (
    "image",
    "text",
    "place",
    "image_weight_bits",
    "image_activation_bits",
    "text_weight_bits",
    "text_activation_bits",
    "image_runs_on",
    "text_runs_on",
    "bytes_on_disk",
    "image_latency_ms",
    "text_latency_ms",
    "image_cosine",
    "text_cosine",
    "rank_agreement",
    "task",
    "metric",
    "samples",
    "score",
    "score_low",
    "score_high",
    "difference",
    "difference_low",
    "difference_high",
    "p_value",
    "losses",
    "gains",
    "agreement",
    "why_simulated",
)
COLUMNS = ("recipe", "towers", "bits", "runs on", "MiB", "image ms", "text ms", "score %", "points", "95 %", "cosine")


def headline_metrics(found: Sweep) -> tuple[str, ...]:
    """Return the metrics that get charts of their own; the first where none of the usual ones is there."""
    return tuple(name for name in found.metrics if name in HEADLINES) or found.metrics[:1]


def title_of(found: Sweep, metric: str) -> str:
    """Return such as "zero-shot top-1 on cifar10"."""
    return f"{found.points[0].scores[metric].task} {metric_name(metric)} on {found.data['name']}"


def point_rows(found: Sweep, metric: str) -> list[tuple[str, ...]]:
    """Return one row per point with the cells of `COLUMNS`."""
    return [
        (
            point.recipe,
            point.place,
            precision(point),
            ", ".join(dict.fromkeys(point.runs_on.values())),
            NOTHING if point.bytes_on_disk is None else f"{point.bytes_on_disk / MIB:.1f}",
            milliseconds(found.latency_ms(point, "image")),
            milliseconds(found.latency_ms(point, "text")),
            f"{100 * point.scores[metric].score.estimate:.2f}",
            *((NOTHING, NOTHING) if point.is_float else difference_cells(point.scores[metric])),
            f"{point.closeness:.5f}",
        )
        for point in found.points
    ]


def deployed(found: Sweep) -> list[Point]:
    """Return the points that run from files on an engine, the float model first; none where all are simulated."""
    return [point for point in found.points if point.bytes_on_disk is not None]


def candidates(found: Sweep, metric: str) -> list[Candidate]:
    """Return what each deployed point costs and scores."""
    return [
        Candidate(
            label=point.recipe if point.is_float else f"{point.recipe}, {point.place}",
            size_bytes=point.bytes_on_disk,
            latency_ms=found.latency_ms(point),
            score=point.scores[metric].score,
            fidelity=point.closeness,
            n=point.scores[metric].samples,
        )
        for point in deployed(found)
    ]


def front(found: Sweep, metric: str) -> list[Point]:
    """Return the deployed points that no other beats in size, latency, score and fidelity at once."""
    listed = deployed(found)
    return [point for point, kept in zip(listed, best(candidates(found, metric)), strict=True) if kept]


def deployed_table(found: Sweep, metric: str) -> Table:
    """One row per deployed point, numbered as in the Pareto plot; the front stands out."""
    listed, kept = deployed(found), front(found, metric)
    times = ("Image (ms)", "Text (ms)") if found.latencies else ()
    return Table(
        columns=(
            "Number",
            "Recipe",
            "Towers",
            "Runs on",
            "Size (MiB)",
            *times,
            f"{metric_name(metric)} (%)",
            "Points",
            "95 % interval",
            "Cosine to float",
        ),
        rows=[
            (
                str(number),
                point.recipe,
                NOTHING if point.is_float else point.place,
                ", ".join(dict.fromkeys(point.runs_on.values())),
                f"{point.bytes_on_disk / MIB:.1f}" if point.bytes_on_disk is not None else NOT_MEASURED,
                *(milliseconds(found.latency_ms(point, component)) for component in ("image", "text")[: len(times)]),
                f"{100 * point.scores[metric].score.estimate:.2f}",
                *((NOTHING, NOTHING) if point.is_float else difference_cells(point.scores[metric])),
                f"{point.closeness:.5f}",
            )
            for number, point in enumerate(listed, start=1)
        ],
        caption="Rows that stand out: no other is better in size, latency, score or cosine and no worse in the rest. "
        "Points: difference to float in percentage points, with the 95 % interval of the paired difference. "
        "Cosine: mean over the data, of the tower that moved more.",
        highlighted=frozenset(i for i, point in enumerate(listed) if point in kept),
    )


def tower_table(found: Sweep, metric: str) -> Table | None:
    """One row per recipe, one column per choice of towers; None where only one choice was tried."""
    by_recipe = _by_recipe(found.points)
    places = [place for place in PLACES if any(place in row for row in by_recipe.values())]
    if len(places) < 2:
        return None
    return Table(
        columns=("Recipe", "Bits", *(f"{place} tower{'s' * (place == 'both')}" for place in places)),
        rows=[
            (
                recipe,
                bits_name(next(bits for bits in next(iter(row.values())).bits.values() if bits_name(bits) != "float")),
                *(
                    NOTHING if place not in row else f"{change(row[place].scores[metric])}{_mark(row[place])}"
                    for place in places
                ),
            )
            for recipe, row in by_recipe.items()
        ],
        caption=f"Difference to float in percentage points of {title_of(found, metric)}, float "
        f"{100 * found.points[0].scores[metric].score.estimate:.2f} %, "
        f"n = {found.points[0].scores[metric].samples:,}; in brackets its paired 95 % interval. s: simulated.",
    )


def every_point_table(found: Sweep, metric: str) -> Table:
    """One row per point of the sweep."""
    names = ("Recipe", "Towers", "Bits", "Runs on", "MiB", "Image ms", "Text ms", "Score (%)", "Points")
    return Table(columns=(*names, "95 % interval", "Cosine to float"), rows=point_rows(found, metric))


def bits_group(found: Sweep, metric: str) -> Group:
    """Return the scores of methods that were tried at several widths, a line for each choice of towers."""
    chosen = [
        (point, _scored(point, metric, _one_sided(point)))
        for point in found.points
        if point.image == FLOAT or point.text in (FLOAT, point.image)
    ]
    widths: dict[str, set[int]] = {}
    for point, scored in chosen:
        widths.setdefault(scored.facts.method, set()).add(max(_quantized_bits(point)))
    kept = [scored for point, scored in chosen if point.is_float or len(widths[scored.facts.method]) > 1]
    return _group(found, metric, kept)


def grid_group(found: Sweep, metric: str) -> Group:
    """Return the scores of the vanilla widths, tower against tower, and of float."""
    names = {FLOAT, *found.plan.grid_names()}
    kept = [point for point in found.points if {point.image, point.text} <= names]
    return _group(found, metric, [_scored(point, metric, point.bits) for point in kept])


def to_csv(found: Sweep) -> str:
    """Return one row per point and metric; rates and differences are in [0, 1]."""
    rows = (_csv_row(found, point, metric) for point in found.points for metric in point.scores)
    return csv_table(CSV_COLUMNS, rows)


def milliseconds(value: float | None) -> str:
    """Write a latency; a dash for none."""
    return NOTHING if value is None else f"{value:.2f}"


def precision(point: Point) -> str:
    """Return such as "W8A8" or "W8A8 / float", image and text."""
    names = [bits_name(point.bits[component]) for component in ("image", "text")]
    return names[0] if names[0] == names[1] else " / ".join(names)


def difference_cells(score: Score) -> tuple[str, str]:
    """Return the difference to float and its interval, in points."""
    found = score.difference
    return points(found.estimate), f"{points(found.low)} to {points(found.high)}"


def change(score: Score) -> str:
    """Return the difference to float with its interval in brackets, in points."""
    found = score.difference
    return f"{points(found.estimate)} [{points(found.low)}, {points(found.high)}]"


def _mark(point: Point) -> str:
    return " s" if point.why_simulated else ""


def _by_recipe(listed: Sequence[Point]) -> dict[str, dict[str, Point]]:
    found: dict[str, dict[str, Point]] = {}
    for point in listed:
        if not point.is_float and (point.place != "both" or point.image == point.text):
            found.setdefault(point.recipe, {})[point.place] = point
    return found


def _one_sided(point: Point) -> dict[str, tuple[int, int]]:
    """Return the bits of the towers that are quantized alone, so that a chart over bits draws them all."""
    quantized = {"both": ("image", "text"), "none": ("image", "text")}.get(point.place, (point.place,))
    return {component: point.bits[component] for component in quantized}


def _quantized_bits(point: Point) -> list[int]:
    return [weights for weights, _ in _one_sided(point).values()]


def _scored(point: Point, metric: str, bits: dict[str, tuple[int, int]] | Any) -> Scored:
    recipe = "float" if point.is_float else f"{point.place}: {point.recipe}"
    facts = ModelFacts(name=point.recipe, bytes_on_disk=point.bytes_on_disk or 0, bits=bits, recipe=recipe)
    engine = ", ".join(dict.fromkeys(point.runs_on.values()))
    score = point.scores[metric]
    return Scored(
        facts=facts, engine=engine, fidelity=point.closeness, benched_as="", score=score.score, n=score.samples
    )


def _group(found: Sweep, metric: str, scores: Sequence[Scored]) -> Group:
    task = found.points[0].scores[metric].task
    return Group(
        task=task,
        metric=metric_name(metric),
        data_name=str(found.data["name"]),
        signature=found.protocols[task],
        scores=tuple(scores),
    )


def _csv_row(found: Sweep, point: Point, metric: str) -> dict[str, Any]:
    score = point.scores[metric]
    row: dict[str, Any] = {
        "image": point.image,
        "text": point.text,
        "place": point.place,
        "bytes_on_disk": point.bytes_on_disk,
        "image_cosine": point.fidelity["image_cosine"],
        "text_cosine": point.fidelity["text_cosine"],
        "rank_agreement": point.fidelity.get("rank_agreement"),
        "task": score.task,
        "metric": metric,
        "samples": score.samples,
        "score": score.score.estimate,
        "score_low": score.score.low,
        "score_high": score.score.high,
        "difference": score.difference.estimate,
        "difference_low": score.difference.low,
        "difference_high": score.difference.high,
        "p_value": score.p_value,
        "losses": score.losses,
        "gains": score.gains,
        "agreement": score.agreement,
        "why_simulated": point.why_simulated,
    }
    for component in ("image", "text"):
        row[f"{component}_weight_bits"], row[f"{component}_activation_bits"] = point.bits[component]
        row[f"{component}_runs_on"] = point.runs_on[component]
        row[f"{component}_latency_ms"] = found.latency_ms(point, component)
    return row


def smallest_within(found: Sweep, metric: str, limit_points: float) -> Point | None:
    """Return the smallest deployed point whose score dropped at most so many points; None where there is none."""
    within = [
        point
        for point in deployed(found)
        if not point.is_float and 100 * point.scores[metric].difference.estimate >= -limit_points
    ]
    sizes = np.array([point.bytes_on_disk for point in within], dtype=np.float64)
    return within[int(sizes.argmin())] if within else None
