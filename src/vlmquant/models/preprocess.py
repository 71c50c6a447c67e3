"""From a picture of any kind to the image tower's input: Pillow and NumPy only.

The steps and their rounding are those of transformers' `CLIPImageProcessorPil`: upright RGB, resize, centre crop,
rescale, normalize.
"""

from pathlib import Path

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageOps

from vlmquant.data.images import MAX_PIXELS, FileImage, LazyImages
from vlmquant.errors import DataError
from vlmquant.models.spec import FloatArray, Image, ImageSpec


def read_image(path: Path) -> PillowImage.Image:
    """Open and decode the picture at `path`, in its own mode and not yet turned upright.

    Raises DataError naming `path` when it is missing, not a picture, broken, or too large.
    """
    return LazyImages((str(path),), (FileImage(path),))[0]


def to_rgb(image: Image) -> PillowImage.Image:
    """Return `image` upright (by its EXIF orientation) and as 8-bit RGB; what is transparent lies on white.

    White is what transformers puts it on, since version 5. 16-bit grey keeps its upper eight bits, where Pillow alone
    would turn nearly everything white.
    Raises DataError for an array that is not uint8 of shape (height, width, 3), or an empty picture.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise DataError(f"an image array must be uint8 (height, width, 3), got {image.dtype} {image.shape}")
        return PillowImage.fromarray(np.ascontiguousarray(image))
    if 0 in image.size:
        raise DataError(f"an image must have at least one pixel, got width and height {image.size}")
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception:  # whatever a broken EXIF block leads Pillow to; the picture has no orientation then
        upright = image
    if upright.mode.startswith("I;16"):
        upright = PillowImage.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    if "A" in upright.getbands() or upright.info.get("transparency") is not None:
        white = PillowImage.new("RGBA", upright.size, "white")
        return PillowImage.alpha_composite(white, upright.convert("RGBA")).convert("RGB")
    return upright.convert("RGB")


def preprocess(image: Image, spec: ImageSpec) -> FloatArray:
    """Return the (3, crop_height, crop_width) float32 input of the image tower for one picture. Raises DataError."""
    picture = _resize_and_crop(to_rgb(image), spec)
    mean, std = np.array(spec.mean, dtype=np.float32), np.array(spec.std, dtype=np.float32)
    normalized = (np.asarray(picture, dtype=np.float32) * np.float32(spec.rescale_factor) - mean) / std
    return np.ascontiguousarray(normalized.transpose(2, 0, 1))


def _resize_and_crop(picture: PillowImage.Image, spec: ImageSpec) -> PillowImage.Image:
    """Resize, then cut out the centre; black surrounds a resized picture that is smaller than the cut."""
    width, height = _resized_size(picture, spec)
    if width * height > MAX_PIXELS:
        raise DataError(f"an image of {picture.width} x {picture.height} is too long and thin to resize; crop it first")
    resized = picture.resize((width, height), PillowImage.Resampling(spec.resample))
    left, top = (width - spec.crop_width) // 2, (height - spec.crop_height) // 2
    return resized.crop((left, top, left + spec.crop_width, top + spec.crop_height))


def _resized_size(picture: PillowImage.Image, spec: ImageSpec) -> tuple[int, int]:
    """Return (width, height) after resizing; the long edge is rounded down."""
    if spec.shortest_edge is None:
        assert spec.resize_width is not None  # ImageSpec holds one of the two
        assert spec.resize_height is not None
        return spec.resize_width, spec.resize_height
    edge, short, long = spec.shortest_edge, min(picture.size), max(picture.size)
    other = int(edge * long / short)
    return (edge, other) if picture.width <= picture.height else (other, edge)
