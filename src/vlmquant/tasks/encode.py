"""Pictures and texts to embeddings in batches, behind a progress bar, refusing what is not a number."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmquant.errors import DataError
from vlmquant.metrics.ranking import refuse_non_finite
from vlmquant.models.spec import Encoder, FloatArray, Image
from vlmquant.progress import Track, silent

BATCH_SIZE = 32


@dataclass(frozen=True)
class EncodedImages:
    """Embeddings (n, d) of unit length and the sha256 of the pictures' pixels."""

    rows: FloatArray
    digest: str


def encode_images(
    encoder: Encoder, images: Sequence[Image], ids: Sequence[str], track: Track = silent
) -> EncodedImages:
    """Encode `images` in batches of 32. Raises DataError when empty or when an embedding is not finite."""
    if not len(images):
        raise DataError("there is no image to score; give at least one")
    if len(ids) != len(images):
        raise ValueError(f"{len(ids)} ids for {len(images)} images")
    pixels = hashlib.sha256()
    rows = []
    for start in track(range(0, len(images), BATCH_SIZE), f"Encoding images with {encoder.name}"):
        batch = images[start : start + BATCH_SIZE]
        for image in batch:
            array = np.asarray(image)
            pixels.update(str((array.shape, str(array.dtype))).encode())
            pixels.update(np.ascontiguousarray(array).tobytes())
        rows.append(encoder.encode_images(batch))
    embeddings = np.concatenate(rows)
    refuse_non_finite(embeddings, ids, "image")
    return EncodedImages(embeddings, pixels.hexdigest())


def encode_texts(encoder: Encoder, texts: Sequence[str], ids: Sequence[str], track: Track = silent) -> FloatArray:
    """Encode `texts` in batches of 32 to (n, d). Raises DataError when empty or an embedding is not finite.

    Equal texts are encoded once.
    """
    if not texts:
        raise DataError("there is no text to score; give at least one")
    distinct = list(dict.fromkeys(texts))
    batches = [distinct[start : start + BATCH_SIZE] for start in range(0, len(distinct), BATCH_SIZE)]
    encoded = [
        encoder.encode_texts(batch) for batch in track(batches, f"Encoding texts with {encoder.name}", len(batches))
    ]
    position = {text: i for i, text in enumerate(distinct)}
    rows = np.concatenate(encoded)[[position[text] for text in texts]]
    refuse_non_finite(rows, ids, "text")
    return np.asarray(rows, dtype=np.float32)
