"""Captions without a captioner: a language model writes, CLIP's similarity to the picture steers each word.

The task of ZeroCap (Tewel et al. 2022, "Zero-Shot Image-to-Text Generation for Visual-Semantic Arithmetic"), which
moves GPT-2's keys and values along CLIP's gradient. Here the steering is by candidates, as in MAGIC (Su et al. 2022):
the language model's likeliest next tokens are re-weighted by CLIP's softmax over the texts that they would make. It
needs no gradient, so it runs on any Encoder: the float model, a simulation, or a bundle of integers on an engine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vlmquant.errors import DataError
from vlmquant.models.spec import Encoder, FloatArray, IdArray, Image
from vlmquant.progress import Track, silent


class LanguageModel(Protocol):
    """A causal language model over tokens of its own."""

    @property
    def name(self) -> str:
        """What to call it in tables."""
        ...

    @property
    def end_ids(self) -> frozenset[int]:
        """The tokens that end a sentence."""
        ...

    def start(self, prompt: str) -> list[int]:
        """Return the tokens before the first word of a caption that begins with `prompt`, which may be empty."""
        ...

    def next_log_probabilities(self, ids: IdArray) -> FloatArray:
        """Map (n, length) tokens to (n, vocabulary) log probabilities of the token that follows."""
        ...

    def text(self, ids: Sequence[int]) -> str:
        """Return what the tokens say, without special tokens."""
        ...


@dataclass(frozen=True, kw_only=True)
class GuidedOptions:
    """How a caption is searched.

    Each of `beams` texts is tried with its `candidates` likeliest next tokens. A candidate scores its log probability
    under the language model plus `guidance` times its log share in a softmax of CLIP's cosines at `temperature`
    (ZeroCap's 0.01). `prompt` begins every caption and is part of it.
    """

    beams: int = 5
    candidates: int = 24
    guidance: float = 1.0
    temperature: float = 0.01
    max_new_tokens: int = 24
    prompt: str = ""

    def __post_init__(self) -> None:
        for name in ("beams", "candidates", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.guidance < 0 or self.temperature <= 0:
            raise DataError(f"guidance must be >= 0 and temperature > 0, got {self.guidance} and {self.temperature}")


@dataclass(frozen=True)
class _Beam:
    """A text so far: its tokens, its summed score, the scored tokens, and CLIP's cosine of the text."""

    ids: tuple[int, ...]
    score: float
    steps: int
    cosine: float
    ended: bool

    @property
    def mean_score(self) -> float:
        return self.score / max(self.steps, 1)


def guided_captions(
    encoder: Encoder,
    language: LanguageModel,
    images: Sequence[Image],
    options: GuidedOptions | None = None,
    *,
    batch_size: int = 16,
    track: Track = silent,
) -> list[str]:
    """Return one caption per image; of the finished texts found, the one nearest to the image in CLIP's eyes.

    Equal inputs give equal captions whatever the batch size, up to the rounding of the two models.
    """
    options = options or GuidedOptions()
    found: list[str] = []
    starts = range(0, len(images), batch_size)
    for start in track(starts, "Writing captions", len(starts)):
        found += _caption_batch(encoder, language, images[start : start + batch_size], options)
    return found


def _caption_batch(
    encoder: Encoder, language: LanguageModel, images: Sequence[Image], options: GuidedOptions
) -> list[str]:
    pictures = encoder.encode_images(images)
    start = tuple(language.start(options.prompt))
    beams = [[_Beam(start, 0.0, 0, -1.0, False)] for _ in images]
    for _ in range(options.max_new_tokens):
        if all(beam.ended for found in beams for beam in found):
            break
        beams = _step(encoder, language, pictures, beams, options)
    # A text that was cut off at the last step is not a sentence; it counts only where there is no other.
    best = [max(found, key=lambda beam: (beam.ended, beam.cosine)) for found in beams]
    return [language.text(beam.ids) for beam in best]


def _step(
    encoder: Encoder,
    language: LanguageModel,
    pictures: FloatArray,
    beams: Sequence[Sequence[_Beam]],
    options: GuidedOptions,
) -> list[list[_Beam]]:
    """Grow every open beam of every image by one token and keep each image's best."""
    grown = _grow(language, beams, options)
    texts = sorted({language.text(beam.ids) for candidates in grown for beam in candidates})
    if not texts:
        return [list(found) for found in beams]
    row = {text: index for index, text in enumerate(texts)}
    embedded = encoder.encode_texts(texts)
    kept: list[list[_Beam]] = []
    for picture, old, candidates in zip(pictures, beams, grown, strict=True):
        cosines = embedded[[row[language.text(beam.ids)] for beam in candidates]] @ picture
        shares = _log_softmax(cosines / options.temperature)
        scored = [
            _Beam(beam.ids, beam.score + options.guidance * float(share), beam.steps, float(cosine), beam.ended)
            for beam, share, cosine in zip(candidates, shares, cosines, strict=True)
        ]
        pool = [beam for beam in old if beam.ended] + scored
        kept.append(sorted(pool, key=lambda beam: (-beam.mean_score, beam.ids))[: options.beams])
    return kept


def _grow(language: LanguageModel, beams: Sequence[Sequence[_Beam]], options: GuidedOptions) -> list[list[_Beam]]:
    """Return each image's open beams with their likeliest next tokens, scored by the language model only."""
    rows = sorted({beam.ids for found in beams for beam in found if not beam.ended})
    if not rows:
        return [[] for _ in beams]
    table = dict(zip(rows, language.next_log_probabilities(np.array(rows, dtype=np.int64)), strict=True))
    grown: list[list[_Beam]] = []
    for found in beams:
        candidates = []
        for beam in found:
            if beam.ended:
                continue
            log_probabilities = table[beam.ids]
            likeliest = np.argsort(-log_probabilities, kind="stable")[: options.candidates]
            candidates += [
                _Beam(
                    (*beam.ids, int(token)),
                    beam.score + float(log_probabilities[token]),
                    beam.steps + 1,
                    beam.cosine,
                    int(token) in language.end_ids,
                )
                for token in likeliest
            ]
        grown.append(candidates)
    return grown


def _log_softmax(values: FloatArray) -> FloatArray:
    if not len(values):
        return np.asarray(values, dtype=np.float32)
    shifted = values - values.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()), dtype=np.float32)
