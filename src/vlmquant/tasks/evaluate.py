"""One call: a model, its float reference, some data; every task that applies, compared sample by sample.

What a model computes is kept in a store on disk, so a run that was killed goes on where it was and gives the same
bytes.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vlmquant.data.choice import DataChoice
from vlmquant.data.sets import ImageSet
from vlmquant.errors import DataError, NotComparableError
from vlmquant.files import check_writable, digest
from vlmquant.models.generate import GenerationOptions
from vlmquant.opening import AUTO, ModelFacts, Opened, RunsOn, open_named
from vlmquant.output import OutputFolder, results
from vlmquant.progress import Track, silent
from vlmquant.tasks.catalogue import TASKS, choose_tasks
from vlmquant.tasks.compare import Change, Verdict, worst_verdict
from vlmquant.tasks.fidelity import Embedded, EmbeddedResult, FidelityResult
from vlmquant.tasks.result import TaskResult, save_json, save_result
from vlmquant.tasks.store import Store
from vlmquant.tasks.task import Compared, Work
from vlmquant.tasks.templates import get_templates

VERB = "evaluate"
SCHEMA = 1
EVALUATION, FIDELITY = "evaluation.json", "fidelity.json"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate` found. `comparisons`, `reference` and `fidelity` are empty and None without a reference.

    `results` and `reference_results` have one entry per task that scores, `comparisons` one tuple (over the scores) per
    task, `skipped` says why a task was not possible. The embeddings, of all images and of the classes or captions, are
    there where closeness was measured.
    """

    data: ImageSet
    model: ModelFacts
    reference: ModelFacts | None
    skipped: Mapping[str, str]
    results: Mapping[str, TaskResult]
    reference_results: Mapping[str, TaskResult]
    comparisons: Mapping[str, tuple[Change, ...]]
    fidelity: FidelityResult | None = None
    embeddings: Embedded | None = None
    reference_embeddings: Embedded | None = None

    @property
    def verdict(self) -> Verdict | None:
        """Return the worst verdict over all scores; None without a limit."""
        return worst_verdict(change for changes in self.comparisons.values() for change in changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary that is written to `evaluation.json`: everything but the per-sample outcomes."""
        return {
            "schema": SCHEMA,
            "data": {
                "name": self.data.name,
                "digest": self.data.digest,
                "images": len(self.data),
                "problems": [[problem.id, problem.kind, problem.detail] for problem in self.data.problems],
            },
            "tasks": {
                task: {
                    "signature": str(result.protocol),
                    "model": _summary(task, result),
                    "reference": _summary(task, self.reference_results[task]) if self.reference_results else None,
                    "comparisons": [change.to_dict() for change in self.comparisons.get(task, ())],
                }
                for task, result in self.results.items()
            },
            "skipped": dict(self.skipped),
            "verdict": self.verdict,
            "fidelity": None if self.fidelity is None else self.fidelity.summary(),
        }


def evaluate(
    model: str | Path,
    data: DataChoice | ImageSet | str | Path,
    *,
    cache: str | Path,
    reference: str | Path | None = None,
    tasks: Sequence[str] | None = None,
    templates: str = "openai-7",
    max_drop_points: float | None = None,
    runs_on: RunsOn | None = None,
    options: GenerationOptions | None = None,
    output: str | Path | None = None,
    track: Track = silent,
) -> Evaluation:
    """Evaluate `model` on `data`, and compare it with `reference` where one is given.

    `model` and `reference` are bundles, checkpoint folders or hub ids with the same head. `tasks` are names in `TASKS`
    and default to all that the head and the data allow but those that wait to be asked for; closeness ("fidelity") is
    reported whenever there is a reference to an encoder, and alone when `tasks` is empty. `max_drop_points` (hundredths
    of a score: percentage points, or a CIDEr from 1.10 to 1.09) asks for a verdict, which needs a score. `runs_on` is
    what runs the model; the reference takes its own choice of engine. `options` are those of generated texts. `cache`
    keeps what was computed. With `output`, the per-sample outcomes (`<task>.json`, `<task>.reference.json`,
    `fidelity.json`) and the summary (`evaluation.json`) are written there, whole or not at all, and without times or
    dates: the same inputs give the same bytes.

    Raises DataError, ModelError, BundleError, EngineError, and NotComparableError where the two are too unlike.
    """
    if max_drop_points is not None and not (math.isfinite(max_drop_points) and max_drop_points >= 0):
        raise DataError(f"the largest drop must be 0 or more points, got {max_drop_points}")
    prompts = get_templates(templates)
    check_writable(Path(cache))
    if output is not None:
        OutputFolder(output, VERB).check(evaluation_files(TASKS if tasks is None else tasks), _folders(data))
    dataset = _read(data, track)
    runs_on = runs_on or RunsOn()
    opened = open_named(model, runs_on=runs_on, options=options, track=track)
    chosen, skipped = choose_tasks(opened.head, dataset, tasks, has_reference=reference is not None)
    if max_drop_points is not None and all(TASKS[name].with_reference for name in chosen):
        raise DataError(
            f"closeness alone has no score that could drop by {max_drop_points:g} points; "
            "give data with labels or captions, or leave the largest drop out"
        )
    store = Store(Path(cache))

    def work(on: Opened) -> Work:
        return Work(opened=on, data=dataset, templates=prompts, store=store, track=track)

    # Opened before the work, so that a wrong name does not cost it.
    original = None
    if reference is not None:
        own_engine = replace(runs_on, engine=AUTO)
        original = open_named(reference, head=opened.head, runs_on=own_engine, options=options, track=track)
    found = run_tasks(chosen, work(opened))
    expected = {} if original is None else run_tasks(chosen, work(original))
    compared, unlike = _compare_all(found, expected, max_drop_points, asked=tasks)
    evaluation = Evaluation(
        data=dataset,
        model=opened.about,
        reference=None if original is None else original.about,
        skipped=skipped | unlike,
        results=_scored(found),
        reference_results=_scored(expected),
        comparisons={task: one for task, one in compared.items() if not isinstance(one, FidelityResult)},
        fidelity=next((one for one in compared.values() if isinstance(one, FidelityResult)), None),
        embeddings=_embedded(found),
        reference_embeddings=_embedded(expected),
    )
    if output is not None:
        save_evaluation(evaluation, Path(output))
    return evaluation


def run_tasks(names: Sequence[str], work: Work) -> dict[str, TaskResult]:
    """Return the result of each task, with the model's facts and its preprocessing in it."""
    preprocessing = digest(asdict(work.opened.runner.image_spec))[:12]
    results = {name: TASKS[name].run(work) for name in names}
    return {
        name: replace(
            result,
            protocol=result.protocol.with_setting("preprocessing", preprocessing),
            subject=work.opened.facts,
        )
        for name, result in results.items()
    }


def save_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write the summary and every result with its per-sample outcomes; `evaluation.json` comes last."""
    with results(folder, VERB, evaluation_files(evaluation.results)):
        for task, result in evaluation.results.items():
            save_result(result, folder / f"{task}.json")
        for task, result in evaluation.reference_results.items():
            save_result(result, folder / f"{task}.reference.json")
        if evaluation.fidelity is not None:
            save_json(folder / FIDELITY, evaluation.fidelity.to_dict())
        save_json(folder / EVALUATION, evaluation.to_dict())


def evaluation_files(tasks: Iterable[str]) -> list[str]:
    """Return the names of all that an evaluation by `tasks` may write."""
    return [EVALUATION, FIDELITY, *(f"{task}{ending}" for task in tasks for ending in (".json", ".reference.json"))]


def _folders(data: DataChoice | ImageSet | str | Path) -> list[Path]:
    """Return the folder that `data` are read from, where they are."""
    return [] if isinstance(data, ImageSet) else [Path(data.source if isinstance(data, DataChoice) else data)]


def _read(data: DataChoice | ImageSet | str | Path, track: Track) -> ImageSet:
    if isinstance(data, ImageSet):
        return data
    return (data if isinstance(data, DataChoice) else DataChoice(source=data)).read(track)


def _compare_all(
    found: Mapping[str, TaskResult],
    expected: Mapping[str, TaskResult],
    max_drop_points: float | None,
    asked: Sequence[str] | None,
) -> tuple[dict[str, Compared], dict[str, str]]:
    """Return the comparison of every task, and why one that nobody asked for was not possible."""
    compared: dict[str, Compared] = {}
    skipped: dict[str, str] = {}
    for name, result in expected.items():
        try:
            compared[name] = TASKS[name].compare(found[name], result, max_drop_points)
        except NotComparableError as error:
            if not TASKS[name].with_reference or name in (asked or ()) or len(found) == 1:
                raise
            skipped[name] = str(error)
    return compared, skipped


def _scored(results: Mapping[str, TaskResult]) -> dict[str, TaskResult]:
    return {task: result for task, result in results.items() if not TASKS[task].with_reference}


def _embedded(results: Mapping[str, TaskResult]) -> Embedded | None:
    return next((result.embedded for result in results.values() if isinstance(result, EmbeddedResult)), None)


def _summary(task: str, result: TaskResult) -> dict[str, Any]:
    told = {name: result.details[name] for name in TASKS[task].told}
    facts = {"name": result.model, **result.subject, "metrics": result.all_scores}
    return facts | ({"details": told} if told else {})
