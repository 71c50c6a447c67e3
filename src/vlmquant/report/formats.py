"""A report for programs and for version control: the same blocks as Markdown, all numbers as JSON and as CSV."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vlmquant.files import write_whole
from vlmquant.output import results
from vlmquant.report.page import (
    Block,
    Details,
    Facts,
    Gallery,
    Heading,
    KeyFigures,
    Links,
    Notice,
    Page,
    Picture,
    Table,
    Text,
    write_page,
)
from vlmquant.tasks.compare import Comparison
from vlmquant.tasks.result import TaskResult
from vlmquant.tasks.runs import Evidence, Run
from vlmquant.text import csv_table

VERB = "report"
SCHEMA = 1
COLUMNS = (
    "data",
    "task",
    "metric",
    "model",
    "precision",
    "engine",
    "bytes_on_disk",
    "samples",
    "score",
    "reference_model",
    "reference_score",
    "difference",
    "difference_low",
    "difference_high",
    "p_value",
    "lost",
    "won",
    "changed_wrong",
    "smallest_detectable_drop",
    "max_drop",
    "verdict",
    "protocol",
)


def write_report(path: Path, page: Page, evidence: Evidence) -> list[Path]:
    """Write the page to `path`, and beside it the same as .md, .json and .csv. Return all four paths."""
    texts = {
        ".md": to_markdown(page),
        ".json": json.dumps(to_dict(evidence), indent=1, ensure_ascii=False) + "\n",
        ".csv": to_csv(evidence.runs),
    }
    with results(path.parent, VERB, report_names(path)):
        write_page(path, page)
        return [path, *(write_whole(path.with_suffix(suffix), text) for suffix, text in texts.items())]


def report_names(path: Path) -> list[str]:
    """Return the names of all files that a report at `path` consists of."""
    return [path.name, *(path.with_suffix(suffix).name for suffix in (".md", ".json", ".csv"))]


def to_markdown(page: Page) -> str:
    """Return the page as Markdown; pictures are named in words."""
    lines = [f"# {page.title}", "", page.subtitle, ""]
    for block in page.blocks:
        lines += _markdown(block)
    if page.footer:
        lines += ["---", page.footer, ""]
    return "\n".join(lines)


def to_dict(evidence: Evidence) -> dict[str, Any]:
    """Return every number of the report as JSON-like values, without the outcomes of single samples."""
    return {
        "schema": SCHEMA,
        "scores": [row for run in evidence.runs for row in score_rows(run)],
        "runs": [
            {
                "data": run.data_name,
                "images": run.images,
                "problems": [list(problem) for problem in run.problems],
                "model": asdict(run.model),
                "reference": None if run.reference is None else asdict(run.reference),
                "environment": asdict(run.environment),
                "fidelity": None if run.fidelity is None else run.fidelity["measures"],
                "comparisons": {
                    task: [comparison.to_dict() for comparison in compared]
                    for task, compared in run.comparisons.items()
                },
                "details": {task: dict(result.details) for task, result in run.results.items()},
            }
            for run in evidence.runs
        ],
        "benches": [bench.to_dict() for bench in evidence.benches],
    }


def to_csv(runs: Sequence[Run]) -> str:
    """Return one row per run, task and metric; rates and differences are in [0, 1]."""
    return csv_table(COLUMNS, (row for run in runs for row in score_rows(run)))


def score_rows(run: Run) -> list[dict[str, Any]]:
    """Return one row, with the keys of `COLUMNS`, per task and metric; None where nothing was compared.

    A measure of closeness to the reference is a row too, of the task "fidelity", with its mean as the score.
    """
    scored = [
        _score_row(run, task, metric, result) for task, result in run.results.items() for metric in result.all_scores
    ]
    measures = {} if run.fidelity is None else run.fidelity["measures"]
    return scored + [_closeness_row(run, measure, found["mean"]["estimate"]) for measure, found in measures.items()]


def _closeness_row(run: Run, measure: str, mean: float) -> dict[str, Any]:
    return dict.fromkeys(COLUMNS) | {
        "data": run.data_name,
        "task": "fidelity",
        "metric": measure,
        "model": run.model.name,
        "precision": run.model.precision,
        "bytes_on_disk": run.model.bytes_on_disk,
        "samples": None if run.fidelity is None else run.fidelity["samples"],
        "score": mean,
        "reference_model": None if run.reference is None else run.reference.name,
    }


def _score_row(run: Run, task: str, metric: str, result: TaskResult) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {
        "data": run.data_name,
        "task": task,
        "metric": metric,
        "model": run.model.name,
        "precision": run.model.precision,
        "engine": result.subject.get("engine"),
        "bytes_on_disk": run.model.bytes_on_disk,
        "samples": len(result.outcomes[metric].ids) if metric in result.outcomes else result.protocol.samples,
        "score": result.all_scores[metric],
        "protocol": str(result.protocol),
    }
    for found in run.comparisons.get(task, ()):
        if found.metric == metric and run.reference is not None:
            row |= {
                "reference_model": run.reference.name,
                "reference_score": found.reference,
                "difference": found.difference.estimate,
                "difference_low": found.difference.low,
                "difference_high": found.difference.high,
                "max_drop": found.max_drop,
                "verdict": found.verdict,
            }
            if isinstance(found, Comparison):
                row |= {
                    "p_value": found.p_value,
                    "lost": len(found.flips.losses),
                    "won": len(found.flips.gains),
                    "changed_wrong": len(found.flips.changed_wrong),
                    "smallest_detectable_drop": found.smallest_detectable_drop,
                }
    return row


def _markdown(block: Block) -> list[str]:
    match block:
        case Heading():
            return [f"## {block.text}", ""]
        case Text():
            return [block.text, ""]
        case Notice():
            return [f"> **{block.title}**", *(f"> {line}" for line in block.lines), ""]
        case KeyFigures():
            return [*(f"- {one.label}: **{one.value}** {one.note}".rstrip() for one in block.figures), ""]
        case Table():
            rule = ["---:" if numeric else "---" for numeric in block.numeric]
            table = [_row(block.columns), _row(rule), *(_row(row) for row in block.rows), ""]
            return [*table, block.caption, ""] if block.caption else table
        case Facts():
            return [*(f"- {name}: {value}" for name, value in block.rows), ""]
        case Picture():
            return [f"*Picture, in the page: {block.alt}.*", *([block.caption] if block.caption else []), ""]
        case Gallery():
            return [*(f"- {one.title}: {'; '.join(one.lines)}" for one in block.thumbnails), ""]
        case Links():
            return [*(f"- [{words}]({address})" for words, address in block.addresses), ""]
        case Details():
            inner = [line for part in block.blocks for line in _markdown(part)]
            return [f"### {block.summary}", "", *inner]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
