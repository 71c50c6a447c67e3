"""Ranking with ties by expectation, checked by hand, by brute force and at full size."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmquant.errors import DataError
from vlmquant.metrics import ranking
from vlmquant.metrics.ranking import RankCounts, rank_classes, rank_gallery, refuse_non_finite


def counts(above: int, tied: int, tied_positives: int) -> RankCounts:
    def one(value: int) -> np.ndarray:
        return np.array([value])

    return RankCounts(above=one(above), tied=one(tied), tied_positives=one(tied_positives), best=one(0))


@pytest.mark.parametrize(
    ("above", "tied", "positives", "k", "expected"),
    [
        (0, 1, 1, 1, 1.0),
        (1, 1, 1, 1, 0.0),
        (4, 1, 1, 5, 1.0),
        (5, 1, 1, 5, 0.0),
        (0, 4, 1, 1, 0.25),
        (3, 4, 1, 5, 0.5),
        (0, 6, 2, 3, 1 - math.comb(4, 3) / math.comb(6, 3)),
        (0, 5, 3, 4, 1.0),
    ],
)
def test_hits_by_hand(above: int, tied: int, positives: int, k: int, expected: float) -> None:
    assert counts(above, tied, positives).hits(k)[0] == pytest.approx(expected, abs=1e-15)


@given(
    st.lists(st.sampled_from([0.1, 0.2, 0.3]), min_size=2, max_size=6).flatmap(
        lambda scores: st.tuples(
            st.just(scores),
            st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)).filter(any),
            st.integers(1, len(scores)),
        )
    )
)
@settings(deadline=None, max_examples=60)
def test_hits_equal_the_mean_over_all_orders_of_the_ties(case: tuple[list[float], list[bool], int]) -> None:
    scores, positive, k = case
    orders = list(itertools.permutations(range(len(scores))))
    brute = np.mean([any(positive[i] for i in sorted(order, key=lambda i: -scores[i])[:k]) for order in orders])
    query = np.ones((1, 1), dtype=np.float32)
    gallery = np.array(scores, dtype=np.float32)[:, None]
    owner = np.array([0 if flag else 1 for flag in positive])
    found = rank_gallery(query, gallery, np.array([0]), owner)
    assert found.recall(k) == pytest.approx(brute, abs=1e-12)
    low, high = found.bounds(k)
    assert low <= found.recall(k) + 1e-12
    assert found.recall(k) <= high + 1e-12


@pytest.mark.parametrize("number", [3, 7, 50, 999])
def test_equal_embeddings_give_exactly_k_over_n(number: int) -> None:
    rows = np.full((number, 16), 0.25, dtype=np.float32)
    found = rank_gallery(rows, rows, np.arange(number), np.arange(number))
    for k in (1, 3):
        assert found.recall(k) == k / number
    assert found.tie_rate == 1.0
    assert found.bounds(1) == (0.0, 1.0)


def test_several_captions_of_one_picture_and_the_transpose() -> None:
    images = np.eye(3, dtype=np.float32)
    texts = np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0, 1, 0], [0.6, 0.4, 0], [0, 0.9, 0.3]], dtype=np.float32)
    owner = np.array([0, 0, 1, 1, 2])
    forward = rank_gallery(images, texts, np.arange(3), owner)
    assert forward.above.tolist() == [0, 0, 0]
    assert forward.best.tolist() == [0, 2, 4]
    backward = rank_gallery(texts, images, owner, np.arange(3))
    # Captions 1 (of picture 0) and 3 (of picture 1) prefer the other picture, caption 4 (of 2) prefers picture 1.
    assert backward.above.tolist() == [0, 1, 0, 1, 1]
    assert backward.recall(1) == pytest.approx(2 / 5)
    assert backward.recall(2) == 1.0


def test_blocks_and_the_order_of_the_gallery_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    images = random.standard_normal((40, 8)).astype(np.float32)
    texts = np.repeat(images, 5, axis=0) + random.standard_normal((200, 8)).astype(np.float32)
    owner = np.repeat(np.arange(40), 5)
    whole = rank_gallery(images, texts, np.arange(40), owner)
    monkeypatch.setattr(ranking, "BLOCK_BYTES", 4 * 200 * 7)
    blocked = rank_gallery(images, texts, np.arange(40), owner)
    shuffle = random.permutation(200)
    shuffled = rank_gallery(images, texts[shuffle], np.arange(40), owner[shuffle])
    for other in (blocked, shuffled):
        np.testing.assert_array_equal(whole.above, other.above)
        np.testing.assert_array_equal(whole.tied, other.tied)
    scores = images @ texts.T
    first = [next(r for r, j in enumerate(np.argsort(-row)) if owner[j] == i) for i, row in enumerate(scores)]
    assert whole.above.tolist() == first


def test_rank_classes_by_hand() -> None:
    scores = np.array([[0.5, 0.2, 0.1], [0.3, 0.3, 0.1], [0.1, 0.2, 0.3]], dtype=np.float32)
    found = rank_classes(scores, np.array([0, 1, 0]))
    assert found.hits(1).tolist() == [1.0, 0.5, 0.0]
    assert found.hits(2).tolist() == [1.0, 1.0, 0.0]
    assert found.best.tolist() == [0, 0, 2]


def test_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match=r"labels must be in \[0, 2\)"):
        rank_classes(np.zeros((1, 2), dtype=np.float32), np.array([2]))
    with pytest.raises(ValueError, match="at least one positive"):
        rank_gallery(np.ones((1, 2), np.float32), np.ones((1, 2), np.float32), np.array([1]), np.array([0]))
    with pytest.raises(ValueError, match="k must be"):
        counts(0, 1, 1).hits(0)
    rows = np.ones((3, 2), dtype=np.float32)
    refuse_non_finite(rows, "abc", "image")
    rows[1, 0] = np.nan
    with pytest.raises(DataError, match="image embeddings of 1 of 3 samples are not finite: b;"):
        refuse_non_finite(rows, "abc", "image")


def test_full_size_stays_under_one_gigabyte() -> None:
    images = np.ones((500, 512), dtype=np.float32)
    texts = np.ones((25_010, 512), dtype=np.float32)
    owner = np.minimum(np.arange(25_010) // 5, 499)
    import tracemalloc

    tracemalloc.start()
    try:
        rank_gallery(images, texts, np.arange(500), owner)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 400e6
