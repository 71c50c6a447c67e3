"""Captions that CLIP steers: on a toy language whose probabilities and cosines are known by hand."""

from collections.abc import Sequence

import numpy as np
import pytest

from vlmquant.errors import DataError
from vlmquant.lab.guided import GuidedOptions, guided_captions
from vlmquant.models.spec import FloatArray, IdArray, Image

WORDS = ("<s>", "red", "blue", "bus", "car", "</s>")
PICTURE = np.zeros((4, 4, 3), dtype=np.uint8)


class ToyLanguage:
    """Prefers "red" to "blue" and "car" to "bus"; two words, then the end."""

    name = "toy"
    end_ids = frozenset({5})

    def start(self, prompt: str) -> list[int]:
        return [0, *(WORDS.index(word) for word in prompt.split())]

    def next_log_probabilities(self, ids: IdArray) -> FloatArray:
        first, second = [0, 0.7, 0.3, 0, 0, 0], [0, 0, 0, 0.4, 0.6, 0]
        end = [0, 0, 0, 0, 0, 1]
        rows = [(first, second, end)[min(ids.shape[1] - 1, 2)] for _ in ids]
        return np.log(np.array(rows, dtype=np.float32) + 1e-9)

    def text(self, ids: Sequence[int]) -> str:
        return " ".join(WORDS[i] for i in ids if i not in (0, 5))


class ToyEncoder:
    """The picture is a blue bus: a text is as near as it shares words with that."""

    name = "toy clip"
    logit_scale = 100.0

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode_images(self, images: Sequence[Image]) -> FloatArray:
        return np.tile(np.float32([1, 0]), (len(images), 1))

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        self.encoded += texts
        cosines = np.array([len({"blue", "bus"} & set(text.split())) / 2 for text in texts])
        return np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1).astype(np.float32)


def test_the_picture_overrules_the_language_model() -> None:
    steered = guided_captions(ToyEncoder(), ToyLanguage(), [PICTURE], GuidedOptions(beams=2, candidates=3))
    assert steered == ["blue bus"]


def test_without_guidance_and_with_one_beam_the_language_model_writes_alone() -> None:
    options = GuidedOptions(beams=1, candidates=3, guidance=0)
    assert guided_captions(ToyEncoder(), ToyLanguage(), [PICTURE], options) == ["red car"]


def test_the_prompt_begins_the_caption() -> None:
    options = GuidedOptions(beams=2, candidates=3, prompt="red")
    assert guided_captions(ToyEncoder(), ToyLanguage(), [PICTURE], options) == ["red bus"]


def test_batches_do_not_change_captions() -> None:
    images = [PICTURE] * 5
    whole = guided_captions(ToyEncoder(), ToyLanguage(), images)
    assert guided_captions(ToyEncoder(), ToyLanguage(), images, batch_size=2) == whole == ["blue bus"] * 5


def test_a_text_is_encoded_once_per_step_for_all_pictures() -> None:
    encoder = ToyEncoder()
    guided_captions(encoder, ToyLanguage(), [PICTURE] * 8, GuidedOptions(beams=1, candidates=2, max_new_tokens=1))
    assert sorted(encoder.encoded) == ["blue", "red"]


@pytest.mark.parametrize("wrong", [{"beams": 0}, {"candidates": 0}, {"guidance": -1.0}, {"temperature": 0.0}])
def test_options_out_of_range_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(DataError, match=next(iter(wrong))):
        GuidedOptions(**wrong)  # type: ignore[arg-type]
