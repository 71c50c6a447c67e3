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

PREPROCESSOR = "preprocessor_config.json"

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


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """How a picture becomes a model's input; the fields of `preprocessor_config.json` that CLIP and BLIP use.

    Exactly one of `shortest_edge` (keep the aspect ratio) and `resize_height`/`resize_width` (squash) is set.
    `resample` is Pillow's filter number (3 = bicubic). The result is (3, crop_height, crop_width) float32, CHW, RGB:
    `(pixel * rescale_factor - mean) / std`.
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
    def from_config(cls, config: Mapping[str, Any]) -> "ImageSpec":
        """Read the dict of a `preprocessor_config.json`. Raises ModelError where a step is missing or unusual."""
        for step in ("do_resize", "do_rescale", "do_normalize"):
            if not config.get(step, True):
                raise ModelError(f"preprocessor_config.json turns {step} off; every CLIP and BLIP checkpoint has it on")
        for key in ("image_mean", "image_std"):
            if len(config.get(key) or ()) != 3:
                raise ModelError(f"preprocessor_config.json has {key} = {config.get(key)!r}, expected three numbers")
        size = config.get("size", 224)
        size = {"shortest_edge": size} if isinstance(size, int) else dict(size)
        shortest_edge, height, width = size.get("shortest_edge"), size.get("height"), size.get("width")
        if config.get("do_center_crop", False) or ("crop_size" in config and height is None):
            crop = config.get("crop_size", shortest_edge)
            crop = {"height": crop, "width": crop} if isinstance(crop, int) else dict(crop)
        else:
            crop = {"height": height, "width": width}
        if crop.get("height") is None or crop.get("width") is None:
            raise ModelError(f"preprocessor_config.json gives no output size: size={config.get('size')!r}")
        return cls(
            shortest_edge=shortest_edge,
            resize_height=height,
            resize_width=width,
            resample=int(config.get("resample", 3)),
            crop_height=int(crop["height"]),
            crop_width=int(crop["width"]),
            rescale_factor=float(config.get("rescale_factor", 1 / 255)),
            mean=tuple(float(v) for v in config["image_mean"]),  # type: ignore[arg-type]
            std=tuple(float(v) for v in config["image_std"]),  # type: ignore[arg-type]
        )

    @classmethod
    def from_folder(cls, folder: Path) -> "ImageSpec":
        """Read `preprocessor_config.json` in a checkpoint or bundle folder. Raises ModelError when it is missing."""
        path = folder / PREPROCESSOR
        if not path.is_file():
            raise ModelError(f"{folder} has no {PREPROCESSOR}; copy it from the checkpoint's page")
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ModelError(f"{path} is not JSON: {error}; copy it again from the checkpoint") from error
        return cls.from_config(config)
