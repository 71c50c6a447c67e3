"""What building a bundle needs of a float model, whatever family it is of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image as PillowImage
from torch import Tensor, nn

from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.models.preprocess import to_rgb
from vlmquant.models.spec import ByteArray, IdArray, Image, ImageSpec

BATCH = 8
"""Inputs that calibration runs at once."""
COUNT = 4
"""Images, and texts of a dual encoder, that a bundle is proved with."""


@dataclass(frozen=True, eq=False)
class Part:
    """One component: its float tower and what that is called with while it is calibrated.

    `graphs` says which module inside the tower ("": the tower itself) becomes the ONNX graph of that name. On `judged`,
    some of `inputs`, the simulation is compared with the float model.
    """

    component: str
    tower: nn.Module
    graphs: Mapping[str, str]
    inputs: Sequence[Any]
    judged: Sequence[Any]


@dataclass(frozen=True, eq=False)
class GraphExample:
    """The inputs of one graph by name, which of their axes may vary, and the names of its outputs."""

    inputs: Mapping[str, Tensor]
    varying: Mapping[str, tuple[int, ...]]
    outputs: tuple[str, ...]

    @property
    def audited(self) -> list[Any]:
        """The inputs as arrays, cut to one row; a decoder's to one new id, as it runs when it writes."""
        rows_axis = {"past": 2}
        cut = {name: values.narrow(rows_axis.get(name, 0), 0, 1) for name, values in self.inputs.items()}
        if "past" in cut:
            cut["ids"] = cut["ids"][:, :1]
        return [values.contiguous().numpy() for values in cut.values()]


@dataclass(frozen=True, eq=False)
class Preparation:
    """A float model with all that it is calibrated, exported and proved on.

    `calibration` is the set with the texts that the model reads, None where none was given. `examples` are by graph,
    `probe_ids` (n, t) int64 the texts that a bundle is proved with.
    """

    calibration: CalibrationSet | None
    parts: tuple[Part, ...]
    examples: Mapping[str, GraphExample]
    probe_ids: IdArray


def probe_images(images: Sequence[Image], spec: ImageSpec) -> ByteArray:
    """Return the first `COUNT` images squeezed to the model's input size, (n, height, width, 3) uint8.

    Without images (a recipe that needs no calibration) smooth pictures drawn from a fixed seed serve.
    """
    size = (spec.crop_width, spec.crop_height)
    pictures = images or _synthetic()
    # One after another: a picture of a folder is decoded when it is asked for, and may be large.
    squeezed = (
        to_rgb(pictures[index]).resize(size, PillowImage.Resampling.BICUBIC)
        for index in range(min(COUNT, len(pictures)))
    )
    return np.stack([np.asarray(picture) for picture in squeezed])


def _synthetic() -> list[PillowImage.Image]:
    generator = np.random.default_rng(0)
    return [PillowImage.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8), "RGB") for _ in range(COUNT)]
