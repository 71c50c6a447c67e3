"""Files: written whole or not at all, where what this program remembers between runs is kept, and under which key."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from vlmquant.errors import VlmQuantError


def write_whole(path: Path, content: bytes | str) -> Path:
    """Write `content` to `path` through a temporary file beside it, and return `path`.

    Text is written as UTF-8, what UTF-8 has no bytes for (names of files may hold such) as escapes. After a crash or a
    power cut the old file or the new one is there, never a part. Raises OSError.
    """
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
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


def cache_folder(name: str) -> Path:
    """Return the folder, which may not exist yet, for one kind of what is remembered between runs.

    Raises VlmQuantError where the user has no home and names no folder.
    """
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError as error:  # a user without a home, as containers have them
        raise VlmQuantError("this user has no home folder to remember things in; set XDG_CACHE_HOME to one") from error
    return home / "vlmquant" / name


def digest(*parts: object) -> str:
    """Return the sha256 of JSON-like values."""
    text = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


LEAST_FREE_BYTES = 2**20


def check_writable(folder: Path) -> None:
    """See, before any work, that files can be written into `folder`, which need not exist; nothing is left behind.

    Raises VlmQuantError where something on the way is a file, where it may not be written, its name is too long, or no
    room is left.
    """
    try:
        there = folder
        while not there.exists() and there != there.parent:
            if there.is_symlink():
                raise FileNotFoundError(errno.ENOENT, "it is a link to nothing", str(there))
            there = there.parent
        with tempfile.TemporaryFile(dir=there) as probe:
            probe.write(b"\0")
            probe.flush()
        free = shutil.disk_usage(there).free
    except OSError as error:
        raise VlmQuantError(
            f"cannot write {str(folder)!r}: {error.strerror or error}; choose another output"
        ) from error
    if free < LEAST_FREE_BYTES:
        raise VlmQuantError(f"cannot write {str(folder)!r}: its disk is full; make room, or choose another output")
