"""References to pictures that are opened when they are needed, so that a data set of any size fits in memory."""

import hashlib
import io
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from vlmquant.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What a file may hold, whatever its name says. Pillow knows more, of which some start other programs (EPS)."""
MAX_PIXELS = 178_956_970
"""Pictures with more pixels are refused: twice the size at which Pillow starts to warn of a decompression bomb."""
MAX_BYTES = 1 << 30
"""Greater files are refused: no picture of `MAX_PIXELS` needs as much."""


class ImageRef(Protocol):
    """Where the bytes of one encoded picture are."""

    def read(self) -> bytes:
        """Return the encoded bytes. Raises OSError where they cannot be read."""
        ...


@dataclass(frozen=True)
class FileImage:
    """A picture in a file of its own."""

    path: Path

    def read(self) -> bytes:
        """Return the file's bytes. Raises OSError also for what is not a regular file: a pipe would never end."""
        facts = self.path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise OSError("not a regular file")
        if facts.st_size > MAX_BYTES:
            raise OSError(f"{facts.st_size:,} bytes, expected at most {MAX_BYTES:,}")
        return self.path.read_bytes()


@dataclass(frozen=True)
class ArchiveImage:
    """A picture inside a larger file: `size` bytes from `offset`."""

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """Return the member's bytes."""
        with self.path.open("rb") as archive:
            archive.seek(self.offset)
            return archive.read(self.size)


@dataclass(frozen=True)
class EncodedImage:
    """A picture whose encoded bytes are in memory (from a hub data set, or drawn)."""

    data: bytes

    @classmethod
    def of_pixels(cls, pixels: NDArray[np.uint8]) -> "EncodedImage":
        """Return a picture (height, width, 3) as an uncompressed PNG."""
        stream = io.BytesIO()
        PillowImage.fromarray(pixels).save(stream, "PNG", compress_level=0)
        return cls(stream.getvalue())

    def read(self) -> bytes:
        """Return the bytes."""
        return self.data


def open_picture(data: bytes, *, coarse: bool = False) -> PillowImage.Image:
    """Return the picture that the encoded `data` holds, decoded, in its own mode and not yet turned upright.

    `coarse` decodes it as small as its format allows, which still finds a truncated file. Raises DataError saying why
    where it is of none of `FORMATS`, broken, or has more than `MAX_PIXELS` pixels.
    """
    if not data:
        raise DataError("empty file")
    try:
        image = PillowImage.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise DataError(f"{image.width * image.height:,} pixels, expected at most {MAX_PIXELS:,}; shrink it")
        if coarse:
            image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"no image in a format that is known here ({', '.join(FORMATS)})") from error
    except PillowImage.DecompressionBombError as error:
        raise DataError(f"more than {MAX_PIXELS:,} pixels; shrink it") from error
    except Exception as error:  # Pillow's readers raise whatever a broken file leads them to
        raise DataError(str(error) or type(error).__name__) from error
    return image


@dataclass(frozen=True)
class LazyImages(Sequence[PillowImage.Image]):
    """A sequence of pictures that opens a file each time an item is asked for.

    A slice opens its pictures at once and returns a list, so `images[i : i + 32]` is a batch.
    """

    ids: tuple[str, ...]
    refs: tuple[ImageRef, ...]

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.refs):
            raise ValueError(f"{len(self.ids)} ids for {len(self.refs)} images")

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.refs)

    @overload
    def __getitem__(self, index: int) -> PillowImage.Image: ...
    @overload
    def __getitem__(self, index: slice) -> list[PillowImage.Image]: ...
    def __getitem__(self, index: int | slice) -> PillowImage.Image | list[PillowImage.Image]:
        """Open one picture or, for a slice, a list of them. Raises DataError naming the id of a broken one."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        try:
            return open_picture(self.refs[index].read())
        except (OSError, DataError) as error:
            raise DataError(
                f"image {self.ids[index]!r} cannot be read: {error}; replace the file or leave it out"
            ) from error

    def __iter__(self) -> Iterator[PillowImage.Image]:
        """Open the pictures one after another."""
        return (self[i] for i in range(len(self)))


@dataclass(frozen=True)
class Inspection:
    """The sha256 of a picture's bytes, or why it cannot be used (None: it can)."""

    sha256: str
    missing: bool = False
    broken: str | None = None


def inspect(ref: ImageRef) -> Inspection:
    """Read and decode a picture to see whether it can be used."""
    try:
        data = ref.read()
    except FileNotFoundError:
        return Inspection("", missing=True)
    except OSError as error:
        return Inspection("", broken=str(error))
    try:
        open_picture(data, coarse=True)
    except DataError as error:
        return Inspection("", broken=str(error))
    return Inspection(hashlib.sha256(data).hexdigest())
