"""One float CLIP on one set of data: every form of it is encoded once, scored, and compared sample by sample."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from benchmarks.data import Data
from vlmquant import Encoder, load_model
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.data.sets import QuestionedImages
from vlmquant.files import digest
from vlmquant.lab.stress import stressed
from vlmquant.metrics.ranking import refuse_non_finite
from vlmquant.models.encoder import DualEncoder
from vlmquant.models.preprocess import preprocess
from vlmquant.models.spec import FloatArray, Image, ImageSpec
from vlmquant.progress import bar
from vlmquant.tasks.answering import score_answers
from vlmquant.tasks.captioning import compare_captions, score_captions
from vlmquant.tasks.classification import score_zero_shot
from vlmquant.tasks.compare import compare
from vlmquant.tasks.encode import BATCH_SIZE, embed_classes, encode_captions
from vlmquant.tasks.result import TaskResult
from vlmquant.tasks.retrieval import score_retrieval

COMBINATIONS = ("image", "text", "both")
"""Which towers are not float."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A float model and its data; `images` and `captioned` are preprocessed once, (n, 3, height, width) float32."""

    model: ClipModel
    data: Data
    images: FloatArray
    captioned: FloatArray

    def first_labelled(self, count: int) -> "Subject":
        """Keep the first `count` labelled images."""
        return replace(self, data=self.data.first_labelled(count), images=self.images[:count])

    def facts(self) -> dict[str, Any]:
        """Return what the head of a result file says about the model and its calibration."""
        return {
            "model": self.model.name,
            "weights_sha256": self.model.weights_sha256,
            "calibration": self.data.calibration.to_dict(),
        }


@dataclass(frozen=True)
class Rows:
    """All embeddings of one form of the model."""

    encoder: Encoder
    images: FloatArray
    classes: FloatArray
    captioned: FloatArray
    captions: FloatArray


def subject_of(data: Data, *, stress: bool = False) -> Subject:
    """Load the float model of `data`, or its equal with outliers, and preprocess all images."""
    model = load_model(data.checkpoint)
    return Subject(
        model=stressed(model) if stress else model,
        data=data,
        images=_preprocessed(data.images, model.image_spec, "labelled images"),
        captioned=_preprocessed(data.captioned, model.image_spec, "captioned images"),
    )


def _preprocessed(images: Sequence[Image], spec: ImageSpec, what: str) -> FloatArray:
    return np.stack([preprocess(images[i], spec) for i in bar(range(len(images)), f"Preprocessing {what}")])


def encode(encoder: DualEncoder, subject: Subject) -> Rows:
    """Encode every image and text of the subject's data once. Raises DataError for what is not finite."""
    data = subject.data
    return Rows(
        encoder,
        _encoded(encoder, subject.images, "labelled images"),
        embed_classes(encoder, data.class_names, data.templates, bar),
        _encoded(encoder, subject.captioned, "captioned images"),
        encode_captions(encoder, data.captions, _ids(data.captioned), bar),
    )


def _encoded(encoder: DualEncoder, pixels: FloatArray, what: str) -> FloatArray:
    starts = bar(range(0, len(pixels), BATCH_SIZE), f"Encoding {what} with {encoder.name}")
    rows = np.concatenate([encoder.encode_pixels(pixels[start : start + BATCH_SIZE]) for start in starts])
    refuse_non_finite(rows, _ids(rows), "image")
    return rows


def _ids(items: Sequence[Any] | FloatArray) -> list[str]:
    return [str(i) for i in range(len(items))]


def score(image: Rows, text: Rows, data: Data) -> list[TaskResult]:
    """Score zero-shot classification and retrieval with images of one form of the model and texts of another."""
    labels = np.asarray(data.labels, dtype=np.int64)
    return [
        score_zero_shot(
            image.encoder,
            image.images,
            text.classes,
            labels,
            data.class_names,
            data.templates,
            ids=_ids(data.images),
            dataset=digest([int(label) for label in labels], list(data.class_names)),
        ),
        score_retrieval(
            image.encoder,
            image.captioned,
            text.captions,
            data.captions,
            ids=_ids(data.captioned),
            dataset=digest([list(captions) for captions in data.captions]),
        ),
    ]


def compared(candidates: Sequence[TaskResult], references: Sequence[TaskResult]) -> dict[str, Any]:
    """Return by metric both scores and their difference in points, with its paired 95 % interval."""
    return {
        row.metric: {
            "float": row.reference,
            "int8": row.candidate,
            "difference_points": 100 * row.difference.estimate,
            "low_points": 100 * row.difference.low,
            "high_points": 100 * row.difference.high,
            "mcnemar_p": row.p_value,
            "losses": len(row.flips.losses),
            "gains": len(row.flips.gains),
            "agreement": row.agreement,
            "samples": row.samples,
        }
        for candidate, reference in zip(candidates, references, strict=True)
        for row in compare(candidate, reference)
    }


def cosines(after: FloatArray, before: FloatArray) -> FloatArray:
    """Return the cosine of each pair of unit rows, (n,)."""
    return np.asarray(np.sum(before * after, axis=1))


def mean_cosines(after: Rows, before: Rows) -> dict[str, float]:
    """Return how close both towers are to the float ones."""
    return {
        "image_cosine_mean": float(np.mean(cosines(after.images, before.images))),
        "text_cosine_mean": float(np.mean(cosines(after.captions, before.captions))),
    }


def by_combination(after: Rows, before: Rows, data: Data) -> dict[str, Any]:
    """Compare `after` with `before`, first one tower of it beside the other one's, then both."""
    reference = score(before, before, data)
    pairs = {"image": (after, before), "text": (before, after), "both": (after, after)}
    return {name: compared(score(image, text, data), reference) for name, (image, text) in pairs.items()}


def against_float(after: Rows, before: Rows, data: Data) -> dict[str, Any]:
    """Return the scores of one form of the model by combination of its towers, and its cosines to the float one."""
    return {**mean_cosines(after, before), **by_combination(after, before, data)}


def show(name: str, compared_rows: Mapping[str, Any]) -> None:
    """Print one line for each metric of `compared`."""
    for metric, row in compared_rows.items():
        print(
            f"{name:40} {metric:18} {row['float']:.4f} -> {row['int8']:.4f}  "
            f"{row['difference_points']:+.2f} [{row['low_points']:+.2f}, {row['high_points']:+.2f}] points",
            flush=True,
        )


def caption_changes(
    captions: Sequence[str], before: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """Compare captions of street world's test pictures with those written `before`, by metric."""

    def scored(texts: Sequence[str]) -> Any:
        return score_captions("", texts, references, ids=_ids(texts), dataset="street retrieval test")

    changes = compare_captions(scored(captions), scored(before))
    return {change.metric: {**asdict(change), "relative": change.relative} for change in changes}


def answer_changes(answers: Sequence[str], before: Sequence[str], data: QuestionedImages) -> dict[str, Any]:
    """Compare answers with those given `before`, by metric."""
    kept = ("metric", "reference", "candidate", "difference", "p_value", "agreement", "samples")
    changes = compare(score_answers("", answers, data), score_answers("", before, data))
    return {change.metric: {name: change.to_dict()[name] for name in kept} for change in changes}


def show_changes(name: str, changes: Mapping[str, Any]) -> None:
    """Print one line for each metric of `caption_changes` or `answer_changes`."""
    for metric, change in changes.items():
        difference = change["difference"]
        print(
            f"{name:34} {metric:14} {change['reference']:.4f} -> {change['candidate']:.4f}  "
            f"{difference['estimate']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}]",
            flush=True,
        )
