"""One call: a model, its float reference, a folder of data; every task that applies, compared sample by sample.

The images are encoded once for all tasks, through a cache on disk, so a run that was killed goes on where it was and
gives the same bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from vlmquant.data.detect import read
from vlmquant.data.hub import read_hub
from vlmquant.data.sets import MAX_PROBLEM_SHARE, CaptionedImages, ImageSet, LabelledImages
from vlmquant.errors import DataError, unknown
from vlmquant.metrics.ranking import refuse_non_finite
from vlmquant.models.encoder import normalize
from vlmquant.models.preprocess import preprocess
from vlmquant.models.spec import FloatArray
from vlmquant.progress import Track, silent
from vlmquant.tasks.cache import EmbeddingCache
from vlmquant.tasks.classification import embed_classes, score_zero_shot
from vlmquant.tasks.compare import Comparison, Verdict, compare
from vlmquant.tasks.fidelity import Embedded, FidelityResult, compare_embeddings
from vlmquant.tasks.linear_probe import FEWEST_PER_CLASS, MISSING, linear_probe, split_by_id
from vlmquant.tasks.protocol import digest
from vlmquant.tasks.result import TaskResult, save_json, save_result
from vlmquant.tasks.retrieval import encode_captions, score_retrieval
from vlmquant.tasks.subject import Subject, open_subject
from vlmquant.tasks.templates import get_templates

SCHEMA = 1
HUB_PREFIX = "hub:"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate` found. `comparisons` and `fidelity` are empty and None without a reference.

    `results` and `reference_results` have one entry per task, `comparisons` one tuple (over the metrics) per task,
    `skipped` says why a task was not possible. The embeddings are those of all images, and of the classes or captions
    where the data have any.
    """

    data: ImageSet
    skipped: Mapping[str, str]
    results: Mapping[str, TaskResult]
    reference_results: Mapping[str, TaskResult]
    comparisons: Mapping[str, tuple[Comparison, ...]]
    fidelity: FidelityResult | None
    embeddings: Embedded
    reference_embeddings: Embedded | None

    @property
    def verdict(self) -> Verdict | None:
        """Return the worst verdict over all metrics: beyond, then undecided, then within; None without a limit."""
        found = [comparison.verdict for compared in self.comparisons.values() for comparison in compared]
        return next((v for v in (Verdict.BEYOND, Verdict.UNDECIDED, Verdict.WITHIN) if v in found), None)

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
                    "model": {"name": result.model, **result.subject, "metrics": result.metrics},
                    "reference": _summary(self.reference_results.get(task)),
                    "comparisons": [comparison.to_dict() for comparison in self.comparisons.get(task, ())],
                }
                for task, result in self.results.items()
            },
            "skipped": dict(self.skipped),
            "verdict": self.verdict,
            "fidelity": None if self.fidelity is None else self.fidelity.summary(),
        }


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One subject's embeddings of the data: raw features and unit rows (n, d), texts (m, d) or None."""

    subject: Subject
    features: FloatArray
    images: FloatArray
    texts: FloatArray | None


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every task's function is given."""

    data: ImageSet
    templates: tuple[str, ...]
    track: Track


