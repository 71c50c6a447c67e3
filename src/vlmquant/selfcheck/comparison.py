"""Ranking, significance and intervals against values worked out by hand."""

from collections.abc import Iterator

import numpy as np

from vlmquant.metrics.intervals import Z, mcnemar_p, score_interval
from vlmquant.metrics.ranking import rank_gallery
from vlmquant.selfcheck.result import Check, close

GALLERY = 40


def check_ranking() -> Iterator[Check]:
    """A model whose embeddings are all equal must score exactly k / n, a perfect one 1."""
    owners = np.arange(GALLERY)
    equal = np.full((GALLERY, 4), 0.5, dtype=np.float32)
    perfect = np.eye(GALLERY, dtype=np.float32)
    for k in (1, 5, 10):
        blind = rank_gallery(equal, equal, owners, owners).recall(k)
        yield close(f"recall@{k}, all embeddings equal", blind, k / GALLERY, 1e-12)
    yield close("recall@1, perfect embeddings", rank_gallery(perfect, perfect, owners, owners).recall(1), 1.0, 0.0)


def check_mcnemar() -> Iterator[Check]:
    """The exact p-value is a sum of binomial coefficients over a power of two."""
    yield close("McNemar p, 1 loss and 9 gains", mcnemar_p(1, 9), 2 * (1 + 10) / 2**10, 1e-15)
    yield close("McNemar p, 3 losses and 3 gains", mcnemar_p(3, 3), 1.0, 0.0)


def check_paired_interval() -> Iterator[Check]:
    """Tango's interval has a closed form where no answer changed, z^2 / (n + z^2), and turns over with the signs."""
    for pairs in (50, 10_000):
        yield close(
            f"95 % interval, no change of {pairs}", score_interval(0, 0, pairs)[1], Z**2 / (pairs + Z**2), 1e-12
        )
    (low, high), (other_low, other_high) = score_interval(9, 2, 70), score_interval(2, 9, 70)
    yield close("95 % interval, losses and gains exchanged", low + high, -(other_low + other_high), 1e-12)
