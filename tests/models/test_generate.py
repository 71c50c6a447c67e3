"""The decoding loop over decoders written by hand; tests/models/test_blip.py has its parity with transformers."""

import itertools

import numpy as np
import pytest

from vlmquant.errors import ModelError
from vlmquant.models.generate import GenerationOptions, generate
from vlmquant.models.spec import FloatArray, IdArray

START, END, PAD = 0, 1, 2
MEMORY = (np.zeros((2, 1, 3, 1), np.float32),) * 2


class Chain:
    """A decoder whose next token depends on the last two tokens, the earlier one read from the cache."""

    def __init__(self, seed: int, vocabulary: int = 7) -> None:
        self.table = np.random.default_rng(seed).normal(0, 2, (vocabulary, vocabulary, vocabulary)).astype(np.float32)
        self.lengths: list[int] = []
        self.rows: list[int] = []

    def __call__(self, ids: IdArray, past: FloatArray, *memory: FloatArray) -> tuple[FloatArray, FloatArray]:
        assert past.shape == (1, 2, len(ids), 1, past.shape[4], 1)
        assert past.dtype == np.float32
        self.lengths.append(past.shape[4])
        self.rows.append(len(ids))
        present = np.broadcast_to(ids[None, None, :, None, :, None], (1, 2, len(ids), 1, ids.shape[1], 1))
        seen = np.concatenate([past[0, 0, :, 0, :, 0], ids], axis=1).astype(int)
        before = seen[:, -2] if seen.shape[1] > 1 else seen[:, -1]
        return self.table[before, seen[:, -1]], present.astype(np.float32)

    def log_probabilities(self, text: tuple[int, ...]) -> FloatArray:
        logits = self.table[text[-2] if len(text) > 1 else text[-1], text[-1]].astype(np.float64)
        return logits - np.log(np.exp(logits).sum())


def best_of_all(chain: Chain, longest: int) -> list[int]:
    """Search every text of up to `longest` tokens for the greatest mean log-probability."""
    scored = []
    others = [token for token in range(chain.table.shape[0]) if token != END]
    for length in range(1, longest + 1):
        for body in itertools.product(others, repeat=length - 1):
            for last in [END] if length < longest else range(chain.table.shape[0]):
                text = (*body, last)
                sums = [chain.log_probabilities((START, *text[:i]))[text[i]] for i in range(length)]
                scored.append((sum(sums) / length, list(text)))
    return max(scored)[1]


@pytest.mark.parametrize("seed", range(5))
def test_beams_wide_enough_find_the_best_text_of_all(seed: int) -> None:
    chain = Chain(seed, vocabulary=5)
    found = generate(
        chain, MEMORY, np.array([[START], [START]]), END, PAD, GenerationOptions(max_new_tokens=3, beams=24)
    )
    assert found == [best_of_all(chain, 3)] * 2


def test_greedy_takes_the_greatest_at_every_step_and_stops_at_the_end() -> None:
    chain = Chain(1)
    text, expected = [START], []
    while not expected or (expected[-1] != END and len(expected) < 15):
        expected.append(int(chain.log_probabilities(tuple(text)).argmax()))
        text.append(expected[-1])
    assert generate(chain, MEMORY, np.array([[START]]), END, PAD, GenerationOptions(max_new_tokens=15)) == [expected]


@pytest.mark.parametrize("beams", [1, 3])
def test_a_row_does_not_depend_on_its_batch(beams: int) -> None:
    chain = Chain(3, vocabulary=8)
    starts = np.array([[START, 3], [4, 5], [2, 3], [5, 4]])
    options = GenerationOptions(max_new_tokens=9, beams=beams)
    together = generate(chain, MEMORY, starts, END, PAD, options)
    assert len({len(text) for text in together}) > 1
    assert together == [generate(chain, MEMORY, start[None], END, PAD, options)[0] for start in starts]


@pytest.mark.parametrize("beams", [1, 3])
def test_every_position_is_read_once_and_beams_part_after_the_start(beams: int) -> None:
    chain = Chain(0)
    options = GenerationOptions(max_new_tokens=5, min_new_tokens=5, beams=beams)
    found = generate(chain, MEMORY, np.array([[START, 3, 4], [START, 5, 6]]), END, PAD, options)
    assert [len(text) for text in found] == [5, 5]
    assert chain.lengths == [0, 3, 4, 5, 6]
    assert chain.rows == [2] + [2 * beams] * 4


@pytest.mark.parametrize("beams", [1, 3])
def test_equal_scores_give_the_lowest_token(beams: int) -> None:
    chain = Chain(0)
    chain.table[:] = 0
    options = GenerationOptions(max_new_tokens=3, min_new_tokens=3, beams=beams)
    assert generate(chain, MEMORY, np.array([[START]]), END, PAD, options) == [[0, 0, 0]]


@pytest.mark.parametrize(
    "settings", [{"max_new_tokens": 0}, {"beams": 0}, {"min_new_tokens": -1}, {"min_new_tokens": 21}]
)
def test_options_out_of_range(settings: dict[str, int]) -> None:
    with pytest.raises(ModelError, match="out of range"):
        GenerationOptions(**settings)
