"""One call: a BLIP, its float reference, a folder of data; captioning, question answering or matching compared.

Every finished item is kept in a journal on disk, so a run that was killed goes on where it was.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vlmquant.data.detect import read
from vlmquant.data.sets import MAX_PROBLEM_SHARE, CaptionedImages, ImageSet, QuestionedImages
from vlmquant.errors import DataError, unknown
from vlmquant.models.generate import GenerationOptions
from vlmquant.progress import Track, silent
from vlmquant.tasks.answering import score_answers, write_answers
from vlmquant.tasks.blip_subject import BlipSubject, open_blip_subject
from vlmquant.tasks.captioning import (
    CaptioningResult,
    ScoreChange,
    compare_captions,
    score_captions,
    write_captions,
)
from vlmquant.tasks.compare import Verdict, compare
from vlmquant.tasks.journal import Journal
from vlmquant.tasks.matching import match_pairs, score_matching
from vlmquant.tasks.protocol import digest
from vlmquant.tasks.result import TaskResult, save_json, save_result

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class BlipEvaluation:
    """What `evaluate_blip` found; without a reference `reference` is None and `changes` is empty."""

    task: str
    data: ImageSet
    result: TaskResult
    reference: TaskResult | None
    changes: tuple[ScoreChange, ...]

    @property
    def verdict(self) -> Verdict | None:
        """Return the worst verdict over all metrics: beyond, then undecided, then within; None without a limit."""
        found = [change.verdict for change in self.changes]
        return next((v for v in (Verdict.BEYOND, Verdict.UNDECIDED, Verdict.WITHIN) if v in found), None)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary that is written to `evaluation.json`."""
        return {
            "schema": SCHEMA,
            "task": self.task,
            "data": {
                "name": self.data.name,
                "digest": self.data.digest,
                "images": len(self.data),
                "problems": [[problem.id, problem.kind, problem.detail] for problem in self.data.problems],
            },
            "signature": str(self.result.protocol),
            "model": _summary(self.result),
            "reference": None if self.reference is None else _summary(self.reference),
            "changes": [{**asdict(change), "relative": change.relative} for change in self.changes],
            "verdict": self.verdict,
        }


def evaluate_blip(
    model: str | Path,
    data: str | Path | ImageSet,
    task: str,
    *,
    cache: str | Path,
    reference: str | Path | None = None,
    split: str = "test",
    max_problem_share: float = MAX_PROBLEM_SHARE,
    max_drop_points: float | None = None,
    engine: str = "auto",
    threads: int | None = None,
    probe: bool = True,
    device: str = "cpu",
    options: GenerationOptions | None = None,
    output: str | Path | None = None,
    track: Track = silent,
) -> BlipEvaluation:
    """Evaluate a BLIP on `task`, a name in `BLIP_TASKS`, and compare it with `reference` where one is given.

    `model` and `reference` are bundles, checkpoint folders or hub ids; `device` is where checkpoints run. `data` is a
    folder that `vlmquant.data.detect.read` knows, or what a reader returned. `cache` keeps the journals.
    `probe` False takes bundles on trust. `max_drop_points` asks for a verdict; a CIDEr from 1.10 to 1.09 is a drop of
    one point. With `output` the results and the summary are written there.

    Raises DataError, ModelError, BundleError and EngineError.
    """
    if task not in BLIP_TASKS:
        raise unknown(DataError, "task", task, BLIP_TASKS)
    dataset = (
        data
        if isinstance(data, ImageSet)
        else read(Path(data), split=split, max_problem_share=max_problem_share, track=track)
    )
    run = BLIP_TASKS[task]

    def outcome(subject: BlipSubject) -> TaskResult:
        key = digest(task, subject.identity, dataset.digest)
        return run(subject, dataset, Journal(Path(cache) / f"{task}-{key[:24]}.jsonl", key), track)

    opened = open_blip_subject(
        model, engine=engine, threads=threads, device=device, options=options, probe=probe, track=track
    )
    result = outcome(opened)
    before: TaskResult | None = None
    changes: tuple[ScoreChange, ...] = ()
    if reference is not None:
        before = outcome(open_blip_subject(reference, device=device, options=options, track=track))
        changes = score_changes(result, before, max_drop_points)
    evaluation = BlipEvaluation(task=task, data=dataset, result=result, reference=before, changes=changes)
    if output is not None:
        save_blip_evaluation(evaluation, Path(output))
    return evaluation


def score_changes(
    candidate: TaskResult, reference: TaskResult, max_drop_points: float | None
) -> tuple[ScoreChange, ...]:
    """Compare two results of one task, with paired intervals. Raises DataError where their protocols differ."""
    if isinstance(candidate, CaptioningResult) and isinstance(reference, CaptioningResult):
        return compare_captions(candidate, reference, max_drop_points=max_drop_points)
    return tuple(
        ScoreChange(
            metric=found.metric,
            reference=found.reference,
            candidate=found.candidate,
            difference=found.difference,
            samples=found.samples,
            verdict=found.verdict,
        )
        for found in compare(candidate, reference, max_drop_points=max_drop_points)
    )


def save_blip_evaluation(evaluation: BlipEvaluation, folder: Path) -> None:
    """Write every result with its per-sample outcomes, then the summary `evaluation.json`."""
    save_result(evaluation.result, folder / f"{evaluation.task}.json")
    if evaluation.reference is not None:
        save_result(evaluation.reference, folder / f"{evaluation.task}.reference.json")
    save_json(folder / "evaluation.json", evaluation.to_dict())


def _summary(result: TaskResult) -> dict[str, Any]:
    return {"name": result.model, **result.subject, "metrics": result.metrics, "details": dict(result.details)}


def _captioning(subject: BlipSubject, data: ImageSet, journal: Journal, track: Track) -> TaskResult:
    captioned = _captioned(data, "captioning")
    captions = write_captions(subject.runner, data.images, data.ids, journal=journal, track=track)
    result = score_captions(subject.runner.name, captions, captioned.captions, ids=data.ids, dataset=data.digest)
    return replace(result, subject=subject.facts)


def _vqa(subject: BlipSubject, data: ImageSet, journal: Journal, track: Track) -> TaskResult:
    if not isinstance(data, QuestionedImages):
        raise DataError(f"task vqa is not possible on {data.name}: it has no questions")
    answers = write_answers(subject.runner, data, journal=journal, track=track)
    return replace(score_answers(subject.runner.name, answers, data), subject=subject.facts)


def _matching(subject: BlipSubject, data: ImageSet, journal: Journal, track: Track) -> TaskResult:
    captions = _captioned(data, "matching").captions
    pairs = match_pairs(subject.runner, data.images, captions, data.ids, journal=journal, track=track)
    result = score_matching(subject.runner.name, pairs, captions, ids=data.ids, dataset=data.digest)
    return replace(result, subject=subject.facts)


def _captioned(data: ImageSet, task: str) -> CaptionedImages:
    if not isinstance(data, CaptionedImages):
        raise DataError(f"task {task} is not possible on {data.name}: it has no captions")
    return data


Run = Callable[[BlipSubject, ImageSet, Journal, Track], TaskResult]

BLIP_TASKS: Mapping[str, Run] = {"captioning": _captioning, "vqa": _vqa, "matching": _matching}
