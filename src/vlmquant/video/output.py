"""The folder that results go to: nothing in it that this program did not make is ever replaced or removed.

A record in the folder lists the files that were made, with their sizes. A file that is not listed, or was changed
since, belongs to the user.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vlmquant.errors import DataError
from vlmquant.files import write_whole
from vlmquant.text import printable

RECORD = "vlmquant-files.json"
"""The record's name: {"made_by": "vlmquant", "files": {name: bytes, or null while a run may be writing it}}."""

THUMBNAILS = "thumbnails"
_THUMBNAIL = re.compile(r"\d{4,}\.jpg")
_LEAST_FREE_BYTES = 2**20
"""The pictures and the page of a small result."""


class OutputFolder:
    """A folder for results, made when the first is written. Raises DataError when its record cannot be read."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._made = self._read_record()

    def check(self, names: Collection[str], inputs: Sequence[Path] = ()) -> None:
        """See, before any work, that the files `names` can be written here and that none replaces a user's.

        Raises DataError when one is an input or was not made by this program, or when the folder cannot be written or
        has no room.
        """
        existing = [self.path / name for name in names if _exists(self.path / name)]
        thumbnails = self.path / THUMBNAILS
        if THUMBNAILS in names and thumbnails.is_dir():
            existing.remove(thumbnails)
            existing += sorted(path for path in thumbnails.iterdir() if _THUMBNAIL.fullmatch(path.name))
        for path in existing:
            for given in inputs:
                if given.exists() and path.samefile(given):
                    raise DataError(f"{_shown(path)} is an input and would be replaced; choose another output folder")
            if not self._is_ours(path):
                raise DataError(
                    f"{_shown(path)} was not made by this program and would be replaced; move it, or choose another "
                    "output folder"
                )
        self._probe()

    def claim(self, names: Collection[str]) -> None:
        """Make the folder and put down what is about to be written, so that a run cut short is known for ours."""
        with writing(self.path, so_far=""):
            self.path.mkdir(parents=True, exist_ok=True)
        self._made |= dict.fromkeys(names)
        self._write_record()

    def settle(self) -> None:
        """Put down the size of everything that is there now, at the end of a run."""
        names = [name for name in self._made if name != THUMBNAILS]
        names += [f"{THUMBNAILS}/{path.name}" for path in self.own_thumbnails()]
        there = [name for name in dict.fromkeys(names) if (self.path / name).is_file()]
        self._made = {name: (self.path / name).stat().st_size for name in there}
        self._write_record()

    def own_thumbnails(self) -> list[Path]:
        """Return the pictures in thumbnails/ that this program made."""
        folder = self.path / THUMBNAILS
        if not folder.is_dir():
            return []
        return sorted(path for path in folder.iterdir() if _THUMBNAIL.fullmatch(path.name) and self._is_ours(path))

    def _is_ours(self, path: Path) -> bool:
        name = path.relative_to(self.path).as_posix()
        if path.is_symlink() or not path.is_file():
            return False
        if THUMBNAILS in self._made and name.startswith(f"{THUMBNAILS}/"):
            return True
        return name in self._made and self._made[name] in (None, path.stat().st_size)

    def _probe(self) -> None:
        """Write a file where the results will go, which leaves no trace."""
        folder = self.path
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        with writing(self.path, so_far=""):
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(b"\0")
                probe.flush()
            free = shutil.disk_usage(folder).free
        if free < _LEAST_FREE_BYTES:
            raise DataError(
                f"{_shown(self.path)} has room for {free // 1024:,} KiB, and results need at least "
                f"{_LEAST_FREE_BYTES // 1024:,}; make room, or choose another output folder"
            )

    def _read_record(self) -> dict[str, int | None]:
        path = self.path / RECORD
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["made_by"] != "vlmquant":
                raise ValueError(record["made_by"])
            return {str(name): size for name, size in record["files"].items()}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise DataError(
                f"{_shown(path)} cannot be read ({error.strerror}); choose another output folder"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{_shown(path)} is not a record of this program; move it, or choose another output folder"
            ) from error

    def _write_record(self) -> None:
        record = {"made_by": "vlmquant", "files": self._made}
        with writing(self.path / RECORD):
            write_whole(self.path / RECORD, json.dumps(record, indent=1))


@contextmanager
def results(folder: Path, names: Collection[str]) -> Iterator[Path]:
    """Yield `folder`, made where it is missing, to write the files `names` into, and put down that they are ours.

    Raises DataError as `OutputFolder.check` does, before anything is written.
    """
    target = OutputFolder(folder)
    target.check(names)
    target.claim(names)
    yield target.path
    target.settle()


@contextmanager
def writing(path: Path, so_far: str = "; what was finished beside it is whole") -> Iterator[None]:
    """Turn what goes wrong while `path` is written into a DataError that names it, and says what there is `so_far`."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{_shown(path)} cannot be written ({error.strerror or error}){so_far}; make room, or choose another "
            "output folder"
        ) from error


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
            raise DataError(f"{_shown(path)} is given more than once; give each video once")
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


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _shown(path: Path) -> str:
    return printable(str(path))
