"""BLEU-1 to BLEU-4 as coco-caption computes them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmquant.metrics.captions.ngrams import MAX_N, count_ngrams

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

TINY = 1e-15
SMALL = 1e-9
"""coco-caption's guards against dividing by zero; with them, a caption without a match scores about 1e-12."""


@dataclass(frozen=True, kw_only=True)
class BleuCounts:
    """What BLEU is made of, for each of n captions, so that any sample of them can be scored again.

    `matches` and `guesses` are (n, 4) int64: the n-grams of the candidate that occur in a reference, each counted at
    most as often as in the reference that has it most, and all its n-grams. `lengths` and `reference_lengths` are
    (n,) int64: words in the candidate, and in the reference whose length is closest, the shorter one on a tie.
    """

    matches: IntArray
    guesses: IntArray
    lengths: IntArray
    reference_lengths: IntArray

    def per_item(self) -> FloatArray:
        """Return (n, 4) BLEU-1 to BLEU-4 of each caption on its own; their mean is not the corpus score."""
        return bleu(self.matches, self.guesses, self.lengths, self.reference_lengths)

    def corpus(self, weights: FloatArray) -> FloatArray:
        """Return (..., 4) corpus BLEU where caption i counts `weights[..., i]` times."""
        return bleu(
            weights @ self.matches, weights @ self.guesses, weights @ self.lengths, weights @ self.reference_lengths
        )


def bleu(
    matches: IntArray | FloatArray,
    guesses: IntArray | FloatArray,
    lengths: IntArray | FloatArray,
    reference_lengths: IntArray | FloatArray,
) -> FloatArray:
    """Return (..., 4) BLEU-1 to BLEU-4 in [0, 1] from (..., 4) matches and guesses and (...) lengths.

    The geometric mean of the precisions of 1 to n words, times exp(1 - 1 / ratio) where the ratio of the candidates'
    length to the references' is below 1.
    Source: Papineni et al., ACL 2002; constants and closest reference length as in tylin/coco-caption.
    """
    precisions = (matches + TINY) / (guesses + SMALL)
    means = np.cumprod(precisions, axis=-1) ** (1.0 / np.arange(1, MAX_N + 1))
    ratio = (lengths + TINY) / (reference_lengths + SMALL)
    brevity = np.exp(1.0 - 1.0 / np.minimum(ratio, 1.0))
    return np.asarray(means * np.expand_dims(brevity, -1), dtype=np.float64)


def count_bleu(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> BleuCounts:
    """Return the counts for captions of space-separated tokens; `references[i]` belong to `candidates[i]`."""
    rows = [_count(candidate, own) for candidate, own in zip(candidates, references, strict=True)]
    table = np.array(rows, dtype=np.int64).reshape(-1, 2 * MAX_N + 2)
    return BleuCounts(
        matches=table[:, :MAX_N],
        guesses=table[:, MAX_N : 2 * MAX_N],
        lengths=table[:, -2],
        reference_lengths=table[:, -1],
    )


def _count(candidate: str, references: Sequence[str]) -> list[int]:
    matches = [0] * MAX_N
    counted = [count_ngrams(reference) for reference in references]
    for ngram, count in count_ngrams(candidate).items():
        matches[len(ngram) - 1] += min(count, max(reference[ngram] for reference in counted))
    length = len(candidate.split())
    guesses = [max(0, length - n) for n in range(MAX_N)]
    closest = min((abs(words - length), words) for words in (len(reference.split()) for reference in references))[1]
    return [*matches, *guesses, length, closest]
