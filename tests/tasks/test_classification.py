"""Zero-shot classification with an encoder that can be worked out by hand."""

import numpy as np
import pytest
from colour_encoder import ColourEncoder, ConstantEncoder, plain

from vlmquant.errors import DataError
from vlmquant.tasks.classification import zero_shot
from vlmquant.tasks.encode import embed_classes

NAMES = ("red", "green", "blue")


def test_scores_by_hand() -> None:
    images = [plain("red"), plain("blue"), plain("blue"), plain("lime")]
    result = zero_shot(ColourEncoder(), images, [0, 2, 0, 1], NAMES, ["a photo of a {}."], ids=["a", "b", "c", "d"])
    assert result.top1 == 0.75
    assert result.predictions.tolist() == [0, 2, 2, 1]
    assert result.outcomes["top1"].answers == ("red", "blue", "blue", "green")
    assert result.outcomes["top1"].values.tolist() == [1, 1, 0, 1]
    assert result.details["per_class_recall"] == [0.5, 1.0, 1.0]
    assert result.details["confusion"] == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]
    assert result.metrics == {"top1": 0.75}
    with pytest.raises(DataError, match="at least six classes"):
        _ = result.top5


def test_prompts_are_normalized_averaged_and_normalized_again() -> None:
    encoder = ColourEncoder()
    rows = embed_classes(encoder, ["red"], ["{}", "{} and green"])
    first, second = encoder.encode_texts(["red", "red and green"]).astype(np.float64)
    mean = (first + second) / 2
    np.testing.assert_allclose(rows[0], mean / np.linalg.norm(mean), atol=1e-7)


def test_ties_count_by_expectation() -> None:
    names = [f"class {i}" for i in range(10)]
    result = zero_shot(ConstantEncoder(), [plain("red")] * 7, [0, 3, 9, 9, 1, 2, 3], names, ["{}"])
    assert result.top1 == pytest.approx(0.1, abs=1e-15)
    assert result.top5 == 0.5
    assert result.details["tie_rate"] == 1.0


def test_not_a_number_is_refused_with_the_name() -> None:
    class Broken(ColourEncoder):
        def encode_images(self, images):  # type: ignore[no-untyped-def]
            rows = super().encode_images(images)
            rows[1] = np.nan
            return rows

    with pytest.raises(DataError, match=r"image embeddings of 1 of 2 samples are not finite: second\.jpg"):
        zero_shot(Broken(), [plain("red")] * 2, [0, 0], NAMES, ["{}"], ids=["first.jpg", "second.jpg"])


@pytest.mark.parametrize(
    ("names", "templates", "message"),
    [
        (NAMES, [], "at least one template"),
        (NAMES, ["a photo"], "must contain {} once"),
        (("red", "red"), ["{}"], "differ from each other"),
    ],
)
def test_unusable_names_and_templates(names: tuple[str, ...], templates: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        zero_shot(ColourEncoder(), [plain("red")], [0], names, templates)


def test_labels_beyond_the_classes_and_no_images() -> None:
    with pytest.raises(DataError, match="labels must be in"):
        zero_shot(ColourEncoder(), [plain("red")], [3], NAMES, ["{}"])
    with pytest.raises(DataError, match="no image"):
        zero_shot(ColourEncoder(), [], [], NAMES, ["{}"])


def test_the_signature_follows_pictures_labels_and_templates() -> None:
    def signature(colour: str, label: int, template: str) -> str:
        return str(zero_shot(ColourEncoder(), [plain(colour)], [label], NAMES, [template]).protocol)

    same = signature("red", 0, "{}")
    assert same == signature("red", 0, "{}")
    assert len({same, signature("blue", 0, "{}"), signature("red", 1, "{}"), signature("red", 0, "a {}")}) == 4
