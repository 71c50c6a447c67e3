"""Probes: a few stored inputs with the embeddings they must give, so that a bundle can be proved anywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from vlmquant.models.preprocess import preprocess, to_rgb
from vlmquant.models.spec import ByteArray, FloatArray, IdArray, Image, ImageSpec

PROBES = "probes.npz"
COUNT = 4


@dataclass(frozen=True, eq=False)
class Probes:
    """`images` (n, height, width, 3) uint8 RGB and `ids` (n, length) int64, with what each must become.

    `expected` and `float_expected` map a component to the (n, d) embeddings of the simulation and of the float model,
    before normalization.
    """

    images: ByteArray
    ids: IdArray
    expected: Mapping[str, FloatArray]
    float_expected: Mapping[str, FloatArray]

    def inputs(self, component: str, spec: ImageSpec) -> FloatArray | IdArray:
        """Return the tower input of `component`: preprocessed pixels or token ids."""
        if component == "text":
            return self.ids
        return np.stack([preprocess(image, spec) for image in self.images])

    def save(self, path: Path) -> None:
        """Write one compressed .npz without pickled objects."""
        arrays: dict[str, Any] = {"images": self.images, "ids": self.ids}
        arrays |= {f"expected_{name}": rows for name, rows in self.expected.items()}
        arrays |= {f"float_{name}": rows for name, rows in self.float_expected.items()}
        np.savez_compressed(path, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Probes":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return cls(
            images=arrays["images"],
            ids=arrays["ids"],
            expected=_with_prefix(arrays, "expected_"),
            float_expected=_with_prefix(arrays, "float_"),
        )


def _with_prefix(arrays: Mapping[str, FloatArray], prefix: str) -> dict[str, FloatArray]:
    return {name.removeprefix(prefix): rows for name, rows in arrays.items() if name.startswith(prefix)}


def probe_images(images: Sequence[Image], spec: ImageSpec) -> ByteArray:
    """Return the first `COUNT` images squeezed to the model's input size, (n, height, width, 3) uint8.

    Without images (a recipe that needs no calibration) smooth pictures drawn from a fixed seed serve.
    """
    size = (spec.crop_width, spec.crop_height)
    pictures = [to_rgb(image) for image in images[:COUNT]] or _synthetic()
    return np.stack([np.asarray(picture.resize(size, PillowImage.Resampling.BICUBIC)) for picture in pictures])


def _synthetic() -> list[PillowImage.Image]:
    generator = np.random.default_rng(0)
    return [PillowImage.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8), "RGB") for _ in range(COUNT)]


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
