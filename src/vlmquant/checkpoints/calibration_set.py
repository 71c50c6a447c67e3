"""The explicit, hashed sample of inputs that static ranges are measured on."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vlmquant.data.images import IMAGE_SUFFIXES, FileImage, LazyImages, inspect
from vlmquant.errors import CalibrationError
from vlmquant.files import why_no_file, why_no_folder
from vlmquant.models.preprocess import to_rgb
from vlmquant.models.prompts import BUILTIN_PROMPTS, BUILTIN_PROMPTS_NAME
from vlmquant.models.spec import Image
from vlmquant.progress import Track, silent

DEFAULT_IMAGES = 64
FEW_IMAGES = 8
"""With fewer different pictures than this, ranges are those of the pictures rather than of the model."""
_NAMED = 3


@dataclass(frozen=True)
class CalibrationSet:
    """Images and texts to measure ranges on, and where they came from.

    `images_from` and `texts_from` say it in words that go into the manifest and the output, and so do `warnings`, one
    sentence each. Images of a folder are decoded again each time they are asked for, so one at a time is in memory.
    """

    images: Sequence[Image]
    texts: tuple[str, ...]
    images_from: str
    texts_from: str
    warnings: tuple[str, ...] = ()

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
            "warnings": list(self.warnings),
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

        Hidden files and folders are passed over; a picture that does not decode is left out, with a warning. Without
        `texts` the built-in prompt list serves, and `texts_from` names it. Raises CalibrationError when the folder or
        the file is missing or empty, or when no picture decodes.
        """
        images = Path(images)
        paths, others = _files(images)
        chosen = _spread(paths, count)
        good: list[Path] = []
        broken: list[str] = []
        contents: Counter[str] = Counter()
        for path in track(chosen, "Reading calibration images", len(chosen)):
            seen = inspect(FileImage(path))
            if seen.missing or seen.broken is not None:
                broken.append(f"{path.relative_to(images)} ({seen.broken or 'missing'})")
            else:
                good.append(path)
                contents[seen.sha256] += 1
        if not good:
            raise CalibrationError(
                f"none of {len(chosen)} pictures of calibration folder {str(images)!r} can be read; the first is "
                f"{broken[0]}"
            )
        lines, texts_from = (BUILTIN_PROMPTS, BUILTIN_PROMPTS_NAME) if texts is None else _lines(Path(texts))
        return cls(
            images=LazyImages(tuple(map(str, good)), tuple(map(FileImage, good))),
            texts=tuple(lines),
            images_from=f"{len(good)} images of folder {images.resolve().name}",
            texts_from=texts_from,
            warnings=_warnings(len(chosen), broken, others, contents),
        )


def _files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the pictures below `folder` and the other files, each sorted; hidden ones are in neither."""
    if not folder.is_dir():
        raise CalibrationError(f"calibration folder {str(folder)!r} {why_no_folder(folder)}; pass a folder of images")
    pictures: list[Path] = []
    others: list[Path] = []
    for path in sorted(folder.rglob("*")):
        if not path.is_dir() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            (pictures if path.suffix.lower() in IMAGE_SUFFIXES else others).append(path)
    if not pictures:
        raise CalibrationError(
            f"calibration folder {str(folder)!r} holds no image; expected files ending in "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return pictures, others


def _warnings(chosen: int, broken: Sequence[str], others: Sequence[Path], contents: Counter[str]) -> tuple[str, ...]:
    """Return what is wrong with the pictures of a folder, a sentence each."""
    found = []
    if broken:
        more = ", ..." if len(broken) > _NAMED else ""
        found.append(
            f"{len(broken)} of {chosen} calibration pictures left out as broken: {', '.join(broken[:_NAMED])}{more}"
        )
    if others:
        kinds = ", ".join(sorted({path.suffix.lower() or "no suffix" for path in others})[:_NAMED])
        files = "1 file" if len(others) == 1 else f"{len(others)} files"
        found.append(f"{files} of the calibration folder ignored, of a kind that is not read: {kinds}")
    if repeated := contents.total() - len(contents):
        found.append(f"{repeated} of {contents.total()} calibration pictures are the same as another; give others")
    if len(contents) < FEW_IMAGES:
        pictures = "one picture" if len(contents) == 1 else f"{len(contents)} different pictures"
        found.append(f"calibrated on only {pictures}, so ranges may not fit others; give {DEFAULT_IMAGES}")
    return tuple(found)


def _spread(paths: Sequence[Path], count: int) -> list[Path]:
    if count < 1:
        raise CalibrationError(f"the number of calibration images must be at least 1, got {count}")
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int))
    return [paths[index] for index in chosen]


def _lines(path: Path) -> tuple[tuple[str, ...], str]:
    if not path.is_file():
        raise CalibrationError(f"text file {str(path)!r} {why_no_file(path)}; pass a file with one text per line")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CalibrationError(f"text file {str(path)!r} is not UTF-8 text; pass one text per line") from error
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not lines:
        raise CalibrationError(f"text file {str(path)!r} is empty; expected one text per line")
    return lines, path.name
