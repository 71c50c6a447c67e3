"""The words that every later stage knows a model by; no torch here."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from vlmquant.errors import ModelError
from vlmquant.files import write_whole
from vlmquant.models import image_config

PREPROCESSOR = "preprocessor_config.json"
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"

FloatArray: TypeAlias = NDArray[np.float32]
IdArray: TypeAlias = NDArray[np.int64]
ByteArray: TypeAlias = NDArray[np.uint8]
Image: TypeAlias = PillowImage.Image | ByteArray
"""A picture: a Pillow image of any mode, or uint8 RGB of shape (height, width, 3)."""

Head: TypeAlias = Literal["dual-encoder", "captioner", "answerer", "matcher"]
"""What a model does with images and texts, whatever family it is of."""


class Encoder(Protocol):
    """A dual encoder: images and texts to unit vectors in one space.

    The float model, the simulated quantized model and a bundle on any engine are all Encoders.
    """

    @property
    def name(self) -> str:
        """What to call this encoder in tables."""
        ...

    @property
    def logit_scale(self) -> float:
        """The factor that the model was trained to multiply cosines by before a softmax."""
        ...

    def encode_images(self, images: Sequence[Image]) -> FloatArray:
        """Return (n, d) float32 rows of unit length."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """Return (n, d) float32 rows of unit length."""
        ...


class Captioner(Protocol):
    """A model that says what is in an image; the float model, the simulation and every bundle are alike."""

    @property
    def name(self) -> str:
        """What to call this model in tables."""
        ...

    def caption(self, images: Sequence[Image]) -> list[str]:
        """Return one caption per image."""
        ...


class Answerer(Protocol):
    """A model that answers questions about images."""

    @property
    def name(self) -> str:
        """What to call this model in tables."""
        ...

    def answer(self, images: Sequence[Image], questions: Sequence[str]) -> list[str]:
        """Return one answer per pair of an image and a question. Raises DataError for a question it cannot read."""
        ...


class Matcher(Protocol):
    """A model that tells whether a text describes an image."""

    @property
    def name(self) -> str:
        """What to call this model in tables."""
        ...

    def match(self, images: Sequence[Image], texts: Sequence[str]) -> FloatArray:
        """Return (n,) float32, the probability 0 to 1 that each pair of an image and a text matches."""
        ...


def refuse_pointer(path: Path) -> None:
    """Raise ModelError where `path` is what Git has in place of a large file that was not fetched."""
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise ModelError(f"{path} is a Git-LFS pointer and not the file itself; run: git lfs pull")


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in `path`; an absent file is an empty object. Raises ModelError for anything else."""
    if not path.is_file():
        return {}
    refuse_pointer(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON: {error}; copy it again from the checkpoint") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds a {type(content).__name__}, expected a JSON object")
    return content


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """How a picture becomes a model's input; the fields of `preprocessor_config.json` that CLIP and BLIP use.

    Exactly one of `shortest_edge` (keep the aspect ratio) and `resize_height`/`resize_width` (squash) is set.
    `resample` is Pillow's filter number (3 = bicubic). The result is (3, crop_height, crop_width) float32, CHW, RGB:
    `(pixel * rescale_factor - mean) / std`. Where the checkpoint does not rescale, the factor is 1; where it does not
    normalize, the mean is 0 and the deviation 1.
    """

    shortest_edge: int | None
    resize_height: int | None
    resize_width: int | None
    resample: int
    crop_height: int
    crop_width: int
    rescale_factor: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        squash = self.resize_height is not None and self.resize_width is not None
        if (self.shortest_edge is not None) == squash:
            raise ModelError(
                f"image size must be a shortest edge or a height and a width, got {self.shortest_edge = }, "
                f"{self.resize_height = }, {self.resize_width = }"
            )
        if min(self.crop_height, self.crop_width) < 1 or min(self.std) <= 0 or self.rescale_factor <= 0:
            raise ModelError(f"image spec out of range: {self}")

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], *, source: str = PREPROCESSOR, processor: str = image_config.CLIP
    ) -> "ImageSpec":
        """Read the dict of a `preprocessor_config.json` as transformers does; `source` is what errors call the file.

        `processor` is the image processor whose defaults hold where the file names none. Raises ModelError for a value
        that transformers refuses, or that gives pictures of varying size.
        """
        return cls(**image_config.spec_fields(config, source, processor))

    @classmethod
    def from_folder(cls, folder: Path, *, processor: str = image_config.CLIP) -> "ImageSpec":
        """Read `preprocessor_config.json` in a bundle folder. Raises ModelError when it is missing or unusual."""
        path = folder / PREPROCESSOR
        if not path.is_file():
            raise ModelError(f"{folder} has no {PREPROCESSOR}; copy it from the checkpoint's page")
        return cls.from_config(read_json(path), source=str(path), processor=processor)

    def save(self, folder: Path) -> None:
        """Write `preprocessor_config.json` with every value spelled out; `from_folder` and transformers read it."""
        squashed = (self.resize_height, self.resize_width)
        cropped = squashed != (self.crop_height, self.crop_width)
        edge = {"shortest_edge": self.shortest_edge}
        content = {
            "image_processor_type": image_config.CLIP if cropped else image_config.BLIP,
            "do_convert_rgb": True,
            "do_resize": True,
            "size": dict(zip(("height", "width"), squashed, strict=True)) if self.shortest_edge is None else edge,
            "resample": self.resample,
            "do_center_crop": cropped,
            "crop_size": {"height": self.crop_height, "width": self.crop_width},
            "do_rescale": True,
            "rescale_factor": self.rescale_factor,
            "do_normalize": True,
            "image_mean": self.mean,
            "image_std": self.std,
        }
        write_whole(folder / PREPROCESSOR, json.dumps(content, indent=2))
