"""Some of the pictures of a data set: to score, and to calibrate on, without what is known of them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vlmquant.checkpoints.calibration_set import DEFAULT_IMAGES, FEW_IMAGES, CalibrationSet
from vlmquant.data.images import ImageRef, LazyImages
from vlmquant.data.sets import CaptionedImages, ImageSet, LabelledImages, QuestionedImages
from vlmquant.files import digest
from vlmquant.models.prompts import BUILTIN_PROMPTS, BUILTIN_PROMPTS_NAME
from vlmquant.tasks.fidelity import evenly

AnySet = TypeVar("AnySet", bound=ImageSet)
Item = TypeVar("Item")


def some_of(data: AnySet, count: int | None) -> AnySet:
    """Return up to `count` pictures of `data`, spread evenly over it, with all that is known of them."""
    return data if count is None or count >= len(data) else picked(data, evenly(len(data), count))


def picked(data: AnySet, indices: NDArray[np.int64]) -> AnySet:
    """Return the pictures of `data` at `indices`, with all that is known of them."""
    chosen = indices.tolist()
    images = LazyImages(_at(data.images.ids, chosen), _at(data.images.refs, chosen))
    rest = replace(data, images=images, digest=digest(data.digest, chosen))
    if isinstance(rest, LabelledImages):
        return replace(rest, labels=rest.labels[chosen])
    if isinstance(rest, CaptionedImages):
        return replace(rest, captions=_at(rest.captions, chosen))
    if isinstance(rest, QuestionedImages):
        place = {old: new for new, old in enumerate(chosen)}
        asked = [one for one in rest.questions if one.image_index in place]
        return replace(rest, questions=tuple(replace(one, image_index=place[one.image_index]) for one in asked))
    return rest


def calibration_of(data: ImageSet, scored: NDArray[np.int64], known: str) -> tuple[CalibrationSet, bool]:
    """Return pictures of `data` that are not `scored` (indices), or of those where others are too few; and whether.

    `known` is what the data know of a picture, which calibration does not use.
    """
    others = np.setdiff1d(np.arange(len(data)), scored)
    on_scored = len(others) < FEW_IMAGES
    pool = scored if on_scored else others
    pictures = [(data.ids[one], data.images.refs[one]) for one in pool]
    return unlabelled(pictures, DEFAULT_IMAGES, data.name, known, on_scored=on_scored), on_scored


def unlabelled(
    pictures: Sequence[tuple[str, ImageRef]], count: int, data: str, known: str, *, on_scored: bool
) -> CalibrationSet:
    """Return up to `count` of the `pictures` (id, where it is) of `data`, spread evenly, and the built-in prompts."""
    chosen = [pictures[index] for index in evenly(len(pictures), count)]
    which = f"that are scored, without their {known}" if on_scored else "that are not scored"
    return CalibrationSet(
        images=LazyImages(tuple(one for one, _ in chosen), tuple(ref for _, ref in chosen)),
        texts=BUILTIN_PROMPTS,
        images_from=f"{len(chosen)} pictures of {data} {which}",
        texts_from=BUILTIN_PROMPTS_NAME,
    )


def _at(items: Sequence[Item], chosen: Sequence[int]) -> tuple[Item, ...]:
    return tuple(items[index] for index in chosen)
