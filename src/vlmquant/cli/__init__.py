"""The command line: each command parses, makes one library call and prints."""

import signal
import sys
from types import FrameType

from vlmquant.errors import VlmQuantError
from vlmquant.text import printable

_ENDING_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
_NO_MEMORY = "there is not enough memory for this; end other programs, or give this one more"


def main() -> None:
    """Run the command line; a user's error is one line on standard error and an exit code, never a traceback."""
    from vlmquant.cli.app import app

    for number in _ENDING_SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup has it ignored
            signal.signal(number, _end)
    try:
        app()
    except VlmQuantError as error:
        _fail(str(error), error.exit_code)
    except MemoryError:
        _fail(_NO_MEMORY, VlmQuantError.exit_code)
    except RuntimeError as error:
        if str(error) != "can't start new thread":  # what Python says when there is no memory for its stack
            raise
        _fail(_NO_MEMORY, VlmQuantError.exit_code)


def _end(number: int, frame: FrameType | None) -> None:
    """End as Ctrl-C does, with every temporary file removed, and with the exit code that shells give for the signal."""
    del frame
    for each in _ENDING_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def _fail(message: str, exit_code: int) -> None:
    print(f"error: {printable(message)}", file=sys.stderr)
    sys.exit(exit_code)
