import pytest

from vlmquant.metrics.captions.rouge import longest_common_subsequence, rouge_l


@pytest.mark.parametrize(
    ("first", "second", "length"),
    [("a b c d", "a c d", 3), ("a b", "b a", 1), ("a a b", "a b a", 2), ("a", "b", 0), ("c a b c", "a c b", 2)],
)
def test_longest_common_subsequence(first: str, second: str, length: int) -> None:
    assert longest_common_subsequence(first.split(), second.split()) == length
    assert longest_common_subsequence(second.split(), first.split()) == length


def test_one_reference_by_hand() -> None:
    # Common 2 of 2 and 2 of 4 words: P = 1, R = 0.5, F = 2.44 * 0.5 / (0.5 + 1.44).
    assert rouge_l("a b", ["a x b y"]) == pytest.approx(1.22 / 1.94, abs=1e-15)


def test_precision_and_recall_may_come_from_different_references() -> None:
    # The first gives P = 3/4, R = 3/6, the second P = 1/4, R = 1.
    assert rouge_l("a b c d", ["a b c x y z", "d"]) == pytest.approx(2.44 * 0.75 / (1 + 1.44 * 0.75), abs=1e-15)


def test_nothing_in_common_is_zero_and_equal_is_one() -> None:
    assert rouge_l("a b", ["c d"]) == 0.0
    assert rouge_l("a b", ["c", "a b"]) == pytest.approx(1.0, abs=1e-15)
    assert rouge_l("", ["a"]) == 0.0
