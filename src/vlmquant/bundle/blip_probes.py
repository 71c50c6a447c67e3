"""Probes of a BLIP: a few pictures and texts that are run through all its graphs, on anything that can run them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlmquant.models.blip_runner import BlipRunner
from vlmquant.models.generate import GenerationOptions, generate
from vlmquant.models.spec import ByteArray, FloatArray, IdArray

WRITTEN = 10
"""So many tokens are written for each probe picture, the end token not among them."""
POSITIONS = 4
"""Of so many positions, spread over an image's or a question's, the states are kept."""


@dataclass(frozen=True, eq=False)
class BlipProbes:
    """`images` (n, height, width, 3) uint8 RGB at the model's size, and `ids` (n, t) int64, one text for each.

    A captioner begins with `ids`, the others read them as the question or the text to match.
    """

    images: ByteArray
    ids: IdArray


@dataclass(frozen=True, eq=False)
class BlipResults:
    """What the probes became: rows (k, d) of float32 by graph, and the tokens (n, `WRITTEN`) int64 written greedily.

    A matcher writes none: (n, 0).
    """

    rows: Mapping[str, FloatArray]
    tokens: IdArray

    def equal_tokens(self, other: "BlipResults") -> float:
        """Return the share of equal tokens, 0 to 1; 1 where there are none."""
        return float((self.tokens == other.tokens).mean()) if self.tokens.size else 1.0


def run_probes(runner: BlipRunner, probes: BlipProbes) -> BlipResults:
    """Return what `runner` makes of the probes, each graph fed with what the one before it gave.

    Of image and question states and of cross keys and values only `POSITIONS` positions are kept; of the decoder, the
    logits of its second step, which has a past.
    """
    states = runner.states(list(probes.images))
    rows = {"vision": _positions(states)}
    tokens = np.zeros((len(probes.images), 0), dtype=np.int64)
    if runner.matcher is not None:
        rows["matcher"] = runner.matcher(probes.ids, states)
    if runner.question_encoder is not None:
        states = runner.question_encoder(probes.ids, states)
        rows["question_encoder"] = _positions(states)
    if runner.cross is not None and runner.decoder is not None:
        start = probes.ids if runner.kind == "captioning" else np.full((len(probes.ids), 1), runner.start_id)
        memory = runner.cross(states)
        rows["cross"] = np.stack([_positions(part) for part in memory])
        past = np.zeros((len(memory) // 2, 2, len(start), memory[0].shape[1], 0, memory[0].shape[3]), np.float32)
        _, present = runner.decoder(start, past, *memory)
        rows["decoder"], _ = runner.decoder(start[:, -1:], np.asarray(present), *memory)
        options = GenerationOptions(max_new_tokens=WRITTEN, min_new_tokens=WRITTEN)
        tokens = np.array(generate(runner.decoder, memory, start, runner.end_id, runner.pad_id, options))
    return BlipResults({name: part.reshape(-1, part.shape[-1]) for name, part in rows.items()}, tokens)


def save_probes(path: Path, probes: BlipProbes, expected: BlipResults, float_expected: BlipResults) -> None:
    """Write the probes, and what the simulation and the float model made of them, as one .npz without objects."""
    arrays: dict[str, Any] = {"images": probes.images, "ids": probes.ids}
    for prefix, results in (("expected", expected), ("float", float_expected)):
        arrays[f"{prefix}_tokens"] = results.tokens
        arrays |= {f"{prefix}_rows_{graph}": rows for graph, rows in results.rows.items()}
    np.savez_compressed(path, allow_pickle=False, **arrays)


def load_probes(path: Path) -> tuple[BlipProbes, BlipResults, BlipResults]:
    """Read what `save_probes` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return BlipProbes(arrays["images"], arrays["ids"]), _results(arrays, "expected"), _results(arrays, "float")


def _results(arrays: Mapping[str, Any], prefix: str) -> BlipResults:
    start = f"{prefix}_rows_"
    rows = {name.removeprefix(start): values for name, values in arrays.items() if name.startswith(start)}
    return BlipResults(rows, arrays[f"{prefix}_tokens"])


def _positions(values: FloatArray) -> FloatArray:
    """Return `POSITIONS` of the positions, the last axis but one, of (..., p, d)."""
    return values[..., np.linspace(0, values.shape[-2] - 1, POSITIONS).astype(int), :]
