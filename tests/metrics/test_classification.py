"""Per class, confusion and calibration by hand."""

import numpy as np
import pytest

from vlmquant.metrics.classification import (
    confusion_matrix,
    expected_calibration_error,
    per_class_recall,
    softmax,
)


def test_softmax_does_not_overflow() -> None:
    rows = softmax(np.array([[1000.0, 1000.0], [0.0, np.log(3.0)]], dtype=np.float32))
    np.testing.assert_allclose(rows, [[0.5, 0.5], [0.25, 0.75]], atol=1e-6)


def test_confusion_and_recall() -> None:
    labels, predictions = np.array([0, 0, 1, 3]), np.array([0, 1, 1, 0])
    matrix = confusion_matrix(labels, predictions, 4)
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    hits = (labels == predictions).astype(np.float64)
    assert per_class_recall(hits, labels, 4) == [0.5, 1.0, None, 0.0]


def test_calibration_error_by_hand() -> None:
    confidences = np.array([0.95, 0.95, 0.55, 0.1], dtype=np.float32)
    found = expected_calibration_error(confidences, np.array([1.0, 0.0, 1.0, 0.0]), bins=10)
    assert found.error == pytest.approx((2 * 0.45 + 0.45 + 0.1) / 4, abs=1e-6)
    assert [row["count"] for row in found.rows()] == [1, 1, 2]
    with pytest.raises(ValueError, match="probabilities"):
        expected_calibration_error(np.array([1.2], dtype=np.float32), np.array([1.0]))
