"""CIFAR-10 and CIFAR-100 as their authors give them out: the binary or the Python version, unpacked or as .tar.gz."""

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from vlmquant.data.cifar_pickles import unpickled
from vlmquant.data.images import EncodedImage
from vlmquant.data.sets import Entry, LabelledImages, screen
from vlmquant.errors import DataError
from vlmquant.progress import Track, silent

PIXEL_BYTES = 3 * 32 * 32
FOLDERS = ("cifar-100-python", "cifar-100-binary", "cifar-10-batches-py", "cifar-10-batches-bin")
"""What the authors' archives unpack to."""
MOST_FILE_BYTES = 1 << 27
"""No file of the test splits is larger than 31 MB; one that says it is larger is not read into memory."""
ARCHIVES = ("cifar-100-python.tar.gz", "cifar-100-binary.tar.gz", "cifar-10-python.tar.gz", "cifar-10-binary.tar.gz")
NAMES = (*FOLDERS, *ARCHIVES)


@dataclass(frozen=True)
class _Layout:
    """The files of the test split: `batch` with the pictures and `names` with those of the classes.

    `labels` are, of a binary batch, the bytes before the pixels (the last is the class); of a pickled one, the keys of
    the labels and of the names.
    """

    name: str
    batch: str
    names: str
    labels: int | tuple[bytes, bytes]


LAYOUTS = (
    _Layout("cifar-10", "test_batch.bin", "batches.meta.txt", 1),
    _Layout("cifar-100", "test.bin", "fine_label_names.txt", 2),
    _Layout("cifar-10", "test_batch", "batches.meta", (b"labels", b"label_names")),
    _Layout("cifar-100", "test", "meta", (b"fine_labels", b"fine_label_names")),
)


def cifar_place(path: Path) -> Path | None:
    """Return where CIFAR's test split lies: `path` itself, or what it holds of `NAMES`; None where it is not there."""
    if path.name in ARCHIVES and path.is_file():
        return path
    return next((place for place in (path, *(path / name for name in NAMES)) if _is_cifar(place)), None)


def _is_cifar(place: Path) -> bool:
    if place.name in ARCHIVES:
        return place.is_file()
    return any((place / layout.batch).is_file() and (place / layout.names).is_file() for layout in LAYOUTS)


def read_cifar(place: Path, *, track: Track = silent) -> LabelledImages:
    """Read the test split of CIFAR-10 or CIFAR-100 from the authors' folder or archive.

    The pickles of the Python version are opened by a reader that makes arrays, lists and texts and nothing else.
    Raises DataError where the files are missing or damaged.
    """
    files = _archived(place) if place.is_file() else _in_folder(place)
    for layout in LAYOUTS:
        if layout.batch in files and layout.names in files:
            where = f"{place}/{layout.batch}"
            read = _binary if isinstance(layout.labels, int) else _pickled
            return _labelled(where, layout, *read(where, layout, files), track)
    raise DataError(
        f"{place} holds no CIFAR (test_batch.bin with batches.meta.txt, test.bin with fine_label_names.txt, or the "
        "Python version's test_batch with batches.meta, test with meta); unpack the authors' archive again"
    )


def _in_folder(folder: Path) -> dict[str, Callable[[], bytes]]:
    names = {name for layout in LAYOUTS for name in (layout.batch, layout.names)}
    files = [folder / name for name in names if (folder / name).is_file()]
    for file in files:
        _check_size(str(file), file.stat().st_size)
    return {file.name: file.read_bytes for file in files}


def _check_size(where: str, size: int) -> None:
    if size > MOST_FILE_BYTES:
        raise DataError(f"{where} has {size:,} bytes, and no file of CIFAR's test split has; download it again")


def _archived(archive: Path) -> dict[str, Callable[[], bytes]]:
    """Return the files of an archive that any layout names; they are read once, as a .tar.gz has no index."""
    names = {name for layout in LAYOUTS for name in (layout.batch, layout.names)}
    found: dict[str, Callable[[], bytes]] = {}
    try:
        with gzip.open(archive) as unzipped:
            with tarfile.open(fileobj=unzipped, mode="r|") as opened:
                for member in opened:
                    name = PurePosixPath(member.name).name
                    if name in names and member.isfile() and (file := opened.extractfile(member)) is not None:
                        _check_size(f"{archive}/{member.name}", member.size)
                        found[name] = io.BytesIO(file.read()).getvalue
            while unzipped.read(1 << 20):
                pass  # to the end, where the checksum is
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{archive} is not a whole .tar.gz file: {error}; download it again") from error
    return found


def _binary(
    where: str, layout: _Layout, files: dict[str, Callable[[], bytes]]
) -> tuple[np.ndarray, NDArray[np.int64], list[str]]:
    assert isinstance(layout.labels, int)
    data = np.frombuffer(files[layout.batch](), dtype=np.uint8)
    row = layout.labels + PIXEL_BYTES
    if not len(data) or len(data) % row:
        raise DataError(f"{where} has {len(data)} bytes, no multiple of {row}; download it again")
    rows = data.reshape(-1, row)
    names = [line.strip() for line in files[layout.names]().decode("utf-8", "replace").splitlines() if line.strip()]
    return rows[:, layout.labels :], rows[:, layout.labels - 1].astype(np.int64), names


def _pickled(
    where: str, layout: _Layout, files: dict[str, Callable[[], bytes]]
) -> tuple[np.ndarray, NDArray[np.int64], list[str]]:
    assert isinstance(layout.labels, tuple)
    labels_key, names_key = layout.labels
    batch, meta = unpickled(files[layout.batch](), where), unpickled(files[layout.names](), layout.names)
    try:
        pixels, labels = batch[b"data"], _integers(batch[labels_key])
        names = [name.decode() for name in meta[names_key]]
        if pixels.dtype != np.uint8 or pixels.shape != (len(labels), PIXEL_BYTES) or not len(labels):
            raise ValueError(f"pixels {pixels.dtype} {pixels.shape} for {len(labels)} labels")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"{where} is not a batch of CIFAR's Python version: {error!r}; download it again") from error
    return pixels, labels, names


def _integers(labels: object) -> NDArray[np.int64]:
    """Return a flat list of whole numbers as an array. Raises ValueError for anything else."""
    found = np.asarray(labels)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise ValueError(f"labels are {found.dtype} of shape {found.shape}, expected a list of whole numbers")
    return found.astype(np.int64)


def _labelled(
    where: str, layout: _Layout, pixels: np.ndarray, labels: NDArray[np.int64], names: list[str], track: Track
) -> LabelledImages:
    if labels.min() < 0 or labels.max() >= len(names):
        raise DataError(f"{where} has labels from {labels.min()} to {labels.max()} but {len(names)} class names")
    class_names = [name.replace("_", " ") for name in names]
    if not all(map(str.strip, class_names)) or len(set(class_names)) < len(class_names):
        raise DataError(f"{where} has class names that are empty or given twice; download it again")
    pictures = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    stem = Path(layout.batch).stem
    records = [Entry(f"{stem}/{i:05d}", EncodedImage.of_pixels(picture), i) for i, picture in enumerate(pictures)]
    screened = screen(where, records, track=track)
    return LabelledImages(
        name=layout.name,
        images=screened.images,
        digest=screened.digest(labels.tolist(), class_names),
        problems=screened.problems,
        labels=labels,
        class_names=tuple(class_names),
    )
