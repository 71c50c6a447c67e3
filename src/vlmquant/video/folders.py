"""Which folder the results of each video go to."""

from collections.abc import Sequence
from pathlib import Path

from vlmquant.errors import DataError
from vlmquant.text import printable


def result_folders(videos: Sequence[Path], output: Path) -> list[Path]:
    """Return the folder for each video: `output` for one; for several, one inside it named after each.

    Videos of one name get as many of their parents' names in front as tell them apart. Raises DataError when one file
    is given twice.
    """
    if len(videos) == 1:
        return [output]
    found = [path.resolve() for path in videos]
    for path, resolved in zip(videos, found, strict=True):
        if found.count(resolved) > 1:
            raise DataError(f"{printable(str(path))} is given more than once; give each video once")
    depth = [1] * len(videos)
    while True:
        names = [_folder_name(path, parts) for path, parts in zip(found, depth, strict=True)]
        folded = [name.casefold() for name in names]  # some file systems do not tell upper from lower case
        clashing = [index for index, name in enumerate(folded) if folded.count(name) > 1]
        deeper = [index for index in clashing if depth[index] < len(found[index].parts) - 1]
        if not deeper:
            break
        for index in deeper:
            depth[index] += 1
    counts: dict[str, int] = {}
    folders = []
    for name, key in zip(names, folded, strict=True):
        counts[key] = counts.get(key, 0) + 1
        folders.append(output / (name if counts[key] == 1 else f"{name}-{counts[key]}"))
    return folders


def _folder_name(path: Path, parts: int) -> str:
    name = "_".join(path.parts[-parts:])
    return name if len(name.encode(errors="surrogateescape")) <= 200 else f"...{name[-60:]}"
