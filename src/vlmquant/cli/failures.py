"""From whatever was raised to one sentence and an exit code."""

import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

from vlmquant.cli.options import says_more
from vlmquant.errors import ExitCode, VlmQuantError
from vlmquant.text import printable

EXTRAS = {
    **dict.fromkeys(("torch", "transformers", "safetensors", "onnx", "onnxscript", "scipy"), "quantize"),
    **dict.fromkeys(("matplotlib", "jinja2"), "report"),
    "streetworld": "demo",
    "sklearn": "probe",
}
"""Which extra of this package installs a module that the light installation lacks."""

OUT_OF_MEMORY = "there is not enough memory for this; end other programs, or give this one more"
_MEMORY_WORDS = (
    "bad_alloc",
    "bad allocation",
    "out of memory",
    "not enough memory",
    "allocate memory",
    "can't alloc",
    "failed to map segment",
    "can't start new thread",
)
"""How the engines, torch and the loader of shared libraries say it, each by an error of its own."""

_HINTS = {
    errno.ENOSPC: "free some space, or choose another disk",
    errno.EDQUOT: "free some space, or choose another disk",
    errno.EACCES: "check its permissions, or choose another place",
    errno.EPERM: "check its permissions, or choose another place",
    errno.EROFS: "choose a place that can be written to",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


@dataclass(frozen=True)
class Failure:
    """What to tell the user, on one line, and what to end with."""

    sentence: str
    exit_code: int


def failure_of(error: BaseException) -> Failure:
    """Return what to say about `error`; the traceback of a bug is written to a file, or shown with `--verbose`."""
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return Failure("interrupted", ExitCode.INTERRUPTED)
    if says_more():
        traceback.print_exception(error)
    sentence = _sentence(error)
    if sentence is None:
        return Failure(printable(_crash(error)), ExitCode.CRASH)
    code = error.exit_code if isinstance(error, VlmQuantError) else ExitCode.USER_ERROR
    return Failure(f"error: {printable(sentence)}", code)


def _sentence(error: BaseException) -> str | None:
    """Return what the user can understand and mend, None for a bug of ours."""
    if hasattr(error, "format_message"):  # typer's own, whose classes have no public name
        return _usage(error)
    if isinstance(error, VlmQuantError):
        hidden = any(map(_is_memory, _causes(error))) and not _is_memory(error)
        return f"{OUT_OF_MEMORY} ({error})" if hidden else str(error)
    if _is_memory(error):
        return OUT_OF_MEMORY
    if isinstance(error, ImportError):
        return _import(error)
    return _system(error) if isinstance(error, OSError) else None


def _usage(error: BaseException) -> str:
    context = getattr(error, "ctx", None)
    command = "vlmquant" if context is None else context.command_path
    message = error.format_message().rstrip(".")  # type: ignore[attr-defined]
    if context is not None and (verb := _verb_with(getattr(error, "option_name", None))):
        return f"{message}; it is an option of `vlmquant {verb}`"
    return f"{message or 'no command given'}; `{command} --help` lists what there is"


def _verb_with(option: str | None) -> str | None:
    """Return the first command that has an option which another one does not know."""
    from vlmquant.cli.app import VERBS, command

    if option is None:
        return None
    return next((name for name in VERBS if any(option in one.opts for one in command(name).params)), None)


def _is_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(word in text for word in _MEMORY_WORDS)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield what `error` was raised from, the nearest first."""
    inner = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if inner is not None:
        yield inner
        yield from _causes(inner)


def _import(error: ImportError) -> str | None:
    name = (error.name or "").partition(".")[0]
    if name not in EXTRAS:
        return None
    if isinstance(error, ModuleNotFoundError):
        return f"this needs {name}, which is not installed; install it with: pip install 'vlmquant[{EXTRAS[name]}]'"
    return f"{name} is installed and cannot be loaded ({error}); reinstall it"


def _system(error: OSError) -> str:
    if error.errno is None:
        return str(error) or type(error).__name__
    said = error.strerror or os.strerror(error.errno)
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    hint = _HINTS.get(error.errno)
    return " -> ".join(map(repr, names)) + (": " if names else "") + said + (f"; {hint}" if hint else "")


def _crash(error: BaseException) -> str:
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"error: a bug of vlmquant ended this ({what}); {_kept(error)}; please report it"


def _kept(error: BaseException) -> str:
    """Write the traceback to a temporary file and return where it is."""
    if says_more():
        return "the traceback stands above"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="vlmquant-crash-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(f"{sys.argv!r}\n")
            traceback.print_exception(error, file=file)
    except OSError:
        return "run it again with --verbose for the traceback"
    return f"the traceback is in {file.name}"
