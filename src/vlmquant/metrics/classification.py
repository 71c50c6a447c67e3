"""Numbers about a classifier's answers: per class, confusion, calibration."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IdArray = NDArray[np.int64]


def softmax(logits: FloatArray) -> FloatArray:
    """Return the probabilities of each row of (n, classes) logits, float32, computed in float64."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    np.exp(shifted, out=shifted)
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)


def confusion_matrix(labels: IdArray, predictions: IdArray, classes: int) -> IdArray:
    """Return (classes, classes) int64 counts: row = the right class, column = the predicted one."""
    counts = np.bincount(labels * classes + predictions, minlength=classes * classes)
    return np.asarray(counts.reshape(classes, classes), dtype=np.int64)


def per_class_recall(hits: NDArray[np.float64], labels: IdArray, classes: int) -> list[float | None]:
    """Return the mean of (n,) hits over each class's samples; None for a class that has none."""
    sizes = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, weights=hits, minlength=classes)
    return [float(total / size) if size else None for total, size in zip(sums, sizes, strict=True)]


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy. `error` is the expected calibration error in [0, 1].

    `counts`, `mean_confidence` and `accuracy` have one entry per bin of equal width; an empty bin has NaN means.
    """

    error: float
    counts: IdArray
    mean_confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    def rows(self) -> list[dict[str, float | int]]:
        """Return the bins that are not empty, for a table or JSON."""
        return [
            {"count": int(count), "confidence": float(confidence), "accuracy": float(accuracy)}
            for count, confidence, accuracy in zip(self.counts, self.mean_confidence, self.accuracy, strict=True)
            if count
        ]


def expected_calibration_error(confidences: FloatArray, hits: NDArray[np.float64], bins: int = 15) -> Reliability:
    """Return the weighted mean gap between confidence and accuracy over `bins` bins ((i/bins, (i+1)/bins]).

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 3.
    """
    values = confidences.astype(np.float64)
    if not len(values) or values.min() < 0 or values.max() > 1 + 1e-6:
        raise ValueError("confidences must be probabilities, and at least one is needed")
    position = np.clip(np.ceil(values * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(position, minlength=bins)
    filled = np.where(counts, counts, np.nan)
    confidence = np.bincount(position, weights=values, minlength=bins) / filled
    accuracy = np.bincount(position, weights=hits, minlength=bins) / filled
    gaps = np.nan_to_num(np.abs(confidence - accuracy)) * counts
    return Reliability(float(gaps.sum() / len(values)), counts.astype(np.int64), confidence, accuracy)
