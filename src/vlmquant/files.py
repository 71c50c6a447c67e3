"""Files: written whole or not at all, never over what this program did not make, and read without trust.

Two runs that write to one place are told apart by a lock on a file beside it, which the kernel lets go of when a
process dies. So what lies there under the name of a temporary while nobody holds the lock is a dead run's, and is
cleared away.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from vlmquant.errors import VlmQuantError

try:
    import fcntl
except ImportError:  # pragma: no cover
    # On Windows runs do not see each other; each still checks before it replaces anything.
    fcntl = None  # type: ignore[assignment]


def write_whole(path: Path, content: bytes | str) -> Path:
    """Write `content` to `path` through a temporary file beside it, and return `path`.

    Text is written as UTF-8, what UTF-8 has no bytes for (names of files may hold such) as escapes. After a crash or a
    power cut the old file or the new one is there, never a part. Whoever else is writing it is waited for.
    Raises OSError.
    """
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.tmp")
    with _locked(temporary, wait=True) as descriptor:
        try:
            os.ftruncate(descriptor, 0)
            with os.fdopen(os.dup(descriptor), "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
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


@contextmanager
def new_folder(output: Path, check_free: Callable[[Path], None]) -> Iterator[Path]:
    """Yield an empty folder beside `output`, which takes its place when the block ends without an error.

    `check_free` raises where `output` exists and may not be replaced; it is asked before the block and again after it.
    What it lets be replaced must be this program's. Folders made on the way there go again where nothing came of it.
    Raises VlmQuantError where another run is writing to `output`, a folder cannot be made there, or its disk is full.
    """
    output = output.resolve()
    check_free(output)
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    made = [parent for parent in output.parents if not parent.exists()]
    with ExitStack() as held:
        held.callback(_remove_empty, made)
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(alone(output))
            _clear_leftovers(output)
            temporary.mkdir()
        except OSError as error:
            reason = error.strerror or error
            raise VlmQuantError(f"cannot write {str(output)!r}: {reason}; choose another output folder") from error
        held.callback(shutil.rmtree, temporary, ignore_errors=True)
        try:
            yield temporary
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise VlmQuantError(
                f"cannot write {str(output)!r}: its disk is full; make room, or choose another output"
            ) from error
        check_free(output)
        try:
            _swap(temporary, output)
        except OSError:
            check_free(output)  # says so where something has appeared at this very moment
            raise


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove those of `folders`, the innermost first, that hold nothing."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _swap(new: Path, output: Path) -> None:
    """Put `new` in the place of `output`; where that fails the old one is there again."""
    if not output.exists():
        os.rename(new, output)
        return
    old = output.with_name(f".{output.name}.{os.getpid()}.old.tmp")
    os.rename(output, old)
    try:
        os.rename(new, output)
    except BaseException:
        os.rename(old, output)
        raise
    shutil.rmtree(old)


def _clear_leftovers(output: Path) -> None:
    """Remove the temporary folders of dead runs; a swap that was cut short is undone first."""
    leftover = re.compile(rf"\.{re.escape(output.name)}\.\d+(\.old)?\.tmp")
    for path in output.parent.iterdir():
        if (found := leftover.fullmatch(path.name)) and path.is_dir() and not path.is_symlink():
            if found[1] and not output.exists():
                os.rename(path, output)
            else:
                shutil.rmtree(path)


@contextmanager
def alone(output: Path, *, wait: bool = False, lock: Path | None = None) -> Iterator[None]:
    """Hold the lock for writing `output`: the file `lock`, or where it is None one beside `output`.

    Where another run holds it, it is waited for, or without `wait` a VlmQuantError raised.
    """
    lock = output.with_name(f".{output.name}.lock") if lock is None else lock
    try:
        with _locked(lock, wait=wait):
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
    except BlockingIOError as error:
        raise VlmQuantError(
            f"another run is writing to {str(output)!r}; wait for it, or choose another output folder"
        ) from error


@contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[int]:
    """Yield a descriptor of the file at `path`, made where it is missing, which no other process holds.

    Raises BlockingIOError where one does and `wait` is False.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_at(descriptor, path):  # whoever held it before may have moved or removed it
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    return False


def why_no_folder(path: Path) -> str:
    """Return what is wrong with a `path` that is not a folder, to stand after its name."""
    return "is a file, expected a folder" if path.exists() else "does not exist"


def why_no_file(path: Path) -> str:
    """Return what is wrong with a `path` that is not a file, to stand after its name."""
    return "is a folder, expected a file" if path.is_dir() else "does not exist"


def parse_json(content: bytes | str) -> Any:
    """Return what JSON `content` holds. Raises ValueError for what is not JSON in UTF-8 or is nested too deep."""
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def cache_folder(name: str) -> Path:
    """Return the folder, which may not exist yet, for one kind of what is remembered between runs.

    Raises VlmQuantError where the user has no home and names no folder.
    """
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError as error:  # a user without a home, as containers have them
        raise VlmQuantError("this user has no home folder to remember things in; set XDG_CACHE_HOME to one") from error
    return home / "vlmquant" / name


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
