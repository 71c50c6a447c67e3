"""CIFAR-10 and CIFAR-100 in their binary version, the one that needs no unpickling."""

import io
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from vlmquant.data.folders import read_lines
from vlmquant.data.images import EncodedImage
from vlmquant.data.sets import Entry, LabelledImages, screen
from vlmquant.errors import DataError
from vlmquant.progress import Track, silent

PIXEL_BYTES = 3 * 32 * 32
LAYOUTS = {
    # batch file of the test split, names file, bytes of labels before the pixels (the last is the class)
    "cifar-10": ("test_batch.bin", "batches.meta.txt", 1),
    "cifar-100": ("test.bin", "fine_label_names.txt", 2),
}


def read_cifar(folder: Path, *, track: Track = silent) -> LabelledImages:
    """Read the test split of the "binary version" of CIFAR-10 or CIFAR-100 as unpacked by its authors.

    Raises DataError where the files are missing (the "python version" consists of pickles, which are not opened) or
    cut short.
    """
    for name, (batch, names, label_bytes) in LAYOUTS.items():
        if (folder / batch).is_file() and (folder / names).is_file():
            return _read(
                folder / batch, name, [n.replace("_", " ") for n in read_lines(folder / names)], label_bytes, track
            )
    raise DataError(
        f"{folder} holds no binary CIFAR (test_batch.bin with batches.meta.txt, or test.bin with "
        "fine_label_names.txt); download the binary version, or use webdataset shards or an image folder"
    )


def _read(path: Path, name: str, class_names: list[str], label_bytes: int, track: Track) -> LabelledImages:
    data = np.fromfile(path, dtype=np.uint8)
    if not len(data) or len(data) % (label_bytes + PIXEL_BYTES):
        raise DataError(f"{path} has {len(data)} bytes, no multiple of {label_bytes + PIXEL_BYTES}; download it again")
    rows = data.reshape(-1, label_bytes + PIXEL_BYTES)
    labels = rows[:, label_bytes - 1].astype(np.int64)
    if labels.max() >= len(class_names):
        raise DataError(f"{path} has label {labels.max()} but there are {len(class_names)} class names")
    pictures = rows[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    records = [Entry(f"{path.stem}/{i:05d}", EncodedImage(_png(picture)), i) for i, picture in enumerate(pictures)]
    screened = screen(str(path), records, track=track)
    return LabelledImages(
        name=name,
        images=screened.images,
        digest=screened.digest(labels.tolist(), class_names),
        problems=screened.problems,
        labels=labels,
        class_names=tuple(class_names),
    )


def _png(picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    PillowImage.fromarray(picture).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()
