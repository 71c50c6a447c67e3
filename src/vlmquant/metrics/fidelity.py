"""How close one model's embeddings are to another's, without any label. Arrays in, one number per sample out."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Samples = NDArray[np.float64]

BLOCK_ROWS = 256


def cosines(candidate: FloatArray, reference: FloatArray) -> Samples:
    """Return (n,) the cosine of each row of (n, d) with the same row of the other; equal rows give exactly 1."""
    _require_alike(candidate, reference)
    a, b = candidate.astype(np.float64), reference.astype(np.float64)
    product = (a * b).sum(axis=1)
    norms = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return np.where((candidate == reference).all(axis=1), 1.0, np.clip(product / norms, -1.0, 1.0))


def rank_agreement(
    candidate: FloatArray, reference: FloatArray, candidate_gallery: FloatArray, reference_gallery: FloatArray
) -> Samples:
    """Return (n,) Spearman's rho between the two orders in which each sample ranks a gallery, in [-1, 1].

    The galleries are (m, d), the same items embedded by either model. Equal scores share the mean of their ranks.
    """
    _require_alike(candidate, reference)
    _require_alike(candidate_gallery, reference_gallery)
    if len(candidate_gallery) < 2:
        raise ValueError("ranks need a gallery of at least two items")
    found = []
    for start in range(0, len(candidate), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        a = _ranks(candidate[rows] @ candidate_gallery.T)
        b = _ranks(reference[rows] @ reference_gallery.T)
        found.append(_correlation(a, b))
    return np.concatenate(found)


def neighbour_overlap(candidate: FloatArray, reference: FloatArray, k: int = 10) -> Samples:
    """Return (n,) the share in [0, 1] of each sample's k nearest other samples that both models agree on.

    `k` is cut to n - 1. Where the k-th place is tied, the lower index is taken, by both models alike.
    """
    _require_alike(candidate, reference)
    if len(candidate) < 2:
        raise ValueError("neighbours need at least two samples")
    k = min(k, len(candidate) - 1)
    found = []
    for start in range(0, len(candidate), BLOCK_ROWS):
        a, b = _nearest(candidate, start, k), _nearest(reference, start, k)
        found.append((a[:, :, None] == b[:, None, :]).any(axis=2).mean(axis=1))
    return np.concatenate(found)


def kl_divergence(reference_logits: FloatArray, candidate_logits: FloatArray) -> Samples:
    """Return (n,) KL(reference || candidate) in nats of the softmax of two (n, m) logit arrays."""
    p, q = _log_softmax(reference_logits), _log_softmax(candidate_logits)
    return np.asarray(np.maximum((np.exp(p) * (p - q)).sum(axis=1), 0.0), dtype=np.float64)


def top1_agreement(reference_scores: FloatArray, candidate_scores: FloatArray) -> Samples:
    """Return (n,) 1 where both (n, m) score arrays have their maximum at the same place, 0 elsewhere."""
    return np.asarray(reference_scores.argmax(axis=1) == candidate_scores.argmax(axis=1), dtype=np.float64)


def _nearest(rows: FloatArray, start: int, k: int) -> NDArray[np.int64]:
    scores = rows[start : start + BLOCK_ROWS] @ rows.T
    own = np.arange(len(scores))
    scores[own, own + start] = -np.inf
    return np.asarray(np.argsort(-scores, axis=1, kind="stable")[:, :k], dtype=np.int64)


def _ranks(scores: FloatArray) -> Samples:
    """Return the rank of every score within its row, ties sharing their mean rank."""
    order = np.argsort(scores, axis=1, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=1)
    place = np.arange(scores.shape[1])[None, :]
    edge = np.ones((len(scores), 1), dtype=bool)
    differs = ordered[:, 1:] != ordered[:, :-1]
    first = np.maximum.accumulate(np.where(np.concatenate([edge, differs], axis=1), place, 0), axis=1)
    ends = np.where(np.concatenate([differs, edge], axis=1), place, place[0, -1])
    last = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    ranks = np.empty(scores.shape, dtype=np.float64)
    np.put_along_axis(ranks, order, (first + last) / 2, axis=1)
    return ranks


def _correlation(a: Samples, b: Samples) -> Samples:
    """Return Pearson's correlation of the rows; two constant rows agree (1), one constant row says nothing (0)."""
    a = a - a.mean(axis=1, keepdims=True)
    b = b - b.mean(axis=1, keepdims=True)
    power = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    flat = power == 0
    rho = (a * b).sum(axis=1) / np.where(flat, 1.0, power)
    same = (a == b).all(axis=1)
    return np.where(same, 1.0, np.clip(np.where(flat, 0.0, rho), -1.0, 1.0))


def _log_softmax(logits: FloatArray) -> Samples:
    values = logits.astype(np.float64)
    values -= values.max(axis=1, keepdims=True)
    return np.asarray(values - np.log(np.exp(values).sum(axis=1, keepdims=True)), dtype=np.float64)


def _require_alike(candidate: FloatArray, reference: FloatArray) -> None:
    if candidate.shape != reference.shape or candidate.ndim != 2:
        raise ValueError(f"expected two (n, d) arrays of one shape, got {candidate.shape} and {reference.shape}")
