import math

import numpy as np
import pytest

from vlmquant.errors import DataError
from vlmquant.video.prompts import ACTIVITY, BACKGROUNDS, TEMPLATES, contrast, normalized
from vlmquant.video.score import EventQuery, Scorer


class TextEncoder:
    """Every text gets the unit vector that `vectors` has for the first phrase found in it, else the last axis."""

    name = "fake"

    def __init__(self, vectors: dict[str, list[float]], logit_scale: float = 2.0) -> None:
        self.vectors = {text: np.array(row, np.float32) / np.linalg.norm(row) for text, row in vectors.items()}
        self.logit_scale = logit_scale
        self.calls: list[list[str]] = []

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        self.calls.append(list(texts))
        other = np.array([0, 0, 1], np.float32)
        return np.stack([next((v for t, v in self.vectors.items() if t in text), other) for text in texts])

    def encode_images(self, images: list[np.ndarray]) -> np.ndarray:
        raise NotImplementedError


def test_probability_by_hand_with_one_phrase_per_side() -> None:
    encoder = TextEncoder({"a zebra": [1, 0, 0]})  # every background is (0, 0, 1)
    scorer = Scorer(encoder, [EventQuery.from_text("a zebra")])
    images = np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0], [0.6, 0, 0.8]], np.float32)
    probability = scorer.scores(images)
    assert probability.shape == (4, 1)
    assert probability.dtype == np.float32
    expected = [1 / (1 + math.exp(-2 * margin)) for margin in (1, -1, 0, -0.2)]
    np.testing.assert_allclose(probability[:, 0], expected, rtol=1e-6)


def test_probability_by_hand_with_several_prompts() -> None:
    encoder = TextEncoder({"a zebra": [1, 0, 0], "a puppy": [0, 1, 0]}, logit_scale=1.0)
    scorer = Scorer(encoder, [EventQuery("zebra", ("a zebra", "a puppy"))])
    (probability,) = scorer.scores(np.array([[1, 0, 0]], np.float32))[0]
    inside, outside = (math.e + 1) / 2, 1.0
    assert probability == pytest.approx(inside / (inside + outside), rel=1e-6)


def test_an_image_equally_near_to_everything_scores_one_half_with_any_number_of_phrases() -> None:
    scorer = Scorer(TextEncoder({}), [EventQuery("e", ("one", "two", "three"), ("not this",))])
    np.testing.assert_allclose(scorer.scores(np.array([[0.3, 0.4, 0.866]], np.float32)), 0.5)


def test_a_negative_lowers_the_score_of_what_it_names() -> None:
    vectors = {"a zebra": [1, 0, 0], "a cat": [0.9, 0.436, 0]}
    cat = np.array([[0.9, 0.436, 0]], np.float32)
    plain = Scorer(TextEncoder(vectors), [EventQuery.from_text("a zebra")]).scores(cat)
    against = Scorer(TextEncoder(vectors), [EventQuery.from_text("a zebra", ["a cat"])]).scores(cat)
    assert against < plain


def test_scores_stay_finite_at_clip_scale() -> None:
    scorer = Scorer(TextEncoder({"a zebra": [1, 0, 0]}, logit_scale=1000.0), [EventQuery.from_text("a zebra")])
    np.testing.assert_allclose(scorer.scores(np.array([[1, 0, 0], [-1, 0, 0]], np.float32))[:, 0], [1, 0.0])


def test_every_text_is_embedded_once_in_the_constructor() -> None:
    encoder = TextEncoder({})
    scorer = Scorer(encoder, [EventQuery.from_text("a zebra"), EventQuery.from_text("a cat")])
    scorer.scores(np.eye(3, dtype=np.float32))
    scorer.scores(np.eye(3, dtype=np.float32))
    (texts,) = encoder.calls
    assert len(texts) == len(set(texts)) == (2 + len(BACKGROUNDS) + len(ACTIVITY)) * len(TEMPLATES)
    assert scorer.names == ("a zebra", "a cat")


def test_columns_follow_the_queries_and_rows_are_independent() -> None:
    vectors = {"a zebra": [1, 0, 0], "a cat": [0, 1, 0]}
    scorer = Scorer(TextEncoder(vectors), [EventQuery.from_text("a zebra"), EventQuery.from_text("a cat")])
    both = scorer.scores(np.eye(3, dtype=np.float32)[:2])
    assert both[0, 0] > both[0, 1]
    assert both[1, 1] > both[1, 0]
    np.testing.assert_array_equal(scorer.scores(np.eye(3, dtype=np.float32)[1:2])[0], both[1])


def test_a_nan_embedding_stays_nan_for_the_detector_to_refuse() -> None:
    scorer = Scorer(TextEncoder({}), [EventQuery.from_text("a zebra")])
    assert np.isnan(scorer.scores(np.full((1, 3), np.nan, np.float32))).all()


@pytest.mark.parametrize("text", ["an empty street", "Empty street.", "THE EMPTY STREET"])
def test_an_event_that_is_a_background_is_weighed_against_activity(text: str) -> None:
    assert contrast((text,), ("snow",)) == (*ACTIVITY, "snow")


def test_other_events_are_weighed_against_background_activity_and_their_negatives() -> None:
    query = EventQuery.from_text("a zebra", ["a cat", "an empty road"])
    assert query.contrast == (*BACKGROUNDS, *ACTIVITY, "a cat")


def test_an_event_is_not_weighed_against_itself() -> None:
    assert "a person walking" not in contrast(("The person walking",), ())


def test_normalized_ignores_articles_case_and_punctuation_only() -> None:
    assert normalized("The  Empty, street!") == normalized("an empty street") == "empty street"
    assert normalized("streets") != normalized("street")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (lambda: EventQuery("e", ()), "no prompt"),
        (lambda: EventQuery.from_text("  "), "no words"),
        (lambda: EventQuery("e", ("a dog", "?")), "no words"),
        (lambda: EventQuery.from_text("a dog", ["The dog"]), "both a prompt and a negative"),
        (lambda: EventQuery("all", ("a street", *ACTIVITY)), "give it a negative"),
        (lambda: Scorer(TextEncoder({}), []), "no event"),
        (lambda: Scorer(TextEncoder({}), [EventQuery.from_text("a"), EventQuery.from_text("b")]), "no words"),
        (lambda: Scorer(TextEncoder({}), [EventQuery.from_text("dog"), EventQuery.from_text("dog")]), "must differ"),
    ],
)
def test_bad_queries_are_refused(query, words: str) -> None:
    with pytest.raises(DataError, match=words):
        query()


def test_a_text_that_is_not_utf8_is_refused():
    with pytest.raises(DataError, match="is not UTF-8"):
        EventQuery.from_text("a caf\udce9")
