"""Closeness of embeddings, by hand and against SciPy."""

import numpy as np
import pytest

from vlmquant.metrics.fidelity import cosines, kl_divergence, neighbour_overlap, rank_agreement, top1_agreement


def rows(seed: int, count: int = 40, width: int = 8) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_a_model_is_exactly_like_itself() -> None:
    same = rows(0)
    assert (cosines(same, same) == 1).all()
    assert (rank_agreement(same, same, rows(1), rows(1)) == 1).all()
    assert (neighbour_overlap(same, same) == 1).all()
    assert (kl_divergence(same, same) == 0).all()
    assert (top1_agreement(same, same) == 1).all()


def test_cosines_by_hand() -> None:
    a = np.array([[1, 0], [3, 4], [1, 0]], dtype=np.float32)
    b = np.array([[0, 2], [4, 3], [-5, 0]], dtype=np.float32)
    np.testing.assert_allclose(cosines(a, b), [0, 0.96, -1], atol=1e-12)


def test_rank_agreement_equals_scipy_with_ties() -> None:
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(2)
    a, b = (random.integers(-2, 3, (300, 4)).astype(np.float32) for _ in range(2))
    gallery_a, gallery_b = (random.integers(-2, 3, (25, 4)).astype(np.float32) for _ in range(2))
    found = rank_agreement(a, b, gallery_a, gallery_b)
    for i in range(0, 300, 7):
        left, right = gallery_a @ a[i], gallery_b @ b[i]
        if np.ptp(left) and np.ptp(right):
            assert found[i] == pytest.approx(stats.spearmanr(left, right).statistic, abs=1e-12)
        else:
            assert found[i] == float(np.ptp(left) == np.ptp(right))


def test_neighbours_by_hand() -> None:
    angles = np.deg2rad([0, 10, 30, 90])
    a = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    angles[1] = np.deg2rad(80)
    b = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    # Nearest one: before 0-1, 1-0, 2-1, 3-2; afterwards 0-2, 1-3, 2-0, 3-1.
    assert neighbour_overlap(a, b, k=1).tolist() == [0, 0, 0, 0]
    assert neighbour_overlap(a, b, k=2).tolist() == [1.0, 0.5, 1.0, 1.0]
    assert neighbour_overlap(a, b, k=50).tolist() == [1, 1, 1, 1]


def test_kl_by_hand() -> None:
    p = np.log(np.array([[0.5, 0.5], [0.25, 0.75]], dtype=np.float32))
    q = np.log(np.array([[0.25, 0.75], [0.25, 0.75]], dtype=np.float32)) + 100
    expected = 0.5 * np.log(2) + 0.5 * np.log(0.5 / 0.75)
    np.testing.assert_allclose(kl_divergence(p, q), [expected, 0], atol=1e-5)


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="one shape"):
        cosines(rows(0), rows(0, 39))
    with pytest.raises(ValueError, match="at least two samples"):
        neighbour_overlap(rows(0, 1), rows(0, 1))
    with pytest.raises(ValueError, match="at least two items"):
        rank_agreement(rows(0), rows(0), rows(1, 1), rows(1, 1))
