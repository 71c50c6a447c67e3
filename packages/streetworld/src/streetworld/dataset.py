"""Data sets of street scenes with exact truth, each a pure function of its split, size and seed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from streetworld.captions import TEMPLATES, captions, phrase_text
from streetworld.render import render
from streetworld.scene import SPLITS, STATES, TIMES, Scene, sample_scene
from streetworld.statements import Phrase, Statement
from vlmquant.errors import DataError, unknown
from vlmquant.progress import Track, silent

if TYPE_CHECKING:
    from vlmquant.checkpoints.calibration_set import CalibrationSet

PICTURE_SIZE = 160
"""Side in pixels of the pictures of every set: larger than the bundled model's input, so that resizing counts."""


def _classes() -> tuple[Statement, ...]:
    """Return what a street can be about: one actor's kind and state, a crowd or nothing, each by the time of day."""
    words = {"day": "by day", "dusk": "at dusk", "night": "at night"}
    subjects = [Phrase(kind=kind, state=state) for kind, states in STATES.items() for state in states]
    found = [
        Statement(text=f"{phrase_text(subject)} {words[time]}", time=time, seen=(subject,))
        for subject in subjects
        for time in TIMES
    ]
    found += [Statement(text=f"a crowded street {words[time]}", time=time, crowded=True) for time in TIMES]
    found += [Statement(text=f"an empty street {words[time]}", time=time, empty=True) for time in TIMES]
    return tuple(found)


CLASSES = _classes()
"""The classes of the zero-shot set."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ZeroShotSet:
    """Pictures of one class each.

    `images` are uint8 RGB (160, 160, 3), `labels` (n,) int64 indices into `class_names`, `templates` prompts with one
    `{}`, `scenes` what the pictures show.
    """

    images: tuple[npt.NDArray[np.uint8], ...]
    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    scenes: tuple[Scene, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class RetrievalSet:
    """Pictures, uint8 RGB (160, 160, 3), with five captions each, and the scenes that both were made of."""

    images: tuple[npt.NDArray[np.uint8], ...]
    captions: tuple[tuple[str, ...], ...]
    scenes: tuple[Scene, ...]


def scenes(
    count: int, split: str = "test", seed: int = 0, *, wanted: Callable[[Scene], bool] = lambda scene: True
) -> list[Scene]:
    """Return the first `count` scenes of the stream (split, seed) that are wanted.

    Scene i of a stream depends on (split, seed, i) only, so a longer list begins with the shorter one. Raises
    DataError for an unknown split or a count below 1.
    """
    if split not in SPLITS:
        raise unknown(DataError, "split", split, SPLITS)
    if count < 1:
        raise DataError(f"a set of {count} scenes is not possible; ask for at least 1")
    found: list[Scene] = []
    index = 0
    while len(found) < count:
        scene = sample_scene(np.random.default_rng([SPLITS.index(split), seed, index]), split)
        index += 1
        if wanted(scene):
            found.append(scene)
    return found


def class_of(scene: Scene) -> int | None:
    """Return the index into `CLASSES` of a scene about one thing: one actor, a crowd or nothing; else None."""
    if len(scene.actors) > 1 and not all(actor.kind == "person" for actor in scene.actors):
        return None
    if len(scene.actors) > 1 and not scene.crowded:
        return None
    if scene.crowded:
        return next(i for i, c in enumerate(CLASSES) if c.crowded and c.holds(scene))
    return next(i for i, c in enumerate(CLASSES) if c.holds(scene))


def zero_shot_set(count: int = 1000, seed: int = 0, *, split: str = "test", track: Track = silent) -> ZeroShotSet:
    """Return `count` pictures about one thing each, with the class each belongs to."""
    chosen = scenes(count, split, seed, wanted=lambda scene: class_of(scene) is not None)
    return ZeroShotSet(
        images=_pictures(chosen, track),
        labels=np.array([class_of(scene) for scene in chosen], np.int64),
        class_names=tuple(statement.text for statement in CLASSES),
        templates=TEMPLATES,
        scenes=tuple(chosen),
    )


def retrieval_set(count: int = 1000, seed: int = 0, *, split: str = "test", track: Track = silent) -> RetrievalSet:
    """Return `count` pictures with five captions each; no caption is true of another picture of the set.

    A scene with a caption that another scene of the set also fulfils, word for word, is left out, as it would count
    a right answer as wrong.
    """
    taken: set[str] = set()

    def new(scene: Scene) -> bool:
        texts = set(captions(scene))
        if texts & taken:
            return False
        taken.update(texts)
        return True

    chosen = scenes(count, split, seed + 1000, wanted=new)
    return RetrievalSet(
        images=_pictures(chosen, track),
        captions=tuple(captions(scene) for scene in chosen),
        scenes=tuple(chosen),
    )


def calibration_set(count: int = 64, seed: int = 0, *, track: Track = silent) -> "CalibrationSet":
    """Return pictures and captions of the training split to measure activation ranges on."""
    from vlmquant.checkpoints.calibration_set import CalibrationSet

    chosen = scenes(count, "train", seed + 2000)
    return CalibrationSet(
        images=_pictures(chosen, track),
        texts=tuple(text for scene in chosen for text in captions(scene)[:2]),
        images_from=f"{count} street world training scenes, seed {seed}",
        texts_from=f"two captions of each of {count} street world training scenes, seed {seed}",
    )


def _pictures(chosen: list[Scene], track: Track) -> tuple[npt.NDArray[np.uint8], ...]:
    return tuple(render(scene, PICTURE_SIZE) for scene in track(chosen, "drawing street scenes", len(chosen)))
