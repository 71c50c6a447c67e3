"""Finished steps of a reproduction, each in a file of its own: a run that was killed goes on behind the last."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vlmquant import __version__
from vlmquant.bench.environment import this_environment
from vlmquant.errors import DataError
from vlmquant.files import digest, write_whole
from vlmquant.progress import Track, silent

STEPS = "steps"


class Kept:
    """The steps in `folder`, made under `key`: what decides what they give, beside this CPU and this software.

    Those of another key, CPU or software (a version of vlmquant or of a package that computes) are not used.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], track: Track = silent) -> None:
        self._folder = folder / STEPS / digest(json.dumps({**key, **_here()}, sort_keys=True))[:16]
        self._track = track
        self.steps = self.computed = 0

    @property
    def place(self) -> Path:
        """A folder for larger things that steps make; whoever makes them sees that they are whole."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder

    def once(self, name: str, work: Callable[[], dict[str, Any]], made: Path | None = None) -> dict[str, Any]:
        """Return what the step `name` gave, computed now where it is not finished, or what it `made` is gone.

        Raises DataError for damage.
        """
        self.steps += 1
        path = self.place / f"{name.replace(' ', '-')}.json"
        if path.is_file() and (made is None or made.exists()):
            try:
                found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["found"]
                return found
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{path} is not a finished step ({error!r}); delete it and run again") from error
        (found,) = [work() for _ in self._track([name], f"Step {self.steps}: {name}")]
        write_whole(path, json.dumps({"step": name, "found": found}))
        self.computed += 1
        return found


def _here() -> dict[str, Any]:
    here = this_environment()
    return {"vlmquant": __version__, "cpu": here.cpu_model, "packages": dict(here.packages)}
