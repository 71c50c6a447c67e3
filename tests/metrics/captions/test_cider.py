import math

import pytest

from vlmquant.metrics.captions.cider import cider


def test_a_perfect_caption_of_one_reference_scores_ten() -> None:
    captions = ["a b c d", "e f g h"]
    assert cider(captions, [[text] for text in captions]) == pytest.approx([10.0, 10.0], abs=1e-12)


def test_words_of_every_image_are_worth_nothing() -> None:
    # "a" is in both images: weight 0. Unigram cosine of {b} with {b, c}: 1 / sqrt(2); no bigram is shared.
    scores = cider(["a b", "z"], [["a c b"], ["a y"]])
    # One bigram against two.
    penalty = math.exp(-1 / 72)
    assert scores[0] == pytest.approx(10 / 4 / math.sqrt(2) * penalty, abs=1e-12)
    assert scores[1] == 0.0


def test_repeating_a_word_does_not_pay() -> None:
    # min(3 w, w) * w / (3 w * w) = 1/3 for the unigrams; two bigrams against none.
    scores = cider(["b b b", "c"], [["b"], ["d"]])
    assert scores[0] == pytest.approx(10 / 4 / 3 * math.exp(-4 / 72), abs=1e-12)


def test_the_mean_over_references() -> None:
    scores = cider(["a b c d", "x"], [["a b c d", "q r s t"], ["y"]])
    assert scores[0] == pytest.approx(5.0, abs=1e-12)


def test_one_image_scores_zero() -> None:
    assert cider(["a b c d"], [["a b c d"]]).tolist() == [0.0]


def test_rarity_comes_from_the_evaluated_references() -> None:
    two = cider(["a b", "c d"], [["a c"], ["c d"]])
    three = cider(["a b", "c d", "e"], [["a c"], ["c d"], ["f"]])
    assert two[0] != pytest.approx(three[0], abs=1e-3)
