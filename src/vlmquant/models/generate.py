"""The one decoding loop, in NumPy: greedy and beam search as transformers' `generate` does them, token for token.

Source of the beam search: `GenerationMixin._beam_search` of transformers 5.23 with `length_penalty` 1.0,
`early_stopping` False and one returned sequence. Its padded tensors become small arrays per image here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vlmquant.errors import ModelError
from vlmquant.models.spec import FloatArray, IdArray

Memory: TypeAlias = Sequence[Any]
"""Keys and values of cross-attention, key_0, value_0, key_1, ..., each (n, heads, p, head width): the engine's own
arrays, which this loop only hands on."""
_NEVER = np.float32(-1e9)
"""transformers' score of what must not be chosen."""
MOST_BEAMS = 64
"""Each is a row of every step: time and memory grow with them, and captions stop getting better at about 10."""


class DecoderStep(Protocol):
    """One step of a decoder, whatever runs it."""

    def __call__(self, ids: IdArray, past: FloatArray, *memory: Any) -> tuple[FloatArray, FloatArray]:
        """Map ids (rows, t) and past (layers, 2, rows, heads, past_t, head width) to logits and the new entries.

        The logits are (rows, vocabulary), after the last of `ids`; the new entries have t where `past` has past_t.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """How to decode. `min_new_tokens` equal to `max_new_tokens` forces the length, as benches want it.

    Raises ModelError when a number is out of range.
    """

    max_new_tokens: int = 20
    beams: int = 1
    min_new_tokens: int = 0

    def __post_init__(self) -> None:
        tokens_fit = 0 <= self.min_new_tokens <= self.max_new_tokens and self.max_new_tokens >= 1
        if not tokens_fit or not 1 <= self.beams <= MOST_BEAMS:
            raise ModelError(
                f"generation options out of range: max_new_tokens={self.max_new_tokens} must be at least 1, "
                f"beams={self.beams} between 1 and {MOST_BEAMS}, "
                f"min_new_tokens={self.min_new_tokens} between 0 and max_new_tokens"
            )


def generate(
    decoder: DecoderStep, memory: Memory, start: IdArray, end_id: int, pad_id: int, options: GenerationOptions
) -> list[list[int]]:
    """Return the new tokens of each row of `start` (n, t) int64, up to and with `end_id` where it was reached.

    Among equal scores the lowest token id of the best beam wins.
    """
    cache = _Cache(decoder, memory, rows=len(start))
    if options.beams == 1:
        return _greedy(cache, start, end_id, pad_id, options)
    return _beam_search(cache, start, end_id, options)


class _Cache:
    """The decoder with its past keys and values."""

    def __init__(self, decoder: DecoderStep, memory: Memory, rows: int) -> None:
        heads, width = int(memory[0].shape[1]), int(memory[0].shape[3])
        self._past = np.zeros((len(memory) // 2, 2, rows, heads, 0, width), dtype=np.float32)
        self._decoder, self._memory = decoder, memory

    def step(self, ids: IdArray) -> FloatArray:
        """Read `ids` (rows, t) and return the logits (rows, vocabulary) float32 after them."""
        logits, present = self._decoder(ids, self._past, *self._memory)
        self._past = np.concatenate([self._past, present], axis=4)
        return logits

    def take(self, rows: IdArray) -> None:
        """Go on with the pasts of `rows`, which may repeat and leave out."""
        self._past = np.ascontiguousarray(self._past[:, :, rows])


def _greedy(cache: _Cache, start: IdArray, end_id: int, pad_id: int, options: GenerationOptions) -> list[list[int]]:
    written: list[list[int]] = [[] for _ in start]
    open_rows = np.ones(len(start), dtype=bool)
    ids = start
    for count in range(options.max_new_tokens):
        logits = cache.step(ids)
        if count < options.min_new_tokens:
            logits = _without(logits, end_id)
        tokens = np.where(open_rows, logits.argmax(axis=1), pad_id)
        for row in np.flatnonzero(open_rows):
            written[row].append(int(tokens[row]))
        open_rows &= tokens != end_id
        if not open_rows.any():
            break
        ids = tokens[:, None].astype(np.int64)
    return written


@dataclass
class _Beams:
    """The search of one image: its open beams (best first) and the best finished texts, `(score, tokens)`."""

    scores: FloatArray
    texts: list[list[int]]
    finished: list[tuple[np.float32, list[int]]]
    improvable: bool = True


def _beam_search(cache: _Cache, start: IdArray, end_id: int, options: GenerationOptions) -> list[list[int]]:
    searches = [_Beams(np.zeros(1, dtype=np.float32), [[]], []) for _ in start]
    ids = start
    for count in range(1, options.max_new_tokens + 1):
        scores = _log_softmax(cache.step(ids))
        if count <= options.min_new_tokens:
            scores = _without(scores, end_id)
        # All beams of an image are equal before the first token, so there is one row per image then.
        width = len(scores) // len(searches)
        parents = [
            index * width + _advance(search, scores[index * width : (index + 1) * width], end_id, count, options)
            for index, search in enumerate(searches)
        ]
        if not any(search.improvable for search in searches) or count == options.max_new_tokens:
            break
        cache.take(np.concatenate(parents))
        ids = np.array([[text[-1]] for search in searches for text in search.texts], dtype=np.int64)
    return [search.finished[0][1] for search in searches]


def _advance(
    search: _Beams, scores: FloatArray, end_id: int, count: int, options: GenerationOptions
) -> NDArray[np.intp]:
    """Lengthen every beam by one token, the `count`-th; return which old beam each new one comes from."""
    beams, vocabulary = options.beams, scores.shape[1]
    totals = (scores + search.scores[:, None]).ravel()
    # Twice as many as are kept: at most one continuation of each beam ends, so enough stay open.
    best = _greatest(totals, 2 * beams)
    parents, tokens = np.divmod(best, vocabulary)
    texts = [[*search.texts[parent], int(token)] for parent, token in zip(parents, tokens, strict=True)]
    ends = (tokens == end_id) | (count == options.max_new_tokens)
    if search.improvable:
        ended = [(totals[best[i]] / np.float32(count), texts[i]) for i in range(min(beams, len(best))) if ends[i]]
        # sorted() is stable: among equals the one that ended first stays ahead.
        search.finished = sorted([*search.finished, *ended], key=lambda entry: -entry[0])[:beams]
    going_on = _greatest(totals[best] + ends * _NEVER, beams)
    search.texts = [texts[i] for i in going_on]
    search.scores = (totals[best] + ends * _NEVER)[going_on]
    if len(search.finished) == beams:
        # Heuristic of `early_stopping=False`: the best open beam, were it to end now, against the worst finished.
        search.improvable &= bool(search.scores[0] / np.float32(count) > search.finished[-1][0])
    return parents[going_on]


def _greatest(values: FloatArray, count: int) -> NDArray[np.intp]:
    """Return the indices of the `count` (or all) greatest of `values` (k,), the greatest and the lower index first."""
    count = min(count, len(values))
    threshold = np.partition(values, len(values) - count)[len(values) - count]
    candidates = np.flatnonzero(values >= threshold)
    return candidates[np.argsort(-values[candidates], kind="stable")][:count]


def _without(scores: FloatArray, token: int) -> FloatArray:
    """Return `scores` (rows, vocabulary) with no chance for `token`."""
    result = scores.copy()
    result[:, token] = -np.inf
    return result


def _log_softmax(logits: FloatArray) -> FloatArray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), dtype=np.float32)
