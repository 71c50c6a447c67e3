"""The command line: each command parses, makes one library call and prints."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vlmquant.errors import ExitCode
from vlmquant.limits import these_cores
from vlmquant.process import thread_variables

ENDING_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
_CLOSED_PIPE = 141
"""What shells report of a program whose reader has gone: 128 + SIGPIPE."""


def main() -> None:
    """Run the command line; what goes wrong is one sentence on standard error and an exit code, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal's encoding lacks must not end a run
            stream.reconfigure(errors="backslashreplace")
    _keep_to_these_cores()
    with _clean_ends():
        sys.exit(_run(sys.argv[1:]))


def _run(words: list[str]) -> int:
    """Run the command in `words` and return its exit code."""
    try:
        from vlmquant.cli.app import make_app

        code = make_app()(words, prog_name="vlmquant", standalone_mode=False)
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):
            return _CLOSED_PIPE
        raise
    except BaseException as error:
        from vlmquant.cli.failures import failure_of

        failure = failure_of(error)
        print(failure.sentence, file=sys.stderr)
        return failure.exit_code
    return code if isinstance(code, int) else ExitCode.OK


def _keep_to_these_cores() -> None:
    """Let the pools of torch and NumPy take no more threads than this process has cores, where nobody chose."""
    cores = these_cores()
    if cores.threads < cores.allowed:  # they know the cores that are allowed, not the quota of a container
        for name, value in thread_variables(cores.threads).items():
            os.environ.setdefault(name, value)


@contextmanager
def _clean_ends() -> Iterator[None]:
    """While inside, SIGTERM and SIGHUP end the program as Ctrl-C does, through every clean-up."""
    before = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    for number, handler in before.items():
        if handler is signal.SIG_DFL:  # nohup has SIGHUP ignored
            signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    """Leave with the exit code that shells give for the signal; a second signal does not disturb the clean-up."""
    del frame
    for each in ENDING_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)
