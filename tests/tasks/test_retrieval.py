"""Retrieval with an encoder that can be worked out by hand."""

import pytest
from colour_encoder import ColourEncoder, ConstantEncoder, plain

from vlmquant.errors import DataError
from vlmquant.tasks.retrieval import retrieval

IMAGES = [plain("red"), plain("lime"), plain("blue")]
CAPTIONS = [["a red wall", "red"], ["a green wall", "blue by mistake"], ["a blue wall", "the blue sea"]]


def test_both_directions_by_hand() -> None:
    result = retrieval(ColourEncoder(), IMAGES, CAPTIONS, ids=["r", "g", "b"])
    # Both captions "a blue wall"/"the blue sea" and the mistaken one are level for the blue picture: 1 - 1/3.
    assert result.image_to_text(1) == pytest.approx((1 + 1 + 2 / 3) / 3)
    assert result.text_to_image(1) == pytest.approx(5 / 6)
    assert result.text_to_image(10) == 1.0
    outcome = result.outcomes["text_to_image_r1"]
    assert outcome.ids == ("r#0", "r#1", "g#0", "g#1", "b#0", "b#1")
    assert outcome.clusters == ("r", "r", "g", "g", "b", "b")
    assert outcome.answers[3] == "b"
    assert set(result.metrics) == {f"{way}_r{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)}


def test_equal_embeddings_give_exactly_chance() -> None:
    captions = [[f"caption {i}"] for i in range(21)]
    result = retrieval(ConstantEncoder(), [plain("red")] * 21, captions)
    for k in (1, 5, 10):
        assert result.image_to_text(k) == k / 21
        assert result.text_to_image(k) == k / 21


def test_a_picture_without_captions_is_named() -> None:
    with pytest.raises(DataError, match="1 images have no caption, the first is 'g'"):
        retrieval(ColourEncoder(), IMAGES, [["red"], [], ["blue"]], ids=["r", "g", "b"])
