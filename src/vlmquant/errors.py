"""Every error a user can cause.

VlmQuantError
├── ModelError         a checkpoint that is missing, unsafe or of an unknown kind
├── RecipeError        a recipe, preset or component name that does not exist or does not fit
├── CalibrationError   a calibration set that is missing, empty or unreadable
├── BundleError        a bundle that is incomplete, altered, too new or unsafe
├── EngineError        an engine that is not installed or cannot run this bundle on this CPU
├── BudgetError        no recipe that was tried stays inside the accuracy or size budget
├── DataError          images, captions or labels that cannot be used
│   └── NotComparableError  two results of unlike data or settings
└── VideoError         a video that cannot be opened or holds no picture

A message names the bad value, what was expected, and the fix. The command line prints it without a
traceback and exits with `exit_code`; anything else that is raised is a bug of ours.
"""

from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ends. Python ends with 1 on an exception nobody caught, so no answer of ours is 1."""

    OK = 0
    """Done; where a drop was allowed, it is within it."""
    CRASH = 1
    """A bug of ours, or a machine that failed: nothing was found out."""
    USER_ERROR = 2
    """Something the user named is wrong or missing; the message says what."""
    NOT_COMPARABLE = 3
    """The two results are of unlike data or settings."""
    UNDECIDED = 4
    """These samples cannot tell whether the drop is within the allowed one."""
    SOME_SKIPPED = 5
    """Done, but inputs that could not be read were skipped, each of them named."""
    BEYOND = 6
    """The drop is beyond the allowed one, no recipe stays inside the budget, or a self-check is off."""
    INTERRUPTED = 130
    """Ended by Ctrl-C (128 + SIGINT)."""
    TERMINATED = 143
    """Ended by SIGTERM (128 + SIGTERM)."""


class VlmQuantError(Exception):
    """Base of all errors that a user can cause."""

    exit_code = ExitCode.USER_ERROR


class ModelError(VlmQuantError):
    """A checkpoint is missing, unsafe or of an unknown kind."""


class RecipeError(VlmQuantError):
    """A recipe, preset or component name does not exist or does not fit the model."""


class CalibrationError(VlmQuantError):
    """A calibration set is missing, empty or unreadable."""


class BundleError(VlmQuantError):
    """A bundle is incomplete, altered, too new or unsafe."""


class EngineError(VlmQuantError):
    """An engine is not installed or cannot run this bundle on this CPU."""


class BudgetError(VlmQuantError):
    """No recipe that was tried stays inside the accuracy or size budget."""

    exit_code = ExitCode.BEYOND


class DataError(VlmQuantError):
    """Images, captions or labels cannot be used."""


class NotComparableError(DataError):
    """Two results are of unlike data or settings."""

    exit_code = ExitCode.NOT_COMPARABLE


class VideoError(VlmQuantError):
    """A video cannot be opened or holds no picture."""


def unknown(error: type[VlmQuantError], kind: str, name: str, known: Iterable[str]) -> VlmQuantError:
    """Return (not raise) the error for a name that is not in a registry; the message lists what is."""
    return error(f"unknown {kind} {name!r}; known: {', '.join(sorted(known))}")
