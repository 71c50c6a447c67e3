"""The embeddings of a data set by a dual encoder, from the store where they are in it."""

from collections.abc import Sequence

import numpy as np

from vlmquant.data.sets import CaptionedImages, ImageSet, LabelledImages
from vlmquant.files import digest
from vlmquant.metrics.ranking import refuse_non_finite
from vlmquant.models.encoder import DualEncoder, normalize
from vlmquant.models.preprocess import preprocess
from vlmquant.models.spec import FloatArray, Image
from vlmquant.opening import Opened
from vlmquant.progress import Track
from vlmquant.tasks.encode import embed_classes, encode_captions
from vlmquant.tasks.store import Store


def image_features(opened: Opened, data: ImageSet, store: Store, track: Track) -> FloatArray:
    """Return the features (n, d) float32 of all images, not normalized."""
    encoder = opened.encoder
    return store.rows(
        {"of": "images", "data": data.digest, "model": opened.identity, "batch": str(encoder.batch_size)},
        len(data),
        lambda start, stop: features_of(encoder, data.images[start:stop]),
        description=f"Encoding images with {encoder.name}",
        track=track,
    )


def features_of(encoder: DualEncoder, pictures: Sequence[Image]) -> FloatArray:
    """Return the features (n, d) float32 of pictures, not normalized."""
    batches = [pictures[i : i + encoder.batch_size] for i in range(0, len(pictures), encoder.batch_size)]
    return np.concatenate(
        [encoder.image_tower(np.stack([preprocess(image, encoder.image_spec) for image in batch])) for batch in batches]
    )


def unit_rows(features: FloatArray, data: ImageSet) -> FloatArray:
    """Return image features scaled to unit length. Raises DataError naming the images where they are not finite."""
    with np.errstate(invalid="ignore"):
        images = normalize(features)
    refuse_non_finite(images, data.ids, "image")
    return images


def text_rows(
    opened: Opened, data: ImageSet, templates: tuple[str, ...], store: Store, track: Track
) -> FloatArray | None:
    """Return the unit rows (m, d) float32 of the classes or captions of the data; None where they have neither."""
    encoder = opened.encoder
    if isinstance(data, LabelledImages):
        names = data.class_names
        what, content, count = "class names", digest(names, templates), len(names)

        def encode(start: int, stop: int) -> FloatArray:
            return embed_classes(encoder, names[start:stop], templates)

    elif isinstance(data, CaptionedImages):
        captions = tuple(text for texts in data.captions for text in texts)
        what, content, count = "captions", digest(captions), len(captions)

        def encode(start: int, stop: int) -> FloatArray:
            return encode_captions(encoder, [captions[start:stop]], [f"caption {start}"])

    else:
        return None
    key = {"of": what, "texts": content, "model": opened.identity, "batch": str(encoder.batch_size)}
    return store.rows(key, count, encode, description=f"Encoding {what} with {encoder.name}", track=track)