def evaluate(
    model: str | Path,
    data: str | Path | ImageSet,
    *,
    cache: str | Path,
    reference: str | Path | None = None,
    tasks: Sequence[str] | None = None,
    templates: str = "openai-7",
    split: str = "test",
    max_problem_share: float = MAX_PROBLEM_SHARE,
    max_drop_points: float | None = None,
    engine: str = "auto",
    threads: int | None = None,
    probe: bool = True,
    output: str | Path | None = None,
    track: Track = silent,
) -> Evaluation:
    """Evaluate `model` on `data`, and compare it with `reference` where one is given.

    `model` and `reference` are bundles, checkpoint folders or hub ids. `data` is a folder that
    `vlmquant.data.detect.read` knows, "hub:NAME" for a labelled set of the Hugging Face hub, or what a reader
    returned. `tasks` defaults to all that the data allow: zero-shot and linear-probe with labels, retrieval with
    captions; fidelity is reported whenever there is a reference, and alone when `tasks` is empty. `max_drop_points`
    (percentage points) asks for a verdict. `cache` keeps the embeddings. With `output`, the per-sample outcomes
    (`<task>.json`, `<task>.reference.json`, `fidelity.json`) and the summary (`evaluation.json`) are written there,
    whole or not at all, and without times or dates: the same inputs give the same bytes. `probe` False takes bundles on
    trust.

    Raises DataError, ModelError and BundleError.
    """
    dataset = data if isinstance(data, ImageSet) else _read(data, split, max_problem_share, track)
    job = Job(data=dataset, templates=get_templates(templates), track=track)
    chosen, skipped = choose_tasks(dataset, tasks, has_reference=reference is not None)
    store = EmbeddingCache(Path(cache))
    found = _encode(open_subject(model, engine=engine, threads=threads, probe=probe, track=track), job, store)
    results = {task: run_task(task, found, job) for task in chosen}
    reference_results: dict[str, TaskResult] = {}
    comparisons: dict[str, tuple[Comparison, ...]] = {}
    fidelity, reference_embeddings = None, None
    if reference is not None:
        expected = _encode(open_subject(reference, track=track), job, store)
        reference_results = {task: run_task(task, expected, job) for task in chosen}
        comparisons = {
            task: compare(results[task], reference_results[task], max_drop_points=max_drop_points) for task in chosen
        }
        reference_embeddings = _embedded(expected)
        if len(dataset) > 1:
            fidelity = compare_embeddings(_embedded(found), reference_embeddings, dataset.ids)
    evaluation = Evaluation(
        data=dataset,
        skipped=skipped,
        results=results,
        reference_results=reference_results,
        comparisons=comparisons,
        fidelity=fidelity,
        embeddings=_embedded(found),
        reference_embeddings=reference_embeddings,
    )
    if output is not None:
        save_evaluation(evaluation, Path(output))
    return evaluation


