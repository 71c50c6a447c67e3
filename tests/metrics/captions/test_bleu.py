import math

import numpy as np
import pytest

from vlmquant.metrics.captions.bleu import count_bleu


def test_counts_are_clipped_by_the_reference_that_has_most() -> None:
    counts = count_bleu(["the the the the cat"], [["the cat", "the the dog"]])
    # "the" at most twice, "cat" once; of the bigrams "the the" once and "the cat" once.
    assert counts.matches.tolist() == [[3, 2, 0, 0]]
    assert counts.guesses.tolist() == [[5, 4, 3, 2]]


@pytest.mark.parametrize(("references", "closest"), [(["a b", "a b c d"], 2), (["a b c d e", "a b c d"], 4)])
def test_the_closest_reference_length_is_the_shorter_on_a_tie(references: list[str], closest: int) -> None:
    assert count_bleu(["a b c"], [references]).reference_lengths.tolist() == [closest]


def test_a_short_caption_pays_for_its_length() -> None:
    scores = count_bleu(["a b"], [["a b c d"]]).per_item()[0]
    assert scores[:2] == pytest.approx([math.exp(-1), math.exp(-1)], abs=1e-8)


def test_a_long_caption_pays_only_through_precision() -> None:
    assert count_bleu(["a b c d"], [["a b"]]).per_item()[0, 0] == pytest.approx(0.5, abs=1e-8)


def test_corpus_bleu_pools_the_counts() -> None:
    counts = count_bleu(["a b c d", "x y"], [["a b c d"], ["p q"]])
    assert counts.corpus(np.ones(2))[:2] == pytest.approx([4 / 6, math.sqrt(4 / 6 * 3 / 4)], abs=1e-8)


def test_weights_repeat_captions() -> None:
    texts, references = ["a b c d e", "a c e"], [["a b c e d"], ["a b c", "c e a"]]
    repeated = count_bleu([texts[0], texts[1], texts[1]], [references[0], references[1], references[1]])
    weights = np.array([[1.0, 2.0], [1.0, 0.0]])
    scores = count_bleu(texts, references).corpus(weights)
    assert scores[0] == pytest.approx(repeated.corpus(np.ones(3)), abs=1e-15)
    assert scores[1] == pytest.approx(count_bleu(texts[:1], references[:1]).corpus(np.ones(1)), abs=1e-15)


def test_an_empty_caption_scores_zero() -> None:
    assert count_bleu([""], [["a b"]]).per_item() == pytest.approx(np.zeros((1, 4)), abs=1e-12)
