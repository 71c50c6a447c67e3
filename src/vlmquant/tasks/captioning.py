"""Captioning: a caption per picture, and what quantization does to its BLEU, ROUGE-L and CIDEr."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmquant.data.sets import CaptionedImages
from vlmquant.errors import DataError
from vlmquant.files import digest
from vlmquant.metrics.captions import METRICS, CaptionScores, caption_scores
from vlmquant.metrics.intervals import CONFIDENCE, Interval
from vlmquant.models.spec import Captioner, Image
from vlmquant.progress import Track, silent
from vlmquant.tasks.compare import Change, judge
from vlmquant.tasks.protocol import Protocol
from vlmquant.tasks.result import CORPUS, Outcomes, TaskResult
from vlmquant.tasks.store import Journal
from vlmquant.tasks.task import Work

RESAMPLES = 2000
BATCH = 8


@dataclass(frozen=True, kw_only=True)
class CaptioningResult(TaskResult):
    """Captioning outcomes. `outcomes` holds ROUGE-L and CIDEr, which are means over captions; `scores` all of them.

    CIDEr is on its usual scale of 0 to 10, of which 1 is called 100 in tables.
    """

    captions: tuple[str, ...]
    scores: CaptionScores


def write_captions(
    captioner: Captioner,
    images: Sequence[Image],
    ids: Sequence[str],
    *,
    journal: Journal | None = None,
    batch_size: int = BATCH,
    track: Track = silent,
) -> list[str]:
    """Return one caption per image; those that `journal` already holds are not written again."""
    done = {} if journal is None else {name: str(line["caption"]) for name, line in journal.read().items()}
    missing = [index for index, name in enumerate(ids) if name not in done]
    starts = range(0, len(missing), batch_size)
    for start in track(starts, f"Captions, {captioner.name}", len(starts)):
        chosen = missing[start : start + batch_size]
        found = captioner.caption([images[index] for index in chosen])
        fresh = {ids[index]: caption for index, caption in zip(chosen, found, strict=True)}
        done |= fresh
        if journal is not None:
            journal.append({name: {"caption": caption} for name, caption in fresh.items()})
    return [done[name] for name in ids]


def score_captions(
    model: str, captions: Sequence[str], references: Sequence[Sequence[str]], *, ids: Sequence[str], dataset: str
) -> CaptioningResult:
    """Score one caption per picture against people's. Raises DataError naming pictures without references."""
    if len(set(ids)) != len(ids):
        raise DataError("the pictures' ids are not unique; a caption must belong to one picture")
    scores = caption_scores(
        dict(zip(ids, captions, strict=True)), {name: list(own) for name, own in zip(ids, references, strict=True)}
    )
    names = tuple(ids)
    return CaptioningResult(
        model=model,
        protocol=Protocol(
            task="captioning",
            dataset=digest(dataset, [list(own) for own in references]),
            samples=len(names),
            settings=(("metrics", "coco-caption"),),
        ),
        outcomes={
            metric: Outcomes(ids=names, clusters=names, values=values, answers=tuple(captions))
            for metric, values in (("ROUGE-L", scores.rouge_l), ("CIDEr", scores.cider))
        },
        details={CORPUS: scores.corpus()},
        captions=tuple(captions),
        scores=scores,
    )


def compare_captions(
    candidate: CaptioningResult, reference: CaptioningResult, *, max_drop_points: float | None = None, seed: int = 0
) -> tuple[Change, ...]:
    """Compare every score with a paired bootstrap over pictures, 2,000 resamples; BLEU is the corpus's in each.

    `max_drop_points` is in hundredths of a score: a CIDEr from 1.10 to 1.09 drops one point. The last row, "equal
    captions", is the share of pictures with the very same caption. Raises DataError where the protocols differ.
    Source: Efron and Tibshirani 1993, chapter 13; Koehn, EMNLP 2004, for corpus scores.
    """
    candidate.protocol.require_equal(reference.protocol)
    count = len(candidate.captions)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(np.float64)
    before, after = reference.scores.corpus(), candidate.scores.corpus()
    resampled_before, resampled_after = reference.scores.resampled(drawn), candidate.scores.resampled(drawn)
    changes = []
    for metric in METRICS:
        spread = resampled_after[metric] - resampled_before[metric]
        changes.append(_change(metric, before[metric], after[metric], spread, count, max_drop_points))
    equal = np.array([a == b for a, b in zip(candidate.captions, reference.captions, strict=True)], dtype=np.float64)
    changes.append(_change("equal captions", 1.0, float(equal.mean()), drawn @ equal / count - 1, count, None))
    return tuple(changes)


def _change(
    metric: str, before: float, after: float, spread: np.ndarray, samples: int, max_drop_points: float | None
) -> Change:
    low, high = np.quantile(spread, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    difference = Interval(after - before, float(low), float(high))
    verdict = None if max_drop_points is None else judge(difference, max_drop_points / 100, samples)
    return Change(
        metric=metric,
        reference=before,
        candidate=after,
        difference=difference,
        samples=samples,
        max_drop=None if max_drop_points is None else max_drop_points / 100,
        verdict=verdict,
    )


def caption_pictures(work: Work) -> CaptioningResult:
    """Run the task: a caption for every picture of captioned data, scored."""
    data, captioner = work.data, work.opened.generator
    assert isinstance(data, CaptionedImages)
    captions = write_captions(captioner, data.images, data.ids, journal=work.journal("captioning"), track=work.track)
    return score_captions(captioner.name, captions, data.captions, ids=data.ids, dataset=data.digest)


def compare_captionings(
    candidate: TaskResult, reference: TaskResult, max_drop_points: float | None
) -> tuple[Change, ...]:
    """Compare two results of `caption_pictures`."""
    assert isinstance(candidate, CaptioningResult)
    assert isinstance(reference, CaptioningResult)
    return compare_captions(candidate, reference, max_drop_points=max_drop_points)


def token_agreement(candidate: Sequence[Sequence[int]], reference: Sequence[Sequence[int]]) -> float:
    """Return the share in [0, 1] of positions with the same token, over the longer text of each pair."""
    pairs = list(zip(candidate, reference, strict=True))
    same = sum(sum(a == b for a, b in zip(mine, theirs, strict=False)) for mine, theirs in pairs)
    longest = sum(max(len(mine), len(theirs)) for mine, theirs in pairs)
    return same / longest if longest else 1.0
