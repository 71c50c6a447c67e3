"""Image-text matching: is this the picture's caption, or another picture's?"""

from collections.abc import Sequence

import numpy as np

from vlmquant.data.sets import CaptionedImages, ImageSet
from vlmquant.errors import DataError
from vlmquant.files import digest
from vlmquant.models.spec import FloatArray, Image, Matcher
from vlmquant.progress import Track, silent
from vlmquant.tasks.protocol import Protocol
from vlmquant.tasks.result import Outcomes, TaskResult
from vlmquant.tasks.store import Journal
from vlmquant.tasks.task import Work

BATCH = 8
FEWEST = 2


def match_pairs(
    matcher: Matcher,
    images: Sequence[Image],
    captions: Sequence[Sequence[str]],
    ids: Sequence[str],
    *,
    journal: Journal | None = None,
    track: Track = silent,
) -> FloatArray:
    """Return (n, 2) probabilities: of each picture with its own first caption and with the next picture's.

    Raises DataError for fewer than two pictures.
    """
    if len(images) < FEWEST:
        raise DataError(f"matching needs at least two pictures to swap captions between, got {len(images)}")
    others = [captions[(index + 1) % len(captions)][0] for index in range(len(captions))]
    done = {} if journal is None else {name: line["pair"] for name, line in journal.read().items()}
    missing = [index for index, name in enumerate(ids) if name not in done]
    starts = range(0, len(missing), BATCH)
    for start in track(starts, f"Matching, {matcher.name}", len(starts)):
        chosen = missing[start : start + BATCH]
        pictures = [images[index] for index in chosen]
        own = matcher.match(pictures, [captions[index][0] for index in chosen])
        swapped = matcher.match(pictures, [others[index] for index in chosen])
        fresh = {ids[i]: [float(a), float(b)] for i, a, b in zip(chosen, own, swapped, strict=True)}
        done |= fresh
        if journal is not None:
            journal.append({name: {"pair": pair} for name, pair in fresh.items()})
    return np.array([done[name] for name in ids], dtype=np.float32)


def score_matching(
    model: str, pairs: FloatArray, captions: Sequence[Sequence[str]], *, ids: Sequence[str], dataset: str
) -> TaskResult:
    """Score the (n, 2) probabilities of `match_pairs`.

    "pair_accuracy" asks for the own caption above the swapped one (a tie is a half), "match_accuracy" for both
    decisions at one half.
    """
    names = tuple(ids)
    own, swapped = pairs[:, 0], pairs[:, 1]
    ranked = np.where(own == swapped, 0.5, (own > swapped).astype(np.float64))
    decided = ((own > 0.5).astype(np.float64) + (swapped <= 0.5)) / 2
    said = tuple(f"{'match' if a > 0.5 else 'no match'}, {'match' if b > 0.5 else 'no match'}" for a, b in pairs)
    return TaskResult(
        model=model,
        protocol=Protocol(
            task="matching",
            dataset=digest(dataset, [list(own_captions) for own_captions in captions]),
            samples=len(names),
            settings=(("negatives", "the next picture's first caption"),),
        ),
        outcomes={
            metric: Outcomes(ids=names, clusters=names, values=values, answers=said)
            for metric, values in (("pair_accuracy", ranked), ("match_accuracy", decided))
        },
    )


def match_captions(work: Work) -> TaskResult:
    """Run the task: each picture with its own first caption and with the next picture's."""
    data, matcher = work.data, work.opened.generator
    assert isinstance(data, CaptionedImages)
    pairs = match_pairs(
        matcher, data.images, data.captions, data.ids, journal=work.journal("matching"), track=work.track
    )
    return score_matching(matcher.name, pairs, data.captions, ids=data.ids, dataset=data.digest)


def too_few_to_match(data: ImageSet) -> str | None:
    """Say why captions cannot be swapped."""
    return None if len(data) >= FEWEST else "one picture has no other to swap captions with"
