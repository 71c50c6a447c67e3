"""`vlmquant evaluate` and `vlmquant selfcheck`."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmquant.cli import show
from vlmquant.cli.groups import data_choice, generation, made_of, runs_on
from vlmquant.cli.options import Json
from vlmquant.data.choice import DataChoice
from vlmquant.errors import DataError, ExitCode
from vlmquant.files import cache_folder
from vlmquant.models.generate import GenerationOptions
from vlmquant.opening import RunsOn
from vlmquant.tasks.catalogue import TASKS, tasks_in_words

if TYPE_CHECKING:
    from vlmquant.tasks.compare import Change, Comparison
    from vlmquant.tasks.evaluate import Evaluation
    from vlmquant.tasks.fidelity import FidelityResult
    from vlmquant.tasks.result import TaskResult

FLIP_COLUMNS = ("McNemar p", "lost/won/other", "detectable")
EXIT_CODES = {
    None: ExitCode.OK,
    "within": ExitCode.OK,
    "beyond": ExitCode.BEYOND,
    "undecided": ExitCode.UNDECIDED,
}
"""By verdict."""


@made_of(data=data_choice, where=runs_on, options=generation)
def evaluate(
    model: Annotated[str, typer.Argument(help="A bundle folder, checkpoint folder or hub id.")],
    *,
    data: DataChoice,
    against: Annotated[
        str | None, typer.Option(help="The float model to compare with: a checkpoint, hub id or bundle.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            help=f"{tasks_in_words()}. May be repeated; otherwise all that the model and the data allow, "
            "but for the linear probe.",
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(help="Largest acceptable drop in hundredths (percentage points); asks for a verdict."),
    ] = None,
    templates: Annotated[
        str, typer.Option(help="Prompts of zero-shot: none, one, openai-7, cifar-18 or openai-80.")
    ] = "openai-7",
    where: RunsOn,
    options: GenerationOptions,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder for all results; `vlmquant report` reads it.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of what was computed; the user's cache otherwise.")] = None,
    json_output: Json = False,
) -> None:
    """Score a model on data and compare it, sample by sample, with its float original.

    Exit code: 0 the drop is within --max-drop (or none was named), 1 a crash (no verdict), 2 a user's error, 3 the two
    results cannot be compared, 4 these samples cannot tell, 6 the drop is beyond --max-drop.
    """
    from vlmquant.output import OutputFolder
    from vlmquant.tasks.evaluate import VERB
    from vlmquant.tasks.evaluate import evaluate as run
    from vlmquant.tasks.runs import run_files, save_run

    if max_drop is not None and against is None:
        raise DataError(f"--max-drop {max_drop:g} is a drop from a reference; add --against FLOAT_MODEL")
    if output is not None:
        OutputFolder(output, VERB).check(run_files(task or TASKS), [Path(data.source)])
    evaluation = run(
        model,
        data,
        cache=cache_folder("evaluations") if cache is None else cache,
        reference=against,
        tasks=task,
        templates=templates,
        max_drop_points=max_drop,
        runs_on=where,
        options=options,
        track=show.tracker(json_output),
    )
    if output is not None:
        save_run(output, evaluation)
    if json_output:
        show.as_json(evaluation.to_dict())
    else:
        print_evaluation(evaluation)
        if output is not None:
            show.line(f"run saved in {output}; `vlmquant report {output} -o report.html` makes a page of it")
    if code := EXIT_CODES[evaluation.verdict]:
        raise typer.Exit(code)


def print_engine_warnings(results: "Iterable[TaskResult]") -> None:
    """Say once of each model that does not run as it should, and why."""
    for warning in dict.fromkeys(result.subject.get("engine_warning") for result in results):
        if warning:
            show.line(f"warning: {warning}")


def print_evaluation(evaluation: "Evaluation") -> None:
    """Print the scores, the comparison of every score, the fidelity and the verdict."""
    from vlmquant.data.sets import summarize

    data = evaluation.data
    if data.problems:
        show.line(f"left out {len(data.problems)} entries of {data.name}: {summarize(data.problems)}")
    for task, result in evaluation.results.items():
        if task in evaluation.comparisons:
            names = f"{result.model} against {evaluation.reference_results[task].model}"
            _print_changes(f"{task} on {data.name}: {names}", evaluation.comparisons[task])
        else:
            counts = {name: len(outcome.ids) for name, outcome in result.outcomes.items()}
            rows = [
                (name, f"{100 * value:.2f}", counts.get(name, result.protocol.samples))
                for name, value in result.all_scores.items()
            ]
            show.table(f"{task} on {data.name}: {result.model}", ("metric", "score x 100", "samples"), rows)
        show.line(f"protocol: {result.protocol}")
    for task, reason in evaluation.skipped.items():
        show.line(f"not run: {task}, {reason}")
    print_engine_warnings(evaluation.results.values())
    if evaluation.fidelity is not None:
        _print_fidelity(evaluation.fidelity)
    if evaluation.verdict is not None:
        show.line(f"verdict: {evaluation.verdict}")


def _print_changes(title: str, changes: "Sequence[Change]") -> None:
    """Print what changed; a score that is not a mean over samples has no flips, and its share of the score instead."""
    from vlmquant.tasks.compare import Comparison

    comparisons = [found for found in changes if isinstance(found, Comparison)]
    columns: tuple[str, ...] = FLIP_COLUMNS if comparisons else ("relative",)
    middle = [_flips(found) if isinstance(found, Comparison) else (_relative(found),) for found in changes]
    rows: list[tuple[str | int, ...]] = [
        (*_scores(found), *cells, found.samples, str(found.verdict or "-"))
        for found, cells in zip(changes, middle, strict=True)
    ]
    names = ("metric", "before x 100", "after x 100", "points", "95 % interval", *columns, "n", "verdict")
    show.table(title, names, rows)
    if comparisons:
        show.line(
            "lost/won/other: right before and wrong after / wrong and right / another wrong answer; "
            "detectable: the smallest drop, in points, that these samples would have shown (80 % power)"
        )


def _scores(found: "Change") -> tuple[str, ...]:
    return (
        found.metric,
        f"{100 * found.reference:.2f}",
        f"{100 * found.candidate:.2f}",
        f"{100 * found.difference.estimate:+.2f}",
        f"{100 * found.difference.low:+.2f} to {100 * found.difference.high:+.2f}",
    )


def _flips(found: "Comparison") -> tuple[str, ...]:
    """Return the cells of `FLIP_COLUMNS`."""
    return (
        f"{found.p_value:.3g}",
        f"{len(found.flips.losses)} / {len(found.flips.gains)} / {len(found.flips.changed_wrong)}",
        f"{100 * found.smallest_detectable_drop:.2f}",
    )


def _relative(found: "Change") -> str:
    return f"{100 * found.relative:+.2f} %"


def _print_fidelity(fidelity: "FidelityResult") -> None:
    rows = [
        (
            name,
            f"{measure.mean.estimate:.5f}",
            f"{measure.mean.low:.5f} to {measure.mean.high:.5f}",
            f"{measure.median:.5f}",
            f"{measure.percentile_1:.5f}",
            f"{measure.worst:.5f}",
        )
        for name, measure in fidelity.measures().items()
    ]
    columns = ("measure", "mean", "95 % interval", "median", "worst 1 %", "worst")
    show.table(f"fidelity, n = {len(fidelity.ids)}: {fidelity.candidate} to {fidelity.reference}", columns, rows)
    name, value = fidelity.worst()[0]
    show.line(f"farthest off: {name} (cosine {value:.5f})")


def selfcheck(json_output: Json = False) -> None:
    """Recompute every score whose value is known, offline; exit code 6 when one is off."""
    from vlmquant.selfcheck import run_selfcheck

    report = run_selfcheck(show.tracker(json_output))
    if json_output:
        show.as_json({"ok": report.ok, "checks": [dataclasses.asdict(check) for check in report.checks]})
    else:
        rows = [("ok" if check.ok else "WRONG", check.name, check.measured, check.expected) for check in report.checks]
        show.table("Self-check", ("", "score", "measured", "expected"), rows)
        show.line(f"{len(report.checks) - len(report.failed)} of {len(report.checks)} checks passed")
    if not report.ok:
        raise typer.Exit(ExitCode.BEYOND)
