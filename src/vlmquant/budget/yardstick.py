"""The drop of a candidate against the float model, on one half of a data set to search on and one to check on."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from vlmquant.budget.log import Drop
from vlmquant.data.images import LazyImages
from vlmquant.data.sets import CaptionedImages, ImageSet, LabelledImages, QuestionedImages
from vlmquant.errors import DataError, unknown
from vlmquant.metrics.fidelity import cosines
from vlmquant.metrics.intervals import Interval, bootstrap_mean
from vlmquant.models.spec import Encoder, FloatArray
from vlmquant.models.writer import Writer
from vlmquant.progress import Track, silent
from vlmquant.tasks.answering import METRIC as VQA_ACCURACY
from vlmquant.tasks.answering import score_answers, write_answers
from vlmquant.tasks.captioning import score_captions, write_captions
from vlmquant.tasks.catalogue import TASKS
from vlmquant.tasks.classification import zero_shot
from vlmquant.tasks.compare import compare_metric
from vlmquant.tasks.encode import encode_images, encode_texts
from vlmquant.tasks.result import TaskResult
from vlmquant.tasks.retrieval import retrieval

Half = Literal["search", "held-out"]
FEWEST_PER_HALF = 10
MOST_PER_HALF = 1000
"""So many pictures of a half are used: enough for an interval of about a point, few enough for a quarter of an hour."""


def halves(data: ImageSet, most: int = MOST_PER_HALF) -> dict[Half, ImageSet]:
    """Split `data` in two by a hash of each picture's id: the same ids give the same halves in any order.

    Raises DataError where a half would have fewer than 10 pictures.
    """
    order = sorted(range(len(data)), key=lambda i: hashlib.sha256(data.ids[i].encode()).digest())
    if len(order) < 2 * FEWEST_PER_HALF:
        raise DataError(
            f"{data.name} has {len(data)} pictures; a search needs at least {2 * FEWEST_PER_HALF}, one half to choose "
            "on and one to check on"
        )
    return {"search": subset(data, order[::2][:most]), "held-out": subset(data, order[1::2][:most])}


def subset(data: ImageSet, indices: Sequence[int]) -> ImageSet:
    """Return the pictures at `indices` with what is known of them."""
    chosen = sorted(indices)
    images = LazyImages(tuple(data.images.ids[i] for i in chosen), tuple(data.images.refs[i] for i in chosen))
    if isinstance(data, LabelledImages):
        return replace(data, images=images, labels=data.labels[chosen])
    if isinstance(data, CaptionedImages):
        return replace(data, images=images, captions=tuple(data.captions[i] for i in chosen))
    if isinstance(data, QuestionedImages):
        moved = {index: place for place, index in enumerate(chosen)}
        kept = [question for question in data.questions if question.image_index in moved]
        questions = tuple(replace(question, image_index=moved[question.image_index]) for question in kept)
        return replace(data, images=images, questions=questions)
    return replace(data, images=images)


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What the text tower is shown: prompt templates for classes, and `plain` texts where the data have none."""

    templates: tuple[str, ...]
    plain: tuple[str, ...]


@dataclass(frozen=True)
class Metric:
    """`measure` what a runner does, `drops` from the reference's measurement, `obstacle`: why data do not fit."""

    measure: Callable[[Any, ImageSet, Track], Any]
    drops: Callable[[Any, Any], list[Drop]]
    obstacle: Callable[[ImageSet], str | None]


class Yardstick:
    """Scores runners on either half of `data` by one of `metrics` and compares them with the float `reference`.

    Raises DataError where the data do not allow the metric.
    """

    def __init__(
        self, reference: Any, data: ImageSet, metric: str | None, metrics: Mapping[str, Metric], track: Track = silent
    ) -> None:
        self.metric = default_metric(data, metrics) if metric is None else metric
        if self.metric not in metrics:
            raise unknown(DataError, "metric", self.metric, metrics)
        self._metric = metrics[self.metric]
        if reason := self._metric.obstacle(data):
            raise DataError(f"metric {self.metric} is not possible on {data.name}: {reason}")
        self._track = track
        self._halves = halves(data)
        self._reference = reference
        self._expected: dict[Half, Any] = {}

    def half(self, half: Half) -> ImageSet:
        """Return the data of a half."""
        return self._halves[half]

    def drop(self, runner: Any, half: Half) -> Drop:
        """Return the drop of `runner`, by the worst of the metric's figures; the float model is scored once."""
        if half not in self._expected:
            self._expected[half] = self._measure(self._reference, half)
        return max(self._metric.drops(self._measure(runner, half), self._expected[half]), key=lambda d: d.points)

    def _measure(self, runner: Any, half: Half) -> Any:
        return self._metric.measure(runner, self._halves[half], self._track)


