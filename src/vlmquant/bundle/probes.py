"""Probes: a few stored inputs with what each graph must make of them, so that a bundle can be proved anywhere."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from vlmquant.errors import BundleError
from vlmquant.models.generate import GenerationOptions, generate
from vlmquant.models.heads import BundleHead, Run, WritingHead
from vlmquant.models.preprocess import preprocess
from vlmquant.models.spec import ByteArray, FloatArray, IdArray, ImageSpec

PROBES = "probes.npz"
WRITTEN = 10
"""So many tokens are written for each probe picture, the end token not among them."""
POSITIONS = 4
"""Of so many positions, spread over an image's or a question's, the states are kept."""
MOST_BYTES = 256 << 20
"""All arrays together; those of BLIP base take 8 MB."""


@dataclass(frozen=True, eq=False)
class ProbeInputs:
    """`images` (n, height, width, 3) uint8 RGB at the model's size, and `ids` (n, t) int64, one text for each.

    A captioner begins with `ids`; others read them as the text, the question, or what is to be matched.
    """

    images: ByteArray
    ids: IdArray

    def only(self, row: int) -> "ProbeInputs":
        """Return one image and one text alone; nothing in place of what is not there."""
        return ProbeInputs(self.images[row : row + 1], self.ids[row : row + 1])


@dataclass(frozen=True, eq=False)
class ProbeResults:
    """What the probes became: `rows` (k, d) of float32 by graph, and the tokens (n, `WRITTEN`) int64 written greedily.

    A head that writes no text has (n, 0) tokens.
    """

    rows: Mapping[str, FloatArray]
    tokens: IdArray

    def equal_tokens(self, other: "ProbeResults") -> float:
        """Return the share of equal tokens, 0 to 1; 1 where there are none."""
        return float((self.tokens == other.tokens).mean()) if self.tokens.size else 1.0


@dataclass(frozen=True, eq=False)
class Probes:
    """The inputs, and what the simulation and the float model made of them."""

    inputs: ProbeInputs
    expected: ProbeResults
    float_expected: ProbeResults

    def save(self, path: Path) -> None:
        """Write one compressed .npz without pickled objects."""
        arrays: dict[str, Any] = {"images": self.inputs.images, "ids": self.inputs.ids}
        for prefix, results in (("expected", self.expected), ("float", self.float_expected)):
            if results.tokens.size:
                arrays[f"{prefix}_tokens"] = results.tokens
            arrays |= {f"{prefix}_rows_{graph}": rows for graph, rows in results.rows.items()}
        np.savez_compressed(path, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path, head: BundleHead) -> "Probes":
        """Read what `save` wrote, for every graph of `head`.

        Raises BundleError for a file that holds something else, or more than `MOST_BYTES` once it is unpacked.
        """
        arrays = _read_arrays(path)
        inputs = ProbeInputs(_array(arrays, "images", np.uint8, 4), _array(arrays, "ids", np.int64, 2))
        alike = head.independent or len(inputs.images) == len(inputs.ids)
        if not (inputs.images.size and inputs.ids.size and inputs.images.shape[3] == 3 and alike):
            raise _wrong(f"images of {inputs.images.shape} and ids of {inputs.ids.shape}")
        expected, float_expected = (_results(arrays, prefix, head, inputs) for prefix in ("expected", "float"))
        for graph, rows in expected.rows.items():
            if rows.shape != float_expected.rows[graph].shape:
                raise _wrong(f"results of {graph!r} in {rows.shape} and {float_expected.rows[graph].shape}")
        return cls(inputs, expected, float_expected)


def run_probes(head: BundleHead, graphs: Mapping[str, Run], inputs: ProbeInputs, image_spec: ImageSpec) -> ProbeResults:
    """Return what `graphs` of `head` make of the probes.

    The graphs of a dual encoder stand alone, and any of them will do. Those of the others come all, and each is fed
    with what the one before it gave: of image and question states and of cross keys and values `POSITIONS` positions
    are kept; of the decoder, the logits of its second step, which has a past.
    """
    if isinstance(head, WritingHead):
        return _run_chain(head, graphs, inputs, image_spec)
    rows = {
        graph: run(pixels_of(inputs, image_spec) if graph == "image" else inputs.ids) for graph, run in graphs.items()
    }
    return ProbeResults(rows, _no_tokens(inputs))


def pixels_of(inputs: ProbeInputs, spec: ImageSpec) -> FloatArray:
    """Return the preprocessed images, (n, 3, height, width) float32."""
    return np.stack([preprocess(image, spec) for image in inputs.images])


def _run_chain(
    head: WritingHead, graphs: Mapping[str, Run], inputs: ProbeInputs, image_spec: ImageSpec
) -> ProbeResults:
    states = graphs["vision"](pixels_of(inputs, image_spec))
    rows = {"vision": _positions(states)}
    tokens = _no_tokens(inputs)
    if "matcher" in graphs:
        rows["matcher"] = graphs["matcher"](inputs.ids, states)
    start = inputs.ids
    if "question_encoder" in graphs:
        states = graphs["question_encoder"](inputs.ids, states)
        rows["question_encoder"] = _positions(states)
        start = np.full((len(inputs.ids), 1), head.start_id)
    if "decoder" in graphs:
        memory = graphs["cross"](states)
        rows["cross"] = np.stack([_positions(part) for part in memory])
        past = np.zeros((len(memory) // 2, 2, len(start), memory[0].shape[1], 0, memory[0].shape[3]), np.float32)
        _, present = graphs["decoder"](start, past, *memory)
        rows["decoder"], _ = graphs["decoder"](start[:, -1:], np.asarray(present), *memory)
        options = GenerationOptions(max_new_tokens=WRITTEN, min_new_tokens=WRITTEN)
        tokens = np.array(generate(graphs["decoder"], memory, start, head.end_id, head.pad_id, options))
    return ProbeResults({name: part.reshape(-1, part.shape[-1]) for name, part in rows.items()}, tokens)


def _positions(values: FloatArray) -> FloatArray:
    """Return `POSITIONS` of the positions, the last axis but one, of (..., p, d)."""
    return values[..., np.linspace(0, values.shape[-2] - 1, POSITIONS).astype(int), :]


def _no_tokens(inputs: ProbeInputs) -> IdArray:
    return np.zeros((len(inputs.images), 0), dtype=np.int64)


def _read_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays of an .npz, none of which is unpacked before its header said how large it is."""
    arrays, left = {}, MOST_BYTES
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                with archive.open(member) as stream:
                    if np.lib.format.read_magic(stream) != (1, 0):
                        raise ValueError(f"{member.filename} is of another version of the format")
                    shape, in_columns, dtype = np.lib.format.read_array_header_1_0(stream)
                    if dtype.hasobject or in_columns or min(shape, default=0) < 0:
                        raise ValueError(f"{member.filename} is not a plain array")
                    left -= (size := prod(shape) * dtype.itemsize)
                    if left < 0:
                        raise ValueError(f"it unpacks to more than {MOST_BYTES >> 20} MiB")
                    values = np.frombuffer(stream.read(size), dtype).reshape(shape)
                    arrays[member.filename.removesuffix(".npy")] = values.copy()
    except Exception as error:  # damaged archives raise ten kinds of errors
        raise BundleError(f"{path} cannot be read: {error}; build the bundle again") from error
    return arrays


