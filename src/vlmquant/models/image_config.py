"""What `preprocessor_config.json` says, as transformers' CLIP and BLIP image processors understand it."""

import math
from collections.abc import Mapping
from typing import Any

from vlmquant.errors import ModelError, unknown

CLIP, BLIP = "CLIPImageProcessor", "BlipImageProcessor"
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_COMMON: dict[str, Any] = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_pad": False,
    "resample": 3,
    "rescale_factor": 1 / 255,
    "image_mean": _MEAN,
    "image_std": _STD,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    CLIP: {
        **_COMMON,
        "do_center_crop": True,
        "size": {"shortest_edge": 224},
        "crop_size": {"height": 224, "width": 224},
    },
    BLIP: {**_COMMON, "do_center_crop": False, "size": {"height": 384, "width": 384}, "crop_size": None},
}
"""By processor: what holds for a key that is absent."""
_FILTERS = range(6)
"""Pillow's resampling filters."""


def spec_fields(config: Mapping[str, Any], source: str, processor: str) -> dict[str, Any]:
    """Return the fields of an `ImageSpec` from the dict of the file `source`.

    `processor` (a key of `DEFAULTS`) holds where the file names none. Raises ModelError naming the key for a value that
    transformers refuses, and for one that gives pictures of varying size.
    """
    settings = _Settings(config, source, _processor(config, source, processor))
    if not settings.flag("do_resize"):
        raise settings.refusal("do_resize", "true: pictures have many sizes and the model takes one")
    if settings.flag("do_pad") and config.get("pad_size") is not None:
        raise settings.refusal("pad_size", "none, since resizing and cropping give the model's size")
    if config.get("use_square_size"):
        raise settings.refusal("use_square_size", "none; write size as a height and a width")
    size = settings.size("size")
    height, width = size.get("height"), size.get("width")
    if settings.flag("do_center_crop"):
        crop = settings.size("crop_size")
        if "shortest_edge" in crop:
            raise settings.refusal("crop_size", "a height and a width")
    elif height is None:
        raise settings.refusal("do_center_crop", "true where size is a shortest edge, or the model gets many sizes")
    else:
        crop = size
    normalizes = settings.flag("do_normalize")
    return {
        "shortest_edge": size.get("shortest_edge"),
        "resize_height": height,
        "resize_width": width,
        "resample": settings.resample(),
        "crop_height": crop["height"],
        "crop_width": crop["width"],
        "rescale_factor": settings.number("rescale_factor") if settings.flag("do_rescale") else 1.0,
        "mean": settings.three("image_mean") if normalizes else (0.0, 0.0, 0.0),
        "std": settings.three("image_std") if normalizes else (1.0, 1.0, 1.0),
    }


def _processor(config: Mapping[str, Any], source: str, default: str) -> str:
    """Return which of `DEFAULTS` the file is for; transformers 4 and 5 have it in several makes."""
    named = str(config.get("image_processor_type") or config.get("feature_extractor_type") or default)
    for ending in ("Fast", "Pil"):
        named = named.removesuffix(ending)
    named = named.replace("FeatureExtractor", "ImageProcessor")
    if named not in DEFAULTS:
        raise unknown(ModelError, f"image_processor_type in {source}:", named, DEFAULTS)
    return named


class _Settings:
    """The values of one file, with the defaults of its processor for what is absent.

    A null turns a step off; what a step needs may not be null.
    """

    def __init__(self, config: Mapping[str, Any], source: str, processor: str) -> None:
        self.values = {**DEFAULTS[processor], **config}
        self.source = source
        self.processor = processor

    def refusal(self, key: str, expected: str) -> ModelError:
        """Return the error for the value of `key`."""
        return ModelError(f"{self.source} has {key} = {self.values.get(key)!r}, expected {expected}")

    def flag(self, key: str) -> bool:
        value = self.values[key]
        if value is not None and not isinstance(value, bool):
            raise self.refusal(key, "true or false")
        return bool(value)

    def number(self, key: str) -> float:
        value = self.values[key]
        if not _is_number(value) or value <= 0:
            raise self.refusal(key, "a number above 0")
        return float(value)

    def resample(self) -> int:
        value = self.values["resample"]
        if not _is_whole(value) or value not in _FILTERS:
            raise self.refusal("resample", f"Pillow's number of a filter, {_FILTERS[0]} to {_FILTERS[-1]} (bicubic: 3)")
        return int(value)

    def three(self, key: str) -> tuple[float, ...]:
        """Return one number for each colour; a single one stands for all."""
        value = self.values[key]
        numbers = [value] * 3 if _is_number(value) else value
        if not isinstance(numbers, list | tuple) or len(numbers) != 3 or not all(map(_is_number, numbers)):
            raise self.refusal(key, "three numbers, or one for all colours")
        return tuple(map(float, numbers))

    def size(self, key: str) -> dict[str, int]:
        """Return {"height", "width"} or {"shortest_edge"}; an older file has a number or a pair."""
        value = self.values[key]
        if isinstance(value, int) and key == "size" and self.processor == CLIP:
            size: dict[str, int] = {"shortest_edge": value}
        elif isinstance(value, int):
            size = {"height": value, "width": value}
        elif isinstance(value, list | tuple) and len(value) == 2:
            size = dict(zip(("height", "width"), value, strict=True))
        else:
            size = dict(value) if isinstance(value, dict) else {}
        if set(size) == {"shortest_edge", "longest_edge"} and size["longest_edge"] is None:
            del size["longest_edge"]
        if set(size) not in ({"height", "width"}, {"shortest_edge"}):
            raise self.refusal(key, "a height and a width, or a shortest edge")
        if not all(_is_whole(length) and length >= 1 for length in size.values()):
            raise self.refusal(key, "whole numbers of pixels, at least 1")
        return size


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
