"""What a self-check finds, and the fixtures it reads."""

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison; `measured` and `expected` are written for people, `ok` says whether they agree."""

    name: str
    measured: str
    expected: str
    ok: bool


@dataclass(frozen=True)
class SelfCheck:
    """All comparisons of one run, in the order in which they were made."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Return whether every check passed."""
        return not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        """Return the checks that did not pass."""
        return tuple(check for check in self.checks if not check.ok)


def close(name: str, measured: float, expected: float, tolerance: float) -> Check:
    """Compare two numbers; a NaN never passes."""
    return Check(
        name=name,
        measured=f"{measured:.6f}",
        expected=f"{expected:.6f} within {tolerance:g}",
        ok=abs(measured - expected) <= tolerance,
    )


def all_equal(name: str, measured: Sequence[object], expected: Sequence[object]) -> Check:
    """Compare two sequences item by item and count the equal ones."""
    equal = sum(one == other for one, other in zip(measured, expected, strict=True))
    return Check(
        name=name,
        measured=f"{equal} of {len(expected)} equal",
        expected=f"{len(expected)} of {len(expected)} equal",
        ok=equal == len(expected),
    )


def load_fixture(name: str) -> dict[str, Any]:
    """Return the fixture `name` that the package carries."""
    packed = files("vlmquant.selfcheck").joinpath("fixtures", f"{name}.json.gz").read_bytes()
    content: dict[str, Any] = json.loads(gzip.decompress(packed))
    return content
