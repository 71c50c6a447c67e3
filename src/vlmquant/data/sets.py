"""What a reader returns: pictures with labels, captions or questions, and what was wrong with the rest.

A reader collects `Entry`s, whatever its file format, and `screen` decides once for all formats what can be used.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from vlmquant.data.images import ImageRef, LazyImages, inspect
from vlmquant.errors import DataError
from vlmquant.progress import Track, silent

MAX_PROBLEM_SHARE = 0.01
NAMED_PROBLEMS = 5
BROKEN = "broken image"

Payload = TypeVar("Payload")


@dataclass(frozen=True)
class Problem:
    """One item of a data set that was left out: its id, a kind such as "missing image", and the details."""

    id: str
    kind: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Pictures without labels. `digest` is a sha256 over names, picture bytes and everything that is known of them."""

    name: str
    images: LazyImages
    digest: str
    problems: tuple[Problem, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the id of every usable picture, in order."""
        return self.images.ids

    def __len__(self) -> int:
        """Return the number of usable pictures."""
        return len(self.images)


@dataclass(frozen=True, kw_only=True)
class LabelledImages(ImageSet):
    """Pictures with a class each: `labels` is (n,) int64, an index into `class_names`."""

    labels: NDArray[np.int64]
    class_names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CaptionedImages(ImageSet):
    """Pictures with one or more captions each: `captions[i]` belongs to `images[i]`."""

    captions: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Question:
    """One question of VQA v2's form about the picture at `image_index`, with its annotators' answers."""

    id: int
    image_index: int
    text: str
    answers: tuple[str, ...]
    question_type: str
    answer_type: str


@dataclass(frozen=True, kw_only=True)
class QuestionedImages(ImageSet):
    """Pictures with questions; several questions may ask about one picture."""

    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Entry(Generic[Payload]):
    """One entry of an annotation file before anything was checked."""

    id: str
    ref: ImageRef
    payload: Payload


@dataclass(frozen=True)
class Screened(Generic[Payload]):
    """The usable records, their pictures' hashes, and the problems of the others."""

    images: LazyImages
    payloads: tuple[Payload, ...]
    hashes: tuple[str, ...]
    problems: tuple[Problem, ...]

    def digest(self, *known: object) -> str:
        """Return the sha256 of ids, picture bytes and everything JSON-like in `known`."""
        text = json.dumps([self.images.ids, self.hashes, known], ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def screen(
    name: str,
    records: Sequence[Entry[Payload]],
    *,
    problems: Sequence[Problem] = (),
    max_problem_share: float = MAX_PROBLEM_SHARE,
    track: Track = silent,
) -> Screened[Payload]:
    """Keep the records whose id is new and whose picture opens, and name the others.

    `problems` are those that the reader met already. Raises DataError when nothing is left, or when more than
    `max_problem_share` (0 to 1) of all entries have a problem: a score over the rest describes a different data set.
    """
    if not 0 <= max_problem_share <= 1:
        raise DataError(f"max_problem_share must be between 0 and 1, got {max_problem_share}")
    found = list(problems)
    kept: list[Entry[Payload]] = []
    hashes: list[str] = []
    seen: set[str] = set()
    for record in track(records, "Checking images", len(records)):
        if record.id in seen:
            found.append(Problem(record.id, "duplicate id"))
            continue
        seen.add(record.id)
        seen_as = inspect(record.ref)
        if seen_as.missing:
            found.append(Problem(record.id, "missing image"))
        elif seen_as.broken is not None:
            found.append(Problem(record.id, BROKEN, seen_as.broken))
        else:
            kept.append(record)
            hashes.append(seen_as.sha256)
    listed = len(records) + len(problems)
    if not listed:
        raise DataError(f"{name} lists no image; expected at least one")
    if not kept or len(found) > max_problem_share * listed:
        raise DataError(
            f"{name}: {len(found)} of {listed} entries cannot be used ({summarize(found)}), more than the allowed "
            f"share {max_problem_share:g}; repair them, or raise the share (max_problem_share) to score the "
            f"other {len(kept)}"
        )
    images = LazyImages(tuple(record.id for record in kept), tuple(record.ref for record in kept))
    return Screened(images, tuple(record.payload for record in kept), tuple(hashes), tuple(found))


def summarize(problems: Sequence[Problem]) -> str:
    """Return one line: the number of each kind of problem and the first ids, with why a picture is broken."""
    parts = []
    for kind, count in sorted(Counter(problem.kind for problem in problems).items()):
        named = [
            f"{problem.id} ({problem.detail})" if kind == BROKEN else problem.id
            for problem in problems
            if problem.kind == kind
        ][:NAMED_PROBLEMS]
        parts.append(f"{count} x {kind}: {', '.join(named)}{', ...' if count > len(named) else ''}")
    return "; ".join(parts)
