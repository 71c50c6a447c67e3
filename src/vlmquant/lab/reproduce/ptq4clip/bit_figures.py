"""The figures of `ptq4clip`: scores, differences to FP32 and cosines by bit-width, in rows and charts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from vlmquant.lab.reproduce.outcome import Chart, Row
from vlmquant.lab.reproduce.ptq4clip.bit_forms import FLOAT, FLOAT_BITS, OURS, OURS_METHOD, TWIN, VANILLA, Form
from vlmquant.lab.reproduce.ptq4clip.clip_tasks import BARE, CAPTIONS, PROMPTED, QUESTIONS, RETRIEVAL
from vlmquant.metrics.intervals import Interval, bootstrap_mean, paired_mean

PERCENT = 100
BINS = 40
SMALLEST_DISTANCE = 1e-8
"""Smaller ones are rounding of float32."""
OWN_ROW_BITS = (8, 6, 4)
"""Other bit-widths share one row a method; all are in the charts."""

Outcome: TypeAlias = Mapping[str, Mapping[str, Any]]
"""What one form gave on one task: by metric the values of all samples and the picture that each belongs to."""
Outcomes: TypeAlias = Mapping[str, Mapping[str, Outcome]]
"""By task and by the name of the form."""
Cosines: TypeAlias = Mapping[str, Mapping[str, Sequence[float]]]
"""Each picture's cosine to its FP32 embedding, by data set and by the name of the form."""


@dataclass(frozen=True, kw_only=True)
class PrintedScore:
    """One score of the source: `figures` by the name of the form, `drop` from 32 to 8 bits of vanilla, in words.

    `brief` scores have one row for FP32 and one for each method at 8 bits.
    """

    title: str
    task: str
    metric: str
    figures: Mapping[str, str] = field(default_factory=dict)
    drop: str = ""
    remarks: Mapping[str, str] = field(default_factory=dict)
    brief: bool = False


W8, TWIN_W8 = "vanilla-w8a8", "twin-hessian-w8a8"
SCORES = (
    PrintedScore(title="Classification without prompts, top-1 %", task=BARE, metric="top1"),
    PrintedScore(
        title="Classification with prompts, top-1 %",
        task=PROMPTED,
        metric="top1",
        figures={
            FLOAT.name: "55.92",
            W8: "41.24",
            "vanilla-w4a4": "0.11",
            TWIN_W8: "51.13",
            "twin-hessian-w6a6": "42.23",
            "twin-hessian-w4a4": "5.39",
        },
        drop="11 points",
        remarks={
            FLOAT.name: "which of its two prompt settings the printed figures are of is not printed",
            W8: "41.24 is 14.68 points below 55.92 and not 11: the source's table and its text differ",
        },
    ),
    PrintedScore(
        title="Captions steered by CLIP, CIDEr x 100",
        task=CAPTIONS,
        metric="CIDEr",
        figures={FLOAT.name: "36.1", TWIN_W8: "32.5"},
        drop="2 points",
        remarks={TWIN_W8: "the printed drop of 3.6 is of 100 pictures and has no interval; ours has"},
    ),
    PrintedScore(
        title="Image to text, R@1 %",
        task=RETRIEVAL,
        metric="image_to_text_r1",
        figures={TWIN_W8: "45.72", "vanilla-w4a4": "0"},
        drop="3 points",
    ),
    PrintedScore(title="Image to text, R@5 %", task=RETRIEVAL, metric="image_to_text_r5", brief=True),
    PrintedScore(title="Image to text, R@10 %", task=RETRIEVAL, metric="image_to_text_r10", brief=True),
    PrintedScore(
        title="Text to image, R@1 %",
        task=RETRIEVAL,
        metric="text_to_image_r1",
        figures={TWIN_W8: "26.74", "vanilla-w4a4": "0"},
        drop="1 point",
    ),
    PrintedScore(title="Text to image, R@5 %", task=RETRIEVAL, metric="text_to_image_r5", brief=True),
    PrintedScore(title="Text to image, R@10 %", task=RETRIEVAL, metric="text_to_image_r10", brief=True),
    PrintedScore(
        title="Questions, VQA accuracy %",
        task=QUESTIONS,
        metric="vqa_accuracy",
        figures={FLOAT.name: "65 to 70"},
        drop="4 points",
    ),
)


def rows(forms: Sequence[Form], outcomes: Outcomes, cosines: Cosines, titles: Mapping[str, str]) -> tuple[Row, ...]:
    """Return every figure of the source with ours beside it; `titles` are those of the data sets."""
    found = [row for score in SCORES if score.task in outcomes for row in _rows(score, forms, outcomes[score.task])]
    for name, by_form in cosines.items():
        found += _cosine_rows(f"Mean cosine to FP32, pictures of {titles[name]}", forms, by_form)
    return tuple(found)


def charts(forms: Sequence[Form], outcomes: Outcomes, cosines: Cosines, titles: Mapping[str, str]) -> tuple[Chart, ...]:
    """Return each score by bit-width, and the distributions of cosines."""
    scores = [
        Chart(
            title=f"{score.title}, by bits",
            x_label="bits of weights and activations",
            x_scale="log",
            y_label=score.title.rsplit(", ", 1)[1],
            lines=_by_bits(forms, {name: _score(outcome, score) for name, outcome in outcomes[score.task].items()}),
            n=len(outcomes[score.task][FLOAT.name][score.metric]["values"]),
        )
        for score in SCORES
        if score.task in outcomes and not score.brief
    ]
    shares = [
        Chart(
            title=f"Cosine to the FP32 embedding, {method}, {titles[name]}",
            x_label="log10 of 1 - cosine: -4 is a cosine of 0.9999, -1 one of 0.9",
            y_label="share of pictures",
            lines=lines,
            n=len(by_form[FLOAT.name]),
        )
        for name, by_form in cosines.items()
        for method in (VANILLA, TWIN)
        if (lines := _histograms(forms, by_form, method))
    ]
    return (*scores, *shares)


