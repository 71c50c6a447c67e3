"""References to pictures that are opened when they are needed, so that a data set of any size fits in memory."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, overload

from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from vlmquant.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})


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
        """Return the file's bytes."""
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
    """A picture whose encoded bytes are in memory (from a hub data set)."""

    data: bytes

    def read(self) -> bytes:
        """Return the bytes."""
        return self.data


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
            image = PillowImage.open(io.BytesIO(self.refs[index].read()))
            image.load()
        except (OSError, SyntaxError, ValueError, PillowImage.DecompressionBombError) as error:
            raise DataError(
                f"image {self.ids[index]!r} cannot be read: {error}; replace the file or leave it out"
            ) from error
        return image

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
    """Read a picture and decode it as coarsely as its format allows, which still finds a truncated file."""
    try:
        data = ref.read()
    except FileNotFoundError:
        return Inspection("", missing=True)
    except OSError as error:
        return Inspection("", broken=str(error))
    try:
        with PillowImage.open(io.BytesIO(data)) as image:
            image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
            image.load()
    except UnidentifiedImageError:
        return Inspection("", broken="not an image in a known format" if data else "empty file")
    except (OSError, SyntaxError, ValueError, PillowImage.DecompressionBombError) as error:
        return Inspection("", broken=str(error))
    return Inspection(hashlib.sha256(data).hexdigest())
