"""Folders of pictures: flat, one sub-folder per class, and ImageNetV2's numbered sub-folders."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vlmquant.data.images import IMAGE_SUFFIXES, FileImage
from vlmquant.data.sets import MAX_PROBLEM_SHARE, Entry, ImageSet, LabelledImages, screen
from vlmquant.errors import DataError
from vlmquant.progress import Track, silent


def read_flat_folder(folder: Path, *, max_problem_share: float = MAX_PROBLEM_SHARE, track: Track = silent) -> ImageSet:
    """Read the pictures that lie directly in `folder`, in the order of their names; the id is the file name.

    Raises DataError when there are none or too many are broken.
    """
    records = [Entry(path.name, FileImage(path), None) for path in image_files(folder)]
    screened = screen(str(folder), records, max_problem_share=max_problem_share, track=track)
    return ImageSet(name=folder.name, images=screened.images, digest=screened.digest(), problems=screened.problems)


def read_image_folder(
    folder: Path, *, max_problem_share: float = MAX_PROBLEM_SHARE, track: Track = silent
) -> LabelledImages:
    """Read one sub-folder per class. The class is called what its folder is, with `_` and `-` read as spaces.

    A `classnames.txt` beside the sub-folders, one name a line in the folders' sorted order, gives other names. It must
    be there when the folders are numbers, which are then the line numbers from 0 (`read_numbered_folders`). The id is
    "class-folder/file". Raises DataError when there is no sub-folder with pictures or too many are broken.
    """
    folders = class_folders(folder)
    listed = folder / "classnames.txt"
    if all(entry.name.isdecimal() for entry in folders):
        if not listed.is_file():
            raise DataError(f"the class folders of {folder} are numbers; add {listed} with the name of class 0, 1, ...")
        return read_numbered_folders(folder, read_lines(listed), max_problem_share=max_problem_share, track=track)
    spaced = [entry.name.replace("_", " ").replace("-", " ") for entry in folders]
    names = read_lines(listed) if listed.is_file() else spaced
    if len(names) != len(folders):
        raise DataError(f"{listed} has {len(names)} names for {len(folders)} class folders; give one name a line")
    return read_class_folders(folder, folders, range(len(folders)), names, max_problem_share, track)


def read_numbered_folders(
    folder: Path,
    class_names: Sequence[str],
    *,
    max_problem_share: float = MAX_PROBLEM_SHARE,
    track: Track = silent,
) -> LabelledImages:
    """Read ImageNetV2's layout: sub-folders "0", "1", ... "999" that are the labels themselves.

    Sorted as text they come out as 0, 1, 10, 100, which makes nearly every label wrong; here the number counts.
    Raises DataError for a folder whose number has no class name.
    """
    folders = class_folders(folder)
    named = [entry.name for entry in folders if not entry.name.isdecimal()]
    if named:
        raise DataError(f"{folder} has the class folder {named[0]!r}; expected numbers only")
    folders.sort(key=lambda entry: int(entry.name))
    beyond = [entry.name for entry in folders if int(entry.name) >= len(class_names)]
    if beyond:
        raise DataError(
            f"{folder} has the class folder {beyond[0]!r} but only {len(class_names)} class names were given"
        )
    labels = [int(entry.name) for entry in folders]
    return read_class_folders(folder, folders, labels, class_names, max_problem_share, track)


def read_class_folders(
    folder: Path,
    folders: Sequence[Path],
    labels: Sequence[int],
    class_names: Sequence[str],
    max_problem_share: float,
    track: Track,
) -> LabelledImages:
    """Read the pictures of each of `folders` as the class `labels[i]`."""
    records = [
        Entry(f"{entry.name}/{path.name}", FileImage(path), label)
        for entry, label in zip(folders, labels, strict=True)
        for path in image_files(entry)
    ]
    screened = screen(str(folder), records, max_problem_share=max_problem_share, track=track)
    return LabelledImages(
        name=folder.name,
        images=screened.images,
        digest=screened.digest(screened.payloads, list(class_names)),
        problems=screened.problems,
        labels=np.array(screened.payloads, dtype=np.int64),
        class_names=tuple(class_names),
    )


def class_folders(folder: Path) -> list[Path]:
    """Return the sub-folders that hold pictures, sorted by name. Raises DataError when there are none."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give a folder with one sub-folder per class")
    found = [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and image_files(entry)]
    if not found:
        raise DataError(f"{folder} has no sub-folder with images; expected one sub-folder per class")
    return found


def image_files(folder: Path) -> list[Path]:
    """Return the picture files directly in a folder, sorted by name; hidden files are skipped."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder of images")
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 text file that are not blank, stripped."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a UTF-8 text file: {error}") from error