def difference(outcome: Outcome, reference: Outcome, metric: str) -> Interval:
    """Return a score minus FP32's, with the 95 % interval of the paired difference over pictures."""
    values, floats = (np.array(each[metric]["values"], dtype=np.float64) for each in (outcome, reference))
    clusters = np.array(reference[metric]["clusters"], dtype=np.int64)
    # A picture's CIDEr can change by more than 1, which an interval of rates cannot.
    return (bootstrap_mean if metric == "CIDEr" else paired_mean)(values - floats, clusters)


def _rows(score: PrintedScore, forms: Sequence[Form], outcomes: Mapping[str, Outcome]) -> list[Row]:
    scored = [form for form in forms if form.name in outcomes]
    static = _cell(outcomes[OURS.name], outcomes[FLOAT.name], score)
    found = [_row(score, FLOAT.name, _number(_score(outcomes[FLOAT.name], score)))]
    for method in (VANILLA, TWIN):
        of_method = [form for form in scored if form.method == method]
        for form in of_method:
            if form.bits in ((8,) if score.brief else OWN_ROW_BITS):
                cell = _cell(outcomes[form.name], outcomes[FLOAT.name], score)
                found.append(_row(score, form.name, cell, static if form.bits == OURS.bits else ""))
        others = [form for form in of_method if form.bits not in OWN_ROW_BITS]
        if others and not score.brief:
            bits = " / ".join(str(form.bits) for form in others)
            numbers = " / ".join(_number(_score(outcomes[form.name], score)) for form in others)
            what = f"{score.title}: {method} at {bits} bits"
            found.append(Row(what=what, group=score.task.capitalize(), its_method=numbers))
    return found


def _row(score: PrintedScore, form: str, its_method: str, ours: str = "") -> Row:
    drop = f"drop of {score.drop}" if score.drop and form == W8 else ""
    return Row(
        what=f"{score.title}: {form}",
        group=score.task.capitalize(),
        printed="; ".join(part for part in (score.figures.get(form, ""), drop) if part),
        its_method=its_method,
        ours=ours,
        remark=score.remarks.get(form, ""),
    )


def _cosine_rows(what: str, forms: Sequence[Form], by_form: Mapping[str, Sequence[float]]) -> list[Row]:
    found = []
    for method in (VANILLA, TWIN):
        scored = [form for form in forms if form.method == method and form.name in by_form]
        if not scored:
            continue
        bits = " / ".join(str(form.bits) for form in scored)
        found.append(
            Row(
                what=f"{what}: {method} at {bits} bits",
                group="Cosines to FP32",
                printed="figure",
                its_method=" / ".join(f"{np.mean(by_form[form.name]):.4f}" for form in scored),
                ours=f"{np.mean(by_form[OURS.name]):.4f}" if method == VANILLA and OURS.name in by_form else "",
            )
        )
    return found


def _score(outcome: Outcome, score: PrintedScore) -> float:
    return PERCENT * float(np.mean(outcome[score.metric]["values"]))


def _cell(outcome: Outcome, reference: Outcome, score: PrintedScore) -> str:
    found = difference(outcome, reference, score.metric)
    low, high = PERCENT * found.low, PERCENT * found.high
    return f"{_number(_score(outcome, score))}, {PERCENT * found.estimate:+.1f} [{low:+.1f}, {high:+.1f}]"


def _number(value: float) -> str:
    return f"{value:.1f}"


def _by_bits(forms: Sequence[Form], scores: Mapping[str, float]) -> dict[str, tuple[list[float], list[float]]]:
    """Return a line for each method, from FP32 down, and on top of them the point of static-int8."""
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for form in sorted(forms, key=lambda form: form.method == OURS_METHOD):
        if form.name in scores and form.method != FLOAT.method:
            start = ([], []) if form.method == OURS_METHOD else ([float(FLOAT_BITS)], [scores[FLOAT.name]])
            bits, values = lines.setdefault(form.method, start)
            bits.append(form.bits)
            values.append(scores[form.name])
    return lines


def _histograms(
    forms: Sequence[Form], by_form: Mapping[str, Sequence[float]], method: str
) -> dict[str, tuple[list[float], list[float]]]:
    """Return the share of pictures in each of `BINS` ranges of cosines, by bit-width, at the ranges' middles.

    The ranges are equal in the logarithm of 1 - cosine: equal in the cosine all widths from 6 bits on share the last.
    """
    shown = [form for form in forms if form.method == method and form.name in by_form]
    if not shown:
        return {}
    distances = {form: np.log10(np.maximum(1 - np.array(by_form[form.name]), SMALLEST_DISTANCE)) for form in shown}
    lowest, highest = (float(pick(np.concatenate(list(distances.values())))) for pick in (np.min, np.max))
    edges = np.linspace(lowest, max(highest, lowest + 1), BINS + 1)
    middles = ((edges[:-1] + edges[1:]) / 2).tolist()
    return {
        f"{form.bits} bits": (
            middles,
            (np.histogram(found, edges)[0] / len(found)).tolist(),
        )
        for form, found in distances.items()
    }
