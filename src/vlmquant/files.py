"""Files: written whole or not at all, and where what this program remembers between runs is kept."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from vlmquant.errors import VlmQuantError


def write_whole(path: Path, content: bytes | str) -> Path:
    """Write `content` (text as UTF-8) to `path` through a temporary file beside it, and return `path`.

    After a crash or a power cut the old file or the new one is there, never a part. Raises OSError.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


@contextmanager
def growing_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to be written bit by bit; `path` appears, complete, at the end of the `with`, else nothing does.

    Raises OSError.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def cache_folder(name: str) -> Path:
    """Return the folder, which may not exist yet, for one kind of what is remembered between runs.

    Raises VlmQuantError where the user has no home and names no folder.
    """
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError as error:  # a user without a home, as containers have them
        raise VlmQuantError("this user has no home folder to remember things in; set XDG_CACHE_HOME to one") from error
    return home / "vlmquant" / name
