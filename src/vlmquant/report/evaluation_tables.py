"""The tables of an evaluation report, and how its numbers are written."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from vlmquant.report.page import Block, Details, Facts, Table
from vlmquant.report.pareto import Candidate, best
from vlmquant.report.scores import Group, metric_name, unit_of
from vlmquant.tasks.compare import Change, Comparison, Verdict
from vlmquant.tasks.runs import Run

MINUS = "\u2212"
NOTHING, NOT_MEASURED = "\u2013", "not measured"
FLIP_COLUMNS = ("McNemar p", "Lost", "Won", "Other wrong", "Detectable (points)")
"""What only a metric that is a mean over samples has."""


def comparison_table(compared: Sequence[tuple[Run, str, Change]]) -> Table:
    """One row per run and metric; those beyond the allowed drop stand out."""
    caption = (
        "Lost: right before, wrong after. Won: the other way round. Detectable: the smallest drop that "
        "these samples would have shown with 80 % power. McNemar's test takes the captions of a picture "
        "for independent."
    )
    if not any(isinstance(found, Comparison) for _, _, found in compared):
        caption = (
            "The interval is of the difference, by a bootstrap over pictures. Equal captions: the share of pictures "
            "with the very same text."
        )
    unit = unit_of(found.metric for _, _, found in compared)
    return drop_constant_columns(
        Table(
            columns=(
                "Metric",
                "Data",
                "Model",
                f"Float ({unit})",
                f"Quantized ({unit})",
                "Difference (points)",
                "95 % interval",
                *FLIP_COLUMNS,
                "n",
                "Verdict",
            ),
            rows=[
                (
                    f"{task} {metric_name(found.metric)}",
                    run.data_name,
                    run.model.name,
                    f"{100 * found.reference:.2f}",
                    f"{100 * found.candidate:.2f}",
                    points(found.difference.estimate),
                    f"{points(found.difference.low)} to {points(found.difference.high)}",
                    *_flip_cells(found),
                    f"{found.samples:,}",
                    found.verdict or NOTHING,
                )
                for run, task, found in compared
            ],
            caption=caption,
            highlighted=frozenset(i for i, (_, _, found) in enumerate(compared) if found.verdict is Verdict.BEYOND),
        ),
        ("Data", "Model"),
    )


def _flip_cells(found: Change) -> tuple[str, ...]:
    """Return the cells of `FLIP_COLUMNS`; a score of a whole corpus has none of them."""
    if not isinstance(found, Comparison):
        return (NOTHING,) * len(FLIP_COLUMNS)
    return (
        f"{found.p_value:.3g}",
        f"{len(found.flips.losses):,}",
        f"{len(found.flips.gains):,}",
        f"{len(found.flips.changed_wrong):,}",
        f"{100 * found.smallest_detectable_drop:.2f}",
    )


def corpus_table(runs: Sequence[Run]) -> Table | None:
    """Scores of a whole corpus, such as BLEU, which have no interval of their own; None where there are none."""
    rows = [
        (
            f"{task} {metric_name(metric)}",
            run.data_name,
            facts.name,
            f"{100 * score:.2f}",
            f"{result.protocol.samples:,}",
        )
        for run in runs
        for facts, results in ((run.model, run.results), (run.reference, run.reference_results))
        if facts is not None
        for task, result in results.items()
        for metric, score in result.all_scores.items()
        if metric not in result.outcomes
    ]
    if not rows:
        return None
    return Table(
        columns=("Score", "Data", "Model", "Score x 100", "n"),
        rows=rows,
        caption="Scores of all texts together.",
    )


def score_table(groups: Sequence[Group]) -> Table:
    """One row per model and metric, with the score's own interval."""
    return Table(
        columns=(
            "Metric",
            "Data",
            "Model",
            f"Score ({unit_of(group.metric for group in groups)})",
            "95 % interval",
            "n",
        ),
        rows=[
            (
                f"{group.task} {metric_name(group.metric)}",
                group.data_name,
                scored.label,
                f"{100 * scored.score.estimate:.2f}",
                f"{100 * scored.score.low:.2f} to {100 * scored.score.high:.2f}",
                f"{scored.n:,}",
            )
            for group in groups
            for scored in group.scores
        ],
        caption="Each interval is of one score alone; whether two models differ is in the table of differences.",
    )


