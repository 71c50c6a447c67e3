"""`vlmquant evaluate` and `vlmquant selfcheck`."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmquant.cli import show
from vlmquant.cli.options import Json, Probe, Threads
from vlmquant.errors import DataError, ExitCode
from vlmquant.files import cache_folder

if TYPE_CHECKING:
    from vlmquant.tasks.compare import Comparison
    from vlmquant.tasks.evaluate import Evaluation
    from vlmquant.tasks.evaluate_blip import BlipEvaluation
    from vlmquant.tasks.fidelity import FidelityResult
    from vlmquant.tasks.result import TaskResult

FIDELITY = "fidelity"
EXIT_CODES = {
    None: ExitCode.OK,
    "within": ExitCode.OK,
    "beyond": ExitCode.BEYOND,
    "undecided": ExitCode.UNDECIDED,
}
"""By verdict."""


def evaluate(
    model: Annotated[str, typer.Argument(help="A bundle folder, checkpoint folder or hub id.")],
    data: Annotated[Path, typer.Option(help="Folder of a data set: classes, captions, or only pictures.")],
    against: Annotated[
        str | None, typer.Option(help="The float model to compare with: a checkpoint, hub id or bundle.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            help="zero-shot, linear-probe, retrieval or fidelity; may be repeated. All that apply otherwise. "
            "For a BLIP one of captioning, vqa and matching.",
        ),
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Largest acceptable drop in percentage points; asks for a verdict.")
    ] = None,
    templates: Annotated[
        str, typer.Option(help="Prompts of zero-shot: none, one, openai-7, cifar-18 or openai-80.")
    ] = "openai-7",
    split: Annotated[str, typer.Option(help="Which split, where the data have several.")] = "test",
    max_problem_share: Annotated[
        float, typer.Option(help="Share of unusable entries, 0 to 1, above which the data are refused.")
    ] = 0.01,
    engine: Annotated[
        str, typer.Option(help="auto, openvino or onnxruntime; for MODEL where it is a bundle.")
    ] = "auto",
    threads: Threads = None,
    probe: Probe = True,
    beams: Annotated[int, typer.Option(help="Width of a BLIP's beam search; 1 is greedy.")] = 1,
    max_tokens: Annotated[int, typer.Option(help="Longest text that a BLIP may write, in tokens.")] = 40,
    device: Annotated[str, typer.Option(help="Where a float BLIP runs: cpu, cuda (in float16) or auto.")] = "cpu",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder for all results; `vlmquant report` reads it.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of kept embeddings; the user's cache otherwise.")] = None,
    json_output: Json = False,
) -> None:
    """Score a model on data and compare it, sample by sample, with its float original.

    Exit code: 0 the drop is within --max-drop (or none was named), 1 a crash (no verdict), 2 a user's error, 3 the two
    results cannot be compared, 4 these samples cannot tell, 6 the drop is beyond --max-drop.
    """
    from vlmquant.tasks.evaluate import evaluate as run
    from vlmquant.tasks.evaluate_blip import BLIP_TASKS
    from vlmquant.tasks.model_facts import describe_model
    from vlmquant.tasks.runs import save_run

    if max_drop is not None and against is None:
        raise DataError(f"--max-drop {max_drop:g} is a drop from a reference; add --against FLOAT_MODEL")
    if task is not None and set(task) & set(BLIP_TASKS):
        _evaluate_blip(
            model, data, task, against, max_drop, split, max_problem_share, engine, threads, probe, beams, max_tokens,
            device, output, cache, json_output,
        )  # fmt: skip
        return
    if task is not None and FIDELITY in task and against is None:
        raise DataError("fidelity is closeness to a float model; add --against FLOAT_MODEL")
    evaluation = run(
        model,
        data,
        cache=cache_folder("embeddings") if cache is None else cache,
        reference=against,
        tasks=[name for name in task if name != FIDELITY] if task else None,
        templates=templates,
        split=split,
        max_problem_share=max_problem_share,
        max_drop_points=max_drop,
        engine=engine,
        threads=threads,
        probe=probe,
        track=show.tracker(json_output),
    )
    if output is not None:
        save_run(output, evaluation, describe_model(model), None if against is None else describe_model(against))
    if json_output:
        show.as_json(evaluation.to_dict())
    else:
        print_evaluation(evaluation)
        if output is not None:
            show.line(f"run saved in {output}; `vlmquant report {output} -o report.html` makes a page of it")
    if code := EXIT_CODES[evaluation.verdict]:
        raise typer.Exit(code)


def _evaluate_blip(
    model: str,
    data: Path,
    task: list[str],
    against: str | None,
    max_drop: float | None,
    split: str,
    max_problem_share: float,
    engine: str,
    threads: int | None,
    probe: bool,
    beams: int,
    max_tokens: int,
    device: str,
    output: Path | None,
    cache: Path | None,
    json_output: bool,
) -> None:
    from vlmquant.models.generate import GenerationOptions
    from vlmquant.tasks.evaluate_blip import evaluate_blip

    if len(task) > 1:
        raise DataError(f"captioning, vqa and matching go alone, got {', '.join(task)}; run them one after another")
    evaluation = evaluate_blip(
        model,
        data,
        task[0],
        cache=cache_folder("journals") if cache is None else cache,
        reference=against,
        split=split,
        max_problem_share=max_problem_share,
        max_drop_points=max_drop,
        engine=engine,
        threads=threads,
        probe=probe,
        device=device,
        options=GenerationOptions(max_new_tokens=max_tokens, beams=beams),
        output=output,
        track=show.tracker(json_output),
    )
    if json_output:
        show.as_json(evaluation.to_dict())
    else:
        print_blip_evaluation(evaluation)
    if code := EXIT_CODES[evaluation.verdict]:
        raise typer.Exit(code)


def print_engine_warnings(results: "Iterable[TaskResult]") -> None:
    """Say once of each model that does not run as it should, and why."""
    for warning in dict.fromkeys(result.subject.get("engine_warning") for result in results):
        if warning:
            show.line(f"warning: {warning}")


def print_blip_evaluation(evaluation: "BlipEvaluation") -> None:
    """Print the scores of a BLIP and, with a reference, how each changed."""
    from vlmquant.data.sets import summarize

    data, result = evaluation.data, evaluation.result
    if data.problems:
        show.line(f"left out {len(data.problems)} entries of {data.name}: {summarize(data.problems)}")
    print_engine_warnings([result])
    if evaluation.reference is None:
        scores = result.details.get("corpus", result.metrics)
        show.table(
            f"{evaluation.task} on {data.name}: {result.model}",
            ("metric", "score x 100", "samples"),
            [(name, f"{100 * score:.2f}", result.protocol.samples) for name, score in scores.items()],
        )
    else:
        rows = [
            (
                change.metric,
                f"{100 * change.reference:.2f}",
                f"{100 * change.candidate:.2f}",
                f"{100 * change.difference.estimate:+.2f}",
                f"{100 * change.difference.low:+.2f} to {100 * change.difference.high:+.2f}",
                f"{100 * change.relative:+.2f} %",
                change.samples,
                change.verdict or "-",
            )
            for change in evaluation.changes
        ]
        columns = ("metric", "before x 100", "after x 100", "points", "95 % interval", "relative", "n", "verdict")
        title = f"{evaluation.task} on {data.name}: {result.model} against {evaluation.reference.model}"
        show.table(title, columns, rows)
    show.line(f"protocol: {result.protocol}")
    if evaluation.verdict is not None:
        show.line(f"verdict: {evaluation.verdict}")


def print_evaluation(evaluation: "Evaluation") -> None:
    """Print the scores, the comparison of every metric, the fidelity and the verdict."""
    data = evaluation.data
    if data.problems:
        from vlmquant.data.sets import summarize

        show.line(f"left out {len(data.problems)} entries of {data.name}: {summarize(data.problems)}")
    for task, result in evaluation.results.items():
        if task in evaluation.comparisons:
            names = f"{result.model} against {evaluation.reference_results[task].model}"
            _print_comparisons(f"{task} on {data.name}: {names}", evaluation.comparisons[task])
        else:
            n = {name: len(outcome.ids) for name, outcome in result.outcomes.items()}
            rows = [(name, f"{100 * value:.2f} %", n[name]) for name, value in result.metrics.items()]
            show.table(f"{task} on {data.name}: {result.model}", ("metric", "score", "samples"), rows)
        show.line(f"protocol: {result.protocol}")
    for task, reason in evaluation.skipped.items():
        show.line(f"not run: {task}, {reason}")
    print_engine_warnings(evaluation.results.values())
    if evaluation.fidelity is not None:
        _print_fidelity(evaluation.fidelity)
    if evaluation.verdict is not None:
        show.line(f"verdict: {evaluation.verdict}")


def _print_comparisons(title: str, comparisons: "tuple[Comparison, ...]") -> None:
    rows = [
        (
            found.metric,
            f"{100 * found.reference:.2f}",
            f"{100 * found.candidate:.2f}",
            f"{100 * found.difference.estimate:+.2f}",
            f"{100 * found.difference.low:+.2f} to {100 * found.difference.high:+.2f}",
            f"{found.p_value:.3g}",
            f"{len(found.flips.losses)} / {len(found.flips.gains)} / {len(found.flips.changed_wrong)}",
            f"{100 * found.smallest_detectable_drop:.2f}",
            found.samples,
            found.verdict or "-",
        )
        for found in comparisons
    ]
    columns = ("metric", "before %", "after %", "points", "95 % interval", "McNemar p")
    show.table(title, (*columns, "lost/won/other", "detectable", "n", "verdict"), rows)
    show.line(
        "lost/won/other: right before and wrong after / wrong and right / another wrong answer; "
        "detectable: the smallest drop, in points, that these samples would have shown (80 % power)"
    )


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
