"""The explicit, hashed sample of inputs that static ranges are measured on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vlmquant.errors import CalibrationError
from vlmquant.models.preprocess import IMAGE_SUFFIXES, read_image, to_rgb
from vlmquant.models.prompts import BUILTIN_PROMPTS, BUILTIN_PROMPTS_NAME
from vlmquant.models.spec import Image
from vlmquant.progress import Track, silent

DEFAULT_IMAGES = 64


@dataclass(frozen=True)
class CalibrationSet:
    """Images and texts to measure ranges on, and where they came from.

    `images_from` and `texts_from` say it in words that go into the manifest and the output.
    """

    images: tuple[Image, ...]
    texts: tuple[str, ...]
    images_from: str
    texts_from: str

    @cached_property
    def digest(self) -> str:
        """SHA-256 over every pixel and every text, in order."""
        sha = hashlib.sha256()
        for image in self.images:
            pixels = np.asarray(to_rgb(image))
            sha.update(repr(pixels.shape).encode())
            sha.update(pixels.tobytes())
        for text in self.texts:
            sha.update(text.encode() + b"\0")
        return sha.hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return what the manifest keeps of the set."""
        return {
            "images": len(self.images),
            "images_from": self.images_from,
            "texts": len(self.texts),
            "texts_from": self.texts_from,
            "sha256": self.digest,
        }

    @classmethod
    def from_files(
        cls,
        images: str | Path,
        texts: str | Path | None = None,
        *,
        count: int = DEFAULT_IMAGES,
        track: Track = silent,
    ) -> "CalibrationSet":
        """Read `count` images spread evenly over the sorted folder `images`, and one text per line of `texts`.

        Without `texts` the built-in prompt list serves, and `texts_from` names it. Raises CalibrationError when the
        folder or the file is missing or empty, DataError naming an image that does not decode.
        """
        images = Path(images)
        paths = _spread(_image_paths(images), count)
        lines, texts_from = (BUILTIN_PROMPTS, BUILTIN_PROMPTS_NAME) if texts is None else _lines(Path(texts))
        return cls(
            images=tuple(read_image(path) for path in track(paths, "Reading calibration images", len(paths))),
            texts=tuple(lines),
            images_from=f"{len(paths)} images of folder {images.name}",
            texts_from=texts_from,
        )


def _image_paths(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise CalibrationError(f"calibration folder {str(folder)!r} does not exist; pass a folder of images")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not paths:
        raise CalibrationError(
            f"calibration folder {str(folder)!r} holds no image; expected files ending in {', '.join(IMAGE_SUFFIXES)}"
        )
    return paths


def _spread(paths: Sequence[Path], count: int) -> list[Path]:
    if count < 1:
        raise CalibrationError(f"the number of calibration images must be at least 1, got {count}")
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int))
    return [paths[index] for index in chosen]


def _lines(path: Path) -> tuple[tuple[str, ...], str]:
    if not path.is_file():
        raise CalibrationError(f"text file {str(path)!r} does not exist; pass a file with one text per line")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CalibrationError(f"text file {str(path)!r} is not UTF-8 text; pass one text per line") from error
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not lines:
        raise CalibrationError(f"text file {str(path)!r} is empty; expected one text per line")
    return lines, path.name
