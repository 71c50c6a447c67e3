"""What a contender is calibrated on, out of the user's own data: pictures that are not scored, where there are some."""

import numpy as np
from numpy.typing import NDArray

from vlmquant.checkpoints.calibration_set import DEFAULT_IMAGES, FEW_IMAGES, CalibrationSet
from vlmquant.data.images import LazyImages
from vlmquant.data.sets import ImageSet
from vlmquant.models.prompts import BUILTIN_PROMPTS, BUILTIN_PROMPTS_NAME
from vlmquant.tasks.fidelity import evenly


def calibration_of(data: ImageSet, scored: NDArray[np.int64], known: str) -> tuple[CalibrationSet, bool]:
    """Return pictures of `data` that are not `scored` (indices), or of those where others are too few; and whether.

    `known` is what the data know of a picture, which calibration does not use.
    """
    others = np.setdiff1d(np.arange(len(data)), scored)
    on_scored = len(others) < FEW_IMAGES
    pool = scored if on_scored else others
    chosen = pool[evenly(len(pool), DEFAULT_IMAGES)]
    which = f"that are scored, without their {known}" if on_scored else "that are not scored"
    images = LazyImages(tuple(data.ids[one] for one in chosen), tuple(data.images.refs[one] for one in chosen))
    found = CalibrationSet(
        images=images,
        texts=BUILTIN_PROMPTS,
        images_from=f"{len(images)} pictures of {data.name} {which}",
        texts_from=BUILTIN_PROMPTS_NAME,
    )
    return found, on_scored
