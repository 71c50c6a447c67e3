"""The one dual encoder: two towers (functions from arrays to arrays), a tokenizer and an image spec.

The float model, the simulation and every engine session differ only in the two functions they put in here.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from vlmquant.models.preprocess import preprocess
from vlmquant.models.spec import FloatArray, IdArray, Image, ImageSpec
from vlmquant.models.tokenizer import Tokenizer

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class DualEncoder:
    """Implements `Encoder` over two towers.

    `image_tower` maps (n, 3, height, width) float32 to (n, d) float32, `text_tower` maps (n, length) int64 token ids
    to (n, d) float32; neither needs to normalize. `notes` are what a user must know about how the towers run.
    """

    name: str
    image_tower: Callable[[FloatArray], FloatArray]
    text_tower: Callable[[IdArray], FloatArray]
    image_spec: ImageSpec
    tokenizer: Tokenizer
    logit_scale: float
    batch_size: int = 32
    notes: tuple[str, ...] = ()

    def encode_images(self, images: Sequence[Image]) -> FloatArray:
        """Return (n, d) float32 rows of unit length, in the order of `images`."""
        return _stack(
            self.encode_pixels(np.stack([preprocess(image, self.image_spec) for image in batch]))
            for batch in _batches(images, self.batch_size)
        )

    def encode_pixels(self, pixels: FloatArray) -> FloatArray:
        """Return (n, d) float32 unit rows for already preprocessed (n, 3, height, width) pixels, as one batch."""
        return normalize(self.image_tower(pixels))

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """Return (n, d) float32 rows of unit length, in the order of `texts`."""
        return _stack(
            normalize(self.text_tower(self.tokenizer.encode_batch(batch))) for batch in _batches(texts, self.batch_size)
        )


def normalize(rows: FloatArray) -> FloatArray:
    """Scale each row of (n, d) to unit length."""
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), dtype=np.float32)


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _stack(batches: Iterator[FloatArray]) -> FloatArray:
    rows = list(batches)
    if not rows:
        raise ValueError("nothing to encode: expected at least one image or text")
    return np.concatenate(rows)
