"""Is the quantized model the same model? Answered from pictures alone, or pictures and texts, without labels."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlmquant.data.sets import ImageSet
from vlmquant.errors import NotComparableError
from vlmquant.metrics import fidelity as metrics
from vlmquant.metrics.intervals import Interval, bootstrap_mean
from vlmquant.models.spec import FloatArray
from vlmquant.tasks.protocol import Protocol
from vlmquant.tasks.result import TaskResult

if TYPE_CHECKING:
    from vlmquant.tasks.task import Work

FEWEST = 2
NEIGHBOURS = 10
GALLERY = 1000
"""Ranks are compared over at most this many items, taken evenly from all of them."""
WORST = 20


@dataclass(frozen=True)
class Measure:
    """One measure's distribution: mean with its 95 % interval, the worst 1 % mark, the median, the worst sample."""

    mean: Interval
    percentile_1: float
    median: float
    worst: float


@dataclass(frozen=True, kw_only=True)
class FidelityResult:
    """Closeness of a candidate to a reference, per sample.

    `values` maps a measure to (n,) float64: image_cosine, rank_agreement (Spearman's rho) and neighbour_overlap, and
    with texts also kl (nats, at the reference's logit scale; smaller is closer) and top1_agreement. `text_cosines` is
    (m,), empty without texts.
    """

    candidate: str
    reference: str
    ids: tuple[str, ...]
    values: Mapping[str, NDArray[np.float64]]
    text_cosines: NDArray[np.float64]

    def measures(self) -> dict[str, Measure]:
        """Return the summary of every measure, over all samples."""
        found = {name: _summarize(values, larger_is_closer=name != "kl") for name, values in self.values.items()}
        if len(self.text_cosines):
            found["text_cosine"] = _summarize(self.text_cosines, larger_is_closer=True)
        return found

    def worst(self, measure: str = "image_cosine") -> tuple[tuple[str, float], ...]:
        """Return the ids and values of the 20 samples that are farthest off, the worst first."""
        values = self.values[measure]
        order = np.argsort(-values if measure == "kl" else values, kind="stable")[:WORST]
        return tuple((self.ids[i], float(values[i])) for i in order)

    def summary(self) -> dict[str, Any]:
        """Return the measures and the worst samples as JSON-like values."""
        return {
            "candidate": self.candidate,
            "reference": self.reference,
            "samples": len(self.ids),
            "measures": {name: asdict(measure) for name, measure in self.measures().items()},
            "worst": [list(pair) for pair in self.worst()],
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the summary and all per-sample values as JSON-like values."""
        return {
            **self.summary(),
            "ids": self.ids,
            "values": {name: values.tolist() for name, values in self.values.items()},
            "text_cosines": self.text_cosines.tolist(),
        }


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """One model's embeddings of the samples: images (n, d), and texts (m, d) or None, unit rows; its logit scale."""

    name: str
    images: FloatArray
    texts: FloatArray | None
    logit_scale: float


def compare_embeddings(candidate: Embedded, reference: Embedded, ids: tuple[str, ...]) -> FidelityResult:
    """Compare two models' embeddings of the same pictures (at least two) and texts.

    Ranks are those of the texts where there are any, else those of the other pictures; up to 1,000 evenly spaced items.
    Raises NotComparableError where the embeddings differ in width.
    """
    widths = candidate.images.shape[1], reference.images.shape[1]
    if widths[0] != widths[1]:
        raise NotComparableError(
            f"the embeddings of {candidate.name!r} and {reference.name!r} have {widths[0]} and {widths[1]} numbers; "
            "fidelity is closeness in one space, so compare with the model that this one was made from"
        )
    values = {
        "image_cosine": metrics.cosines(candidate.images, reference.images),
        "neighbour_overlap": metrics.neighbour_overlap(candidate.images, reference.images, NEIGHBOURS),
    }
    text_cosines = np.empty(0)
    candidate_gallery, reference_gallery = candidate.images, reference.images
    if candidate.texts is not None and reference.texts is not None:
        text_cosines = metrics.cosines(candidate.texts, reference.texts)
        candidate_gallery, reference_gallery = candidate.texts, reference.texts
    chosen = evenly(len(candidate_gallery), GALLERY)
    candidate_gallery, reference_gallery = candidate_gallery[chosen], reference_gallery[chosen]
    if len(chosen) > 1:
        values["rank_agreement"] = metrics.rank_agreement(
            candidate.images, reference.images, candidate_gallery, reference_gallery
        )
    if len(text_cosines):
        found, expected = candidate.images @ candidate_gallery.T, reference.images @ reference_gallery.T
        values["kl"] = metrics.kl_divergence(reference.logit_scale * expected, candidate.logit_scale * found)
        values["top1_agreement"] = metrics.top1_agreement(expected, found)
    return FidelityResult(
        candidate=candidate.name, reference=reference.name, ids=ids, values=values, text_cosines=text_cosines
    )


@dataclass(frozen=True, kw_only=True)
class EmbeddedResult(TaskResult):
    """What a model embeds: no score of its own, but what closeness is measured between."""

    embedded: Embedded
    ids: tuple[str, ...]


def embed_all(work: "Work") -> EmbeddedResult:
    """Run the task: the embeddings of all pictures, and of the classes or captions where the data have any."""
    embedded = work.embedded
    protocol = Protocol(task="fidelity", dataset=work.data.digest, samples=len(work.data), settings=())
    return EmbeddedResult(model=embedded.name, protocol=protocol, outcomes={}, embedded=embedded, ids=work.data.ids)


def closeness(candidate: TaskResult, reference: TaskResult, max_drop_points: float | None) -> FidelityResult:
    """Compare two results of `embed_all`; there is no verdict on closeness."""
    del max_drop_points
    assert isinstance(candidate, EmbeddedResult)
    assert isinstance(reference, EmbeddedResult)
    return compare_embeddings(candidate.embedded, reference.embedded, candidate.ids)


def too_few_to_compare(data: ImageSet) -> str | None:
    """Say why there are no ranks to compare."""
    return None if len(data) >= FEWEST else "one picture has no neighbours"


def evenly(count: int, at_most: int) -> NDArray[np.int64]:
    """Return up to `at_most` indices spread evenly over range(count)."""
    return np.unique(np.linspace(0, count - 1, min(count, at_most)).round().astype(np.int64))


def _summarize(values: NDArray[np.float64], larger_is_closer: bool) -> Measure:
    worst, mark = (values.min(), 0.01) if larger_is_closer else (values.max(), 0.99)
    return Measure(
        mean=bootstrap_mean(values, np.arange(len(values))),
        percentile_1=float(np.quantile(values, mark)),
        median=float(np.median(values)),
        worst=float(worst),
    )
