"""The labelled pictures of `dq-clip`: the user's, or drawn streets in memory."""

from pathlib import Path

import numpy as np

from vlmquant.data.images import EncodedImage
from vlmquant.data.reader import read
from vlmquant.data.sets import Entry, LabelledImages, screen
from vlmquant.errors import DataError
from vlmquant.lab.reproduce.published import PUBLISHED
from vlmquant.progress import Track, silent

DRAWN_PICTURES, FEWEST_OF_A_CLASS = 400, 12
"""Rare classes are left out: a linear probe needs pictures of each, and every class has its 80 prompts."""


def labelled_pictures(path: Path, track: Track = silent) -> LabelledImages:
    """Read labelled pictures in any layout. Raises DataError for others, saying where the source's come from."""
    where = f"CIFAR-100 is at {PUBLISHED['cifar-100'].where}"
    if not path.exists():
        raise DataError(f"{path} does not exist; {where}")
    found = read(path, track=track)
    if not isinstance(found, LabelledImages):
        raise DataError(
            f"{path} holds pictures without labels; dq-clip takes CIFAR-100 or other labelled pictures, a folder for "
            f"each class; {where}"
        )
    return found


def drawn_pictures(track: Track = silent) -> LabelledImages:
    """Return drawn streets of the classes that have pictures enough."""
    import streetworld

    drawn = streetworld.zero_shot_set(DRAWN_PICTURES, track=track)
    kept = np.flatnonzero(np.bincount(drawn.labels) >= FEWEST_OF_A_CLASS)
    entries = [
        Entry(f"{index:04d}", EncodedImage.of_pixels(drawn.images[index]), int(np.searchsorted(kept, label)))
        for index, label in enumerate(drawn.labels)
        if label in kept
    ]
    names = tuple(drawn.class_names[label] for label in kept)
    screened = screen("drawn streets", entries, track=track)
    return LabelledImages(
        name="drawn streets",
        images=screened.images,
        digest=screened.digest(screened.payloads, names),
        problems=screened.problems,
        labels=np.array(screened.payloads, dtype=np.int64),
        class_names=names,
    )