def _results(arrays: Mapping[str, Any], prefix: str, head: BundleHead, inputs: ProbeInputs) -> ProbeResults:
    rows = {}
    for graph in head.graphs:
        # Encoders of schema 1 and 2 leave "rows" out, and the tokens that they do not write.
        name = f"{prefix}_rows_{graph}"
        rows[graph] = _array(arrays, name if name in arrays else f"{prefix}_{graph}", np.float32, 2)
    if "decoder" not in head.graphs:
        return ProbeResults(rows, _no_tokens(inputs))
    return ProbeResults(rows, _array(arrays, f"{prefix}_tokens", np.int64, 2))


def _array(arrays: Mapping[str, Any], name: str, dtype: type[Any], axes: int) -> np.ndarray[Any, Any]:
    values = arrays.get(name)
    if values is None or values.dtype != dtype or values.ndim != axes:
        found = "nothing" if values is None else f"{values.dtype} with {values.ndim} axes"
        raise _wrong(f"{found} as {name!r}, expected {np.dtype(dtype)} with {axes} axes")
    return np.asarray(values)


def _wrong(what: str) -> BundleError:
    return BundleError(f"{PROBES} holds {what}; build the bundle again")


def agreement(left: FloatArray, right: FloatArray) -> dict[str, float]:
    """Compare two (n, d) sets of embeddings row by row: least and mean cosine, greatest absolute difference, n."""
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines = np.sum(left * right, axis=1, dtype=np.float64) / np.maximum(norms, 1e-30)
    return {
        "cosine_min": float(cosines.min()),
        "cosine_mean": float(cosines.mean()),
        "max_abs_difference": float(np.abs(left - right).max()),
        "n": float(len(left)),
    }
