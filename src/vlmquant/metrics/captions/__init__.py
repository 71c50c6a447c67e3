"""Scores of generated captions, without Java: equal to coco-caption's BLEU, ROUGE-L and CIDEr."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vlmquant.errors import DataError
from vlmquant.metrics.captions.bleu import BleuCounts, count_bleu
from vlmquant.metrics.captions.cider import cider
from vlmquant.metrics.captions.ngrams import MAX_N
from vlmquant.metrics.captions.ptb import tokenize
from vlmquant.metrics.captions.rouge import rouge_l
from vlmquant.progress import Track, silent

FloatArray = NDArray[np.float64]
Id = TypeVar("Id", int, str)

METRICS = (*(f"BLEU-{n}" for n in range(1, MAX_N + 1)), "ROUGE-L", "CIDEr")
"""METEOR and SPICE are not here: they need Java programs (a paraphrase table, a scene-graph parser), and look-alikes
score differently."""
NAMED_IDS = 5


@dataclass(frozen=True, kw_only=True)
class CaptionScores:
    """The scores of n captions, kept per caption so that a bootstrap can weigh them again.

    `ids` has the n image ids in the order of the arrays. `bleu` holds counts, because corpus BLEU is not a mean;
    `rouge_l` in [0, 1] and `cider` in [0, 10] are (n,) float64. CIDEr's n-gram rarities are those of all n images
    and stay so in a resample.
    """

    ids: tuple[int | str, ...]
    bleu: BleuCounts
    rouge_l: FloatArray
    cider: FloatArray

    def corpus(self) -> dict[str, float]:
        """Return the score of all captions together by the names in `METRICS`."""
        scores = self.resampled(np.ones(len(self.ids)))
        return {name: float(score) for name, score in scores.items()}

    def resampled(self, weights: FloatArray) -> dict[str, FloatArray]:
        """Return, by the names in `METRICS`, (...) scores of samples where caption i occurs `weights[..., i]` times."""
        if weights.shape[-1:] != (len(self.ids),):
            raise ValueError(f"expected weights of shape (..., {len(self.ids)}), got {weights.shape}")
        total = weights.sum(axis=-1)
        values = [
            *np.moveaxis(self.bleu.corpus(weights), -1, 0),
            weights @ self.rouge_l / total,
            weights @ self.cider / total,
        ]
        return dict(zip(METRICS, values, strict=True))


def caption_scores(
    candidates: Mapping[Id, str], references: Mapping[Id, Sequence[str]], *, track: Track = silent
) -> CaptionScores:
    """Return the scores of one caption for each image against that image's reference captions.

    Both are keyed by image id and hold text as people write it, which is tokenized as coco-caption does. The ids must
    be the same on both sides, because CIDEr depends on which images are evaluated.
    Raises DataError that names the ids of captions without references, references without a caption, an empty list of
    references, or references that are a text where a list of texts is expected.
    """
    _check(candidates, references)
    tokens = {
        image: tokenize(text) for image, text in track(candidates.items(), "tokenizing captions", len(candidates))
    }
    reference_tokens = {
        image: [tokenize(text) for text in references[image]] for image in track(candidates, "tokenizing references")
    }
    return score_tokens(tokens, reference_tokens)


def score_tokens(candidates: Mapping[Id, str], references: Mapping[Id, Sequence[str]]) -> CaptionScores:
    """Return the scores of captions that are already space-separated tokens; otherwise as `caption_scores`."""
    _check(candidates, references)
    texts = list(candidates.values())
    own = [references[image] for image in candidates]
    return CaptionScores(
        ids=tuple(candidates),
        bleu=count_bleu(texts, own),
        rouge_l=np.array([rouge_l(text, others) for text, others in zip(texts, own, strict=True)]),
        cider=cider(texts, own),
    )


def _check(candidates: Mapping[Id, str], references: Mapping[Id, Sequence[str]]) -> None:
    if not candidates:
        raise DataError("no captions to score; expected at least one image with a caption and its references")
    _refuse(
        [i for i in candidates if i not in references], "captions without references", "add references or drop them"
    )
    _refuse([i for i in references if i not in candidates], "references without a caption", "caption these images too")
    _refuse(
        [i for i in candidates if not isinstance(candidates[i], str)], "captions that are not text", "pass one text"
    )
    _refuse([i for i in candidates if isinstance(references[i], str)], "references that are one text", "pass a list")
    _refuse([i for i in candidates if not references[i]], "images with an empty list of references", "drop them")


def _refuse(ids: Sequence[int | str], what: str, fix: str) -> None:
    if ids:
        shown = ", ".join(repr(image) for image in ids[:NAMED_IDS])
        more = f" and {len(ids) - NAMED_IDS} more" if len(ids) > NAMED_IDS else ""
        raise DataError(f"{len(ids)} {what}: {shown}{more}; {fix}")