def choose_tasks(
    data: ImageSet, wanted: Sequence[str] | None, *, has_reference: bool
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the tasks to run on `data`, and why each of the others is not possible.

    Raises DataError for an unknown task, for a wanted one that is not possible, and when there is nothing to do.
    """
    obstacles = {name: reason for name, task in TASKS.items() if (reason := task.obstacle(data)) is not None}
    for name in wanted or ():
        if name not in TASKS:
            raise unknown(DataError, "task", name, TASKS)
        if name in obstacles:
            raise DataError(f"task {name} is not possible on {data.name}: {obstacles[name]}")
    chosen = tuple(name for name in dict.fromkeys(TASKS if wanted is None else wanted) if name not in obstacles)
    if not chosen and not has_reference:
        raise DataError(f"without labels or captions {data.name} needs a float reference to compare with")
    return chosen, obstacles


def save_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write the summary and every result with its per-sample outcomes; `evaluation.json` comes last."""
    for task, result in evaluation.results.items():
        save_result(result, folder / f"{task}.json")
    for task, result in evaluation.reference_results.items():
        save_result(result, folder / f"{task}.reference.json")
    if evaluation.fidelity is not None:
        save_json(folder / "fidelity.json", evaluation.fidelity.to_dict())
    save_json(folder / "evaluation.json", evaluation.to_dict())


def _read(data: str | Path, split: str, max_problem_share: float, track: Track) -> ImageSet:
    if str(data).startswith(HUB_PREFIX):
        name = str(data).removeprefix(HUB_PREFIX)
        return read_hub(name, split=split, max_problem_share=max_problem_share, track=track)
    return read(Path(data), split=split, max_problem_share=max_problem_share, track=track)


def _encode(subject: Subject, job: Job, cache: EmbeddingCache) -> Encoded:
    features = image_features(subject, job, cache)
    return Encoded(
        subject=subject,
        features=features,
        images=unit_rows(features, job.data),
        texts=text_rows(subject, job, cache),
    )


def image_features(subject: Subject, job: Job, cache: EmbeddingCache) -> FloatArray:
    """Return the features (n, d) float32 of all images, not normalized, from the cache where they are in it."""
    data, encoder = job.data, subject.encoder

    def encode(start: int, stop: int) -> FloatArray:
        pictures = data.images[start:stop]
        batches = [pictures[i : i + encoder.batch_size] for i in range(0, len(pictures), encoder.batch_size)]
        return np.concatenate(
            [
                encoder.image_tower(np.stack([preprocess(image, encoder.image_spec) for image in batch]))
                for batch in batches
            ]
        )

    return cache.rows(
        {"of": "images", "data": data.digest, "model": subject.identity, "batch": str(encoder.batch_size)},
        len(data),
        encode,
        description=f"Encoding images with {encoder.name}",
        track=job.track,
    )


def unit_rows(features: FloatArray, data: ImageSet) -> FloatArray:
    """Return image features scaled to unit length. Raises DataError naming the images where they are not finite."""
    with np.errstate(invalid="ignore"):
        images = normalize(features)
    refuse_non_finite(images, data.ids, "image")
    return images


def text_rows(subject: Subject, job: Job, cache: EmbeddingCache) -> FloatArray | None:
    """Return the unit rows (m, d) float32 of the classes or captions of the data; None where they have neither."""
    data, encoder = job.data, subject.encoder
    if isinstance(data, LabelledImages):
        names, templates = data.class_names, job.templates
        content = digest(names, templates)
        count = len(names)

        def encode(start: int, stop: int) -> FloatArray:
            return embed_classes(encoder, names[start:stop], templates)

        what = "class names"
    elif isinstance(data, CaptionedImages):
        captions = tuple(text for texts in data.captions for text in texts)
        content, count = digest(captions), len(captions)

        def encode(start: int, stop: int) -> FloatArray:
            return encode_captions(encoder, [captions[start:stop]], [f"caption {start}"])

        what = "captions"
    else:
        return None
    key = {"of": what, "texts": content, "model": subject.identity, "batch": str(encoder.batch_size)}
    return cache.rows(key, count, encode, description=f"Encoding {what} with {encoder.name}", track=job.track)


def run_task(task: str, found: Encoded, job: Job) -> TaskResult:
    """Return the result of one of `TASKS` on embeddings of the job's data, with the subject's facts in it."""
    result = TASKS[task].run(found, job)
    protocol = result.protocol.with_setting("preprocessing", found.subject.preprocessing[:12])
    return replace(result, protocol=protocol, subject=found.subject.facts)


def _zero_shot(found: Encoded, job: Job) -> TaskResult:
    data = job.data
    assert isinstance(data, LabelledImages)
    assert found.texts is not None
    return score_zero_shot(
        found.subject.encoder,
        found.images,
        found.texts,
        data.labels,
        data.class_names,
        job.templates,
        ids=data.ids,
        dataset=data.digest,
    )


def _linear_probe(found: Encoded, job: Job) -> TaskResult:
    data = job.data
    assert isinstance(data, LabelledImages)
    return linear_probe(
        found.features,
        data.labels,
        split_by_id(data.ids, data.labels),
        data.class_names,
        ids=data.ids,
        dataset=data.digest,
        model=found.subject.encoder.name,
        track=job.track,
    )


def _retrieval(found: Encoded, job: Job) -> TaskResult:
    data = job.data
    assert isinstance(data, CaptionedImages)
    assert found.texts is not None
    return score_retrieval(
        found.subject.encoder, found.images, found.texts, data.captions, ids=data.ids, dataset=data.digest
    )


def _embedded(found: Encoded) -> Embedded:
    encoder = found.subject.encoder
    return Embedded(name=encoder.name, images=found.images, texts=found.texts, logit_scale=encoder.logit_scale)


def _summary(result: TaskResult | None) -> dict[str, Any] | None:
    return None if result is None else {"name": result.model, **result.subject, "metrics": result.metrics}


def _no_labels(data: ImageSet) -> str | None:
    return None if isinstance(data, LabelledImages) else "it has no labels"


def _no_probe(data: ImageSet) -> str | None:
    if not isinstance(data, LabelledImages):
        return "it has no labels"
    if find_spec("sklearn") is None:
        return MISSING
    fewest = int(np.unique(data.labels, return_counts=True)[1].min())
    return None if fewest >= FEWEST_PER_CLASS else f"a class has {fewest} images, it takes {FEWEST_PER_CLASS} of each"


def _no_captions(data: ImageSet) -> str | None:
    return None if isinstance(data, CaptionedImages) else "it has no captions"


@dataclass(frozen=True)
class Task:
    """The function that runs a task, and the one that says why it cannot run on some data (None: it can)."""

    run: Callable[[Encoded, Job], TaskResult]
    obstacle: Callable[[ImageSet], str | None]


TASKS: dict[str, Task] = {
    "zero-shot": Task(_zero_shot, _no_labels),
    "linear-probe": Task(_linear_probe, _no_probe),
    "retrieval": Task(_retrieval, _no_captions),
}
