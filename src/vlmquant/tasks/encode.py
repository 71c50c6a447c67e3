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


def embed_classes(
    encoder: Encoder, class_names: Sequence[str], templates: Sequence[str], track: Track = silent
) -> FloatArray:
    """Return (classes, d) float32 unit rows: for each class the renormalized mean of its prompts' embeddings."""
    if not templates:
        raise DataError("at least one template is needed; '{}' is the bare class name")
    for template in templates:
        if template.count("{}") != 1:
            raise DataError(f"template {template!r} must contain {{}} once, where the class name goes")
    if len(set(class_names)) != len(class_names) or not class_names:
        raise DataError("class names must be given and differ from each other")
    prompts = [template.replace("{}", name) for name in class_names for template in templates]
    return class_rows(encode_texts(encoder, prompts, prompts, track), len(class_names))


def class_rows(prompt_rows: FloatArray, classes: int) -> FloatArray:
    """Return (classes, d) float32 unit rows from (classes * prompts, d): normalize, mean, normalize again."""
    rows = prompt_rows.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    means = rows.reshape(classes, -1, rows.shape[1]).mean(axis=1)
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), dtype=np.float32)


def encode_captions(
    encoder: Encoder, captions_per_image: Sequence[Sequence[str]], ids: Sequence[str], track: Track = silent
) -> FloatArray:
    """Return (captions, d) float32 rows of all captions, picture by picture."""
    bare = [name for name, captions in zip(ids, captions_per_image, strict=True) if not captions]
    if bare:
        raise DataError(f"{len(bare)} images have no caption, the first is {bare[0]!r}; leave them out")
    texts = [text for captions in captions_per_image for text in captions]
    return encode_texts(encoder, texts, caption_ids(captions_per_image, ids), track)


def caption_ids(captions_per_image: Sequence[Sequence[str]], ids: Sequence[str]) -> tuple[str, ...]:
    """Return an id for every caption, picture by picture: the picture's, with a number."""
    return tuple(
        f"{name}#{i}" for name, captions in zip(ids, captions_per_image, strict=True) for i in range(len(captions))
    )