def pareto_table(candidates: Sequence[Candidate], group: Group) -> Table:
    """One row per model; those on the front of everything that was measured for all stand out."""
    table = Table(
        columns=(
            "Number",
            "Model",
            "Size (MiB)",
            "Latency (ms)",
            f"{metric_name(group.metric)} ({unit_of([group.metric])})",
            "Cosine to float",
            "n",
        ),
        rows=[
            (
                str(number),
                found.label,
                f"{found.size_mib:.1f}",
                NOT_MEASURED if found.latency_ms is None else f"{found.latency_ms:.2f}",
                NOT_MEASURED if found.score is None else f"{100 * found.score.estimate:.2f}",
                NOT_MEASURED if found.fidelity is None else f"{found.fidelity:.5f}",
                f"{found.n:,}",
            )
            for number, found in enumerate(candidates, start=1)
        ],
        caption=f"{group.title}. Rows that stand out: no other model is better in one of the columns that all rows "
        "have and no worse in the others.",
        highlighted=frozenset(np.flatnonzero(best(candidates)).tolist()),
    )
    return drop_constant_columns(table, ("Latency (ms)",))


def measurement_blocks(runs: Sequence[Run]) -> list[Block]:
    """Models, protocols and machines."""
    blocks: list[Block] = []
    for run in runs:
        machine = run.environment
        rows = [("Data", f"{run.data_name}, {run.images:,} pictures, {len(run.problems)} left out")]
        for name, facts in (("Model", run.model), ("Compared with", run.reference)):
            if facts is not None:
                calibrated = f", calibrated on {facts.calibrated_on}" if facts.calibrated_on else ""
                size = f"{facts.bytes_on_disk:,} bytes on disk"
                rows.append((name, f"{facts.name}: {facts.precision}, {size}{calibrated}"))
        for task, result in run.results.items():
            engine = f"{result.subject.get('engine', 'unknown engine')} {result.subject.get('engine_version', '')}"
            rows.append((f"{task}: protocol", str(result.protocol)))
            rows.append((f"{task}: engine", engine.strip()))
            if "expected_calibration_error" in result.details:
                error = result.details["expected_calibration_error"]
                rows.append((f"{task}: expected calibration error", f"{error:.4f}, 15 bins"))
        packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items() if version)
        rows += [
            ("Machine", f"{machine.cpu_model}, {machine.cores} cores, {machine.memory_bytes / 2**30:.1f} GiB"),
            ("System", f"{machine.system}, Python {machine.python}"),
            ("Packages", packages),
            ("Time", machine.time_utc),
        ]
        blocks.append(Details(f"{run.model.name} on {run.data_name}", [Facts(rows)]))
    return blocks


def verdict_sentences(run: Run) -> list[str]:
    """Say which metrics dropped beyond what was allowed, and of which the samples cannot tell."""
    beyond, undecided = [], []
    limit = ""
    for task, compared in run.comparisons.items():
        for found in compared:
            name = f"{task} {metric_name(found.metric)}"
            if found.verdict is Verdict.BEYOND:
                beyond.append(f"{name} by {-100 * found.difference.estimate:.2f}")
            elif found.verdict is Verdict.UNDECIDED:
                undecided.append(f"{name} ({_why_undecided(found)})")
            if found.max_drop is not None:
                limit = f"{100 * found.max_drop:g} points"
    sentences = []
    if beyond:
        sentences.append(f"dropped beyond the {limit} allowed: {', '.join(beyond)}.")
    if undecided:
        sentences.append(f"these samples cannot tell whether a drop is within {limit}: {', '.join(undecided)}.")
    return sentences


def _why_undecided(found: Change) -> str:
    if isinstance(found, Comparison):
        return f"a drop of {100 * found.smallest_detectable_drop:.2f} would have shown"
    return f"95 % interval {points(found.difference.low)} to {points(found.difference.high)}"


def points(rate: float) -> str:
    """Write a difference of rates as signed percentage points: -0.001 -> minus 0.10 with a typographic minus sign."""
    return f"{100 * rate:+.2f}".replace("-", MINUS)


def drop_constant_columns(table: Table, names: Collection[str]) -> Table:
    """Return the table without those of the columns `names` that are the same in every row; the caption names it."""
    constant = {i for i, name in enumerate(table.columns) if name in names and len({row[i] for row in table.rows}) == 1}
    kept = [i for i in range(len(table.columns)) if i not in constant]
    said = "".join(f" {table.columns[i]}: {table.rows[0][i]}." for i in sorted(constant))
    return replace(
        table,
        columns=[table.columns[i] for i in kept],
        rows=[[row[i] for i in kept] for row in table.rows],
        caption=f"{table.caption}{said}".strip(),
    )
