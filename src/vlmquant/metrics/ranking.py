"""Where the right answer stands among the others, with ties and broken numbers treated honestly.

A library that sorts and takes the first k breaks ties by position in the file, so a model whose embeddings are all
equal can score anything from 0 to 100 %. Here a tie is worth its expected value under random tie-breaking, and a
NaN is refused with the name of the sample that produced it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmquant.errors import DataError

FloatArray = NDArray[np.float32]
IdArray = NDArray[np.int64]

TIE_TOLERANCE = 1e-6
"""Scores closer than this are a tie: the rounding of a float32 cosine, which differs between BLAS kernels."""

BLOCK_BYTES = 32 << 20


@dataclass(frozen=True, kw_only=True)
class RankCounts:
    """What decides every "is it in the top k?" of n queries; three int64 arrays of shape (n,).

    `above` counts the gallery items that score higher than the query's best positive, `tied` those level with it
    (itself included), `tied_positives` the positives among the tied. `best` is the index of the gallery's best item,
    the lowest index where several tie.
    """

    above: IdArray
    tied: IdArray
    tied_positives: IdArray
    best: IdArray

    def __len__(self) -> int:
        """Return the number of queries."""
        return len(self.above)

    def hits(self, k: int) -> NDArray[np.float64]:
        """Return (n,) the probability in [0, 1] that a positive is among the first k under random tie-breaking.

        1 - C(T - P, s) / C(T, s) for T tied items, P of them positive, and s places left for them.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        slots = np.clip(k - self.above, 0, self.tied)
        miss = np.ones(len(self))
        for drawn in range(int(self.tied_positives.max(initial=0))):
            factor = np.maximum(self.tied - slots - drawn, 0) / np.maximum(self.tied - drawn, 1)
            miss = np.where(drawn < self.tied_positives, miss * factor, miss)
        # One positive: s / T directly, which is exact where 1 - (T - s) / T rounds.
        return np.where(self.tied_positives == 1, slots / self.tied, 1.0 - miss)

    def recall(self, k: int) -> float:
        """Return the mean of `hits(k)`, in [0, 1]."""
        return math.fsum(self.hits(k)) / len(self)

    def bounds(self, k: int) -> tuple[float, float]:
        """Return the mean hit rate if every tie fell against the positives, and if every tie fell for them."""
        worst = self.above + self.tied - self.tied_positives < k
        return float(worst.mean()), float((self.above < k).mean())

    @property
    def tie_rate(self) -> float:
        """Return the share of queries whose best positive is level with a wrong item."""
        return float((self.tied > self.tied_positives).mean())


def rank_classes(scores: FloatArray, labels: IdArray) -> RankCounts:
    """Rank the right class of each row. `scores` is (n, classes), `labels` (n,) int64 in [0, classes)."""
    scores = np.asarray(scores)
    if scores.ndim != 2 or labels.shape != (len(scores),):
        raise ValueError(f"expected (n, classes) scores and (n,) labels, got {scores.shape} and {labels.shape}")
    if len(labels) and not 0 <= labels.min() <= labels.max() < scores.shape[1]:
        raise DataError(f"labels must be in [0, {scores.shape[1]}), got {labels.min()} to {labels.max()}")
    right = scores[np.arange(len(scores)), labels][:, None]
    tied = np.abs(scores - right) <= TIE_TOLERANCE
    return RankCounts(
        above=(scores > right + TIE_TOLERANCE).sum(axis=1),
        tied=tied.sum(axis=1),
        tied_positives=np.ones(len(scores), dtype=np.int64),
        best=_first_best(scores),
    )


def rank_gallery(queries: FloatArray, gallery: FloatArray, query_owner: IdArray, gallery_owner: IdArray) -> RankCounts:
    """Rank the gallery for every query by inner product, a block of queries at a time.

    `queries` is (n, d) and `gallery` (m, d) float32; a gallery item is a positive of a query when their owners, (n,)
    and (m,) int64, are equal. Every query needs a positive (ValueError). Peak memory is about six blocks of 32 MiB,
    whatever n is.
    """
    counts = np.bincount(gallery_owner, minlength=int(query_owner.max(initial=-1)) + 1)
    if not counts[query_owner].all():
        raise ValueError("every query needs at least one positive in the gallery")
    rows = max(1, BLOCK_BYTES // (4 * len(gallery)))
    blocks = []
    for start in range(0, len(queries), rows):
        scores = queries[start : start + rows] @ gallery.T
        positive = query_owner[start : start + rows, None] == gallery_owner[None, :]
        best_positive = np.where(positive, scores, -np.inf).max(axis=1, keepdims=True)
        tied = np.abs(scores - best_positive) <= TIE_TOLERANCE
        blocks.append(
            (
                np.count_nonzero(scores > best_positive + TIE_TOLERANCE, axis=1),
                np.count_nonzero(tied, axis=1),
                np.count_nonzero(tied & positive, axis=1),
                _first_best(scores),
            )
        )
    above, tied_all, tied_positives, best = (
        np.concatenate(parts).astype(np.int64) for parts in zip(*blocks, strict=True)
    )
    return RankCounts(above=above, tied=tied_all, tied_positives=tied_positives, best=best)


def refuse_non_finite(rows: FloatArray, ids: Sequence[str], what: str) -> None:
    """Raise DataError naming the first five ids whose row of (n, d) holds a NaN or an infinity."""
    broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(broken):
        named = ", ".join(ids[i] for i in broken[:5])
        more = f" and {len(broken) - 5} more" if len(broken) > 5 else ""
        raise DataError(
            f"{what} embeddings of {len(broken)} of {len(rows)} samples are not finite: {named}{more}; "
            "the model overflows on them, so no score is given"
        )


def _first_best(scores: FloatArray) -> IdArray:
    """Return (n,) the lowest index within the tie tolerance of each row's maximum."""
    return np.asarray((scores >= scores.max(axis=1, keepdims=True) - TIE_TOLERANCE).argmax(axis=1), dtype=np.int64)
