"""CIDEr as the COCO evaluation computes it, which is CIDEr-D without stemming."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmquant.metrics.captions.ngrams import MAX_N, NGramCounts, count_ngrams

SIGMA = 6.0
"""Standard deviation of the length penalty, in bigrams."""
SCALE = 10.0


@dataclass(frozen=True)
class _Vector:
    """The tf-idf weights of one caption's n-grams, their norm for each n, and its number of bigrams."""

    weights: dict[tuple[str, ...], float]
    norms: list[float]
    length: int


def cider(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Return (n,) CIDEr, in [0, 10], of captions of space-separated tokens; the corpus score is their mean.

    An n-gram is worth the less the more of the n images have it in a reference, so the values belong to this set of
    references: a subset of the images scores differently, and a single image always scores 0.
    Source: Vedantam et al., CVPR 2015; clipping, length penalty and scale as in tylin/coco-caption.
    """
    counted = [[count_ngrams(reference) for reference in own] for own in references]
    frequency: Counter[tuple[str, ...]] = Counter()
    for own in counted:
        frequency.update(set().union(*own))
    log_images = math.log(len(counted)) if counted else 0.0
    rarity = {ngram: log_images - math.log(images) for ngram, images in frequency.items()}
    scores = [
        _score(_vector(count_ngrams(candidate), rarity, log_images), [_vector(c, rarity, log_images) for c in own])
        for candidate, own in zip(candidates, counted, strict=True)
    ]
    return np.array(scores, dtype=np.float64)


def _vector(counts: NGramCounts, rarity: dict[tuple[str, ...], float], unseen: float) -> _Vector:
    squares = [0.0] * MAX_N
    weights = {}
    length = 0
    for ngram, count in counts.items():
        weight = count * rarity.get(ngram, unseen)
        weights[ngram] = weight
        squares[len(ngram) - 1] += weight * weight
        if len(ngram) == 2:
            length += count
    return _Vector(weights, [math.sqrt(square) for square in squares], length)


def _score(candidate: _Vector, references: list[_Vector]) -> float:
    return SCALE * sum(_similarity(candidate, reference) for reference in references) / (MAX_N * len(references))


def _similarity(candidate: _Vector, reference: _Vector) -> float:
    overlaps = [0.0] * MAX_N
    for ngram, weight in candidate.weights.items():
        other = reference.weights.get(ngram)
        if other is not None:
            overlaps[len(ngram) - 1] += min(weight, other) * other
    cosines = (
        overlap / (own * other)
        for overlap, own, other in zip(overlaps, candidate.norms, reference.norms, strict=True)
        if own and other
    )
    return sum(cosines) * math.exp(-((candidate.length - reference.length) ** 2) / (2 * SIGMA**2))
