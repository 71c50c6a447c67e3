"""Files: written whole or not at all, where what this program remembers between runs is kept, and under which key."""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

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


def check_folder(folder: Path) -> None:
    """Make sure that `folder` can be made and written to, before the work whose result goes there; leaves no trace.

    Raises VlmQuantError naming what is in the way.
    """
    present = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    probe = present / f".{os.getpid()}.probe"
    try:
        probe.touch()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise VlmQuantError(f"{folder} cannot be written ({present}: {reason}); choose another place") from error
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


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