def default_metric(data: ImageSet, metrics: Mapping[str, Metric]) -> str:
    """Return the first metric that the data allow, or the first of all where they allow none."""
    return next((name for name, metric in metrics.items() if metric.obstacle(data) is None), next(iter(metrics)))


def encoder_metrics(texts: Texts) -> dict[str, Metric]:
    """Return what `--metric` can name for an encoder. A point of fidelity is 0.01 of the mean cosine to float."""
    return {
        "top1": Metric(partial(_zero_shot, texts), _task_drops("top1"), _needs(LabelledImages, "labels")),
        "recall@1": Metric(
            _retrieval, _task_drops("image_to_text_r1", "text_to_image_r1"), _needs(CaptionedImages, "captions")
        ),
        "fidelity": Metric(partial(_embeddings, texts), _cosine_drops, lambda data: None),
    }


def _needs(kind: type[ImageSet], what: str) -> Callable[[ImageSet], str | None]:
    return lambda data: None if isinstance(data, kind) else f"it has no {what}"


def _zero_shot(texts: Texts, encoder: Encoder, data: ImageSet, track: Track) -> TaskResult:
    assert isinstance(data, LabelledImages)
    return zero_shot(encoder, data.images, data.labels, data.class_names, texts.templates, ids=data.ids, track=track)


def _retrieval(encoder: Encoder, data: ImageSet, track: Track) -> TaskResult:
    assert isinstance(data, CaptionedImages)
    return retrieval(encoder, data.images, data.captions, ids=data.ids, track=track)


def _embeddings(texts: Texts, encoder: Encoder, data: ImageSet, track: Track) -> dict[str, FloatArray]:
    if isinstance(data, CaptionedImages):
        said: Sequence[str] = [caption for captions in data.captions for caption in captions]
    elif isinstance(data, LabelledImages):
        said = [template.replace("{}", name) for name in data.class_names for template in texts.templates]
    else:
        said = texts.plain
    return {
        "image cosine": encode_images(encoder, data.images, data.ids, track).rows,
        "text cosine": encode_texts(encoder, said, said, track),
    }


def _captions(runner: Writer, data: ImageSet, track: Track) -> TaskResult:
    assert isinstance(data, CaptionedImages)
    written = write_captions(runner, data.images, data.ids, track=track)
    return score_captions(runner.name, written, data.captions, ids=data.ids, dataset=data.digest)


def _answers(runner: Writer, data: ImageSet, track: Track) -> TaskResult:
    assert isinstance(data, QuestionedImages)
    return score_answers(runner.name, write_answers(runner, data, track=track), data)


def _task_drops(*metrics: str) -> Callable[[TaskResult, TaskResult], list[Drop]]:
    def drops(found: TaskResult, expected: TaskResult) -> list[Drop]:
        compared = [compare_metric(found, expected, metric) for metric in metrics]
        return [points_lost(one.metric, one.difference, -100.0, one.samples) for one in compared]

    return drops


def _text_drops(score: str) -> Callable[[TaskResult, TaskResult], list[Drop]]:
    def drops(found: TaskResult, expected: TaskResult) -> list[Drop]:
        changes = TASKS[found.protocol.task].compare(found, expected, None)
        assert isinstance(changes, tuple)
        return [points_lost(one.metric, one.difference, -100.0, one.samples) for one in changes if one.metric == score]

    return drops


def _cosine_drops(found: Mapping[str, FloatArray], expected: Mapping[str, FloatArray]) -> list[Drop]:
    losses = {name: 1 - cosines(rows, expected[name]) for name, rows in found.items()}
    return [
        points_lost(name, bootstrap_mean(values, np.arange(len(values))), 100.0, len(values))
        for name, values in losses.items()
    ]


def points_lost(metric: str, interval: Interval, factor: float, samples: int) -> Drop:
    """Return a change of a score as a drop; `factor` is the points that a change of 1 loses, negative for a gain."""
    # Adding zero makes a plain 0.0 of -0.0.
    low, high = sorted((factor * interval.low + 0.0, factor * interval.high + 0.0))
    return Drop(metric=metric, points=factor * interval.estimate + 0.0, low=low, high=high, samples=samples)


TEXT_METRICS: dict[str, dict[str, Metric]] = {
    "captioning": {
        "cider": Metric(_captions, _text_drops("CIDEr"), _needs(CaptionedImages, "captions")),
        "bleu-4": Metric(_captions, _text_drops("BLEU-4"), _needs(CaptionedImages, "captions")),
    },
    "vqa": {VQA_ACCURACY: Metric(_answers, _text_drops(VQA_ACCURACY), _needs(QuestionedImages, "questions"))},
}
"""What `--metric` can name for a BLIP of each kind. A point is a hundredth: a CIDEr from 1.10 to 1.09 loses one."""
