"""Zero-shot classification: the class whose prompts are nearest to the picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmquant.data.sets import LabelledImages
from vlmquant.errors import DataError
from vlmquant.files import digest
from vlmquant.metrics.classification import (
    confusion_matrix,
    expected_calibration_error,
    per_class_recall,
    softmax,
)
from vlmquant.metrics.ranking import RankCounts, rank_classes
from vlmquant.models.spec import Encoder, FloatArray, IdArray, Image
from vlmquant.progress import Track, silent
from vlmquant.tasks.encode import embed_classes, encode_images
from vlmquant.tasks.protocol import Protocol, list_digest
from vlmquant.tasks.result import Outcomes, TaskResult
from vlmquant.tasks.task import Work


@dataclass(frozen=True, kw_only=True)
class ZeroShotResult(TaskResult):
    """Zero-shot outcomes. `labels` and `predictions` are (n,) int64, `confidences` (n,) float32 in [0, 1]."""

    class_names: tuple[str, ...]
    labels: IdArray
    predictions: IdArray
    confidences: FloatArray
    ranks: RankCounts

    @property
    def top1(self) -> float:
        """Return the share in [0, 1] of pictures whose first class is right, ties by expectation."""
        return self.outcomes["top1"].mean

    @property
    def top5(self) -> float:
        """Return the share in [0, 1] with the right class among the first five. DataError below six classes."""
        if "top5" not in self.outcomes:
            raise DataError(f"top-5 of {len(self.class_names)} classes is always 1; it needs at least six classes")
        return self.outcomes["top5"].mean


def zero_shot(
    encoder: Encoder,
    images: Sequence[Image],
    labels: Sequence[int] | IdArray,
    class_names: Sequence[str],
    templates: Sequence[str],
    *,
    ids: Sequence[str] | None = None,
    track: Track = silent,
) -> ZeroShotResult:
    """Classify `images` into `class_names` with prompts made of `templates` (each with one `{}`).

    Prompts are ensembled as in the reference: embed every template, normalize, mean, normalize again (Radford et al.
    2021, 3.1.4). `labels` index `class_names`; `ids` name the samples ("0", "1", ... if there are none). Raises
    DataError for unusable labels or templates, and for embeddings that are not finite.
    """
    named = tuple(str(i) for i in range(len(images))) if ids is None else tuple(ids)
    classes = embed_classes(encoder, class_names, templates, track)
    encoded = encode_images(encoder, images, named, track)
    return score_zero_shot(
        encoder,
        encoded.rows,
        classes,
        np.asarray(labels, dtype=np.int64),
        class_names,
        templates,
        ids=named,
        dataset=digest(encoded.digest, [int(label) for label in labels], list(class_names)),
    )


def score_zero_shot(
    encoder: Encoder,
    image_rows: FloatArray,
    class_rows: FloatArray,
    labels: IdArray,
    class_names: Sequence[str],
    templates: Sequence[str],
    *,
    ids: Sequence[str],
    dataset: str,
) -> ZeroShotResult:
    """Score (n, d) image embeddings against (classes, d) class embeddings; `dataset` is the protocol's digest."""
    cosines = image_rows @ class_rows.T
    ranks = rank_classes(cosines, labels)
    probabilities = softmax(encoder.logit_scale * cosines)
    confidences = np.take_along_axis(probabilities, ranks.best[:, None], axis=1)[:, 0]
    calibration = expected_calibration_error(confidences, ranks.hits(1))
    return ZeroShotResult(
        model=encoder.name,
        protocol=Protocol(
            task="zero-shot",
            dataset=dataset,
            samples=len(ids),
            settings=(
                ("classes", list_digest(class_names)),
                ("templates", list_digest(templates)),
                ("ensemble", "normalize-mean-normalize"),
                ("tie", "expectation"),
            ),
        ),
        outcomes=top_outcomes(ranks, class_names, ids),
        details={
            "classes": list(class_names),
            "per_class_recall": per_class_recall(ranks.hits(1), labels, len(class_names)),
            "confusion": confusion_matrix(labels, ranks.best, len(class_names)).tolist(),
            "expected_calibration_error": calibration.error,
            "reliability": calibration.rows(),
            "mean_confidence": float(confidences.mean()),
            "tie_rate": ranks.tie_rate,
            "top1_bounds": list(ranks.bounds(1)),
        },
        class_names=tuple(class_names),
        labels=labels,
        predictions=ranks.best,
        confidences=confidences,
        ranks=ranks,
    )


def top_outcomes(ranks: RankCounts, class_names: Sequence[str], ids: Sequence[str]) -> dict[str, Outcomes]:
    """Return top1, and top5 where there are more than five classes, of n pictures; the answer is the first class."""
    tops = {"top1": 1, "top5": 5} if len(class_names) > 5 else {"top1": 1}
    ids, answers = tuple(ids), tuple(class_names[i] for i in ranks.best)
    return {name: Outcomes(ids=ids, clusters=ids, values=ranks.hits(k), answers=answers) for name, k in tops.items()}


def classify_pictures(work: Work) -> ZeroShotResult:
    """Run the task: every picture of labelled data by the prompts of the classes."""
    data, embedded = work.data, work.embedded
    assert isinstance(data, LabelledImages)
    assert embedded.texts is not None
    return score_zero_shot(
        work.opened.encoder,
        embedded.images,
        embedded.texts,
        data.labels,
        data.class_names,
        work.templates,
        ids=data.ids,
        dataset=data.digest,
    )
