"""Result files: what was measured, on what machine and by which code; rows that are finished survive a stop."""

import argparse
import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import vlmquant
from vlmquant.bench.environment import this_environment
from vlmquant.errors import DataError
from vlmquant.files import digest
from vlmquant.quantize.recipes.presets import RECIPES
from vlmquant.tasks.result import save_json

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add `-o`, which every benchmark has."""
    parser.add_argument("-o", "--output", type=Path, required=True, help="the result file to write")


class ResultFile:
    """The result file at `path` in the making; finished rows wait in the `.partial.json` beside it.

    `head` says what is measured. `rows` starts with those of an earlier start that was stopped; rows of other code or
    presets are measured again. Raises DataError where the partial file has another head.
    """

    def __init__(self, path: Path, head: Mapping[str, Any]) -> None:
        self._path, self._partial = path, path.with_suffix(".partial.json")
        self._head: dict[str, Any] = json.loads(json.dumps(head))
        self._starts = [provenance()]
        self.rows: dict[str, Any] = {}
        if self._partial.exists():
            self._resume()

    def _resume(self) -> None:
        try:
            found = json.loads(self._partial.read_text(encoding="utf-8"))
            same, starts, rows = found["head"] == self._head, found["starts"], found["rows"]
            todays = _makes(starts[-1]) == _makes(self._starts[0])
        except (ValueError, KeyError, TypeError, IndexError):
            same = False
        if not same:
            raise DataError(
                f"{self._partial} holds rows of another model, data or options; delete it or choose another output"
            )
        if todays:
            self._starts, self.rows = [*starts, *self._starts], rows
        else:
            print(f"{self._partial} was made by other code or presets; its {len(rows)} rows are measured again")

    def add(self, name: str, row: Any) -> None:
        """Keep a finished row; it is on disk when this returns."""
        self.rows[name] = row
        save_json(self._partial, {"head": self._head, "starts": self._starts, "rows": self.rows})

    def save(self, content: Mapping[str, Any]) -> None:
        """Write the head, `content` and the provenance of every start, and remove the partial file."""
        *earlier, last = self._starts
        save_json(self._path, {**self._head, **content, **last, **({"earlier_starts": earlier} if earlier else {})})
        self._partial.unlink(missing_ok=True)


def provenance() -> dict[str, Any]:
    """Return the machine as it is now, and the code that runs: None where no commit tells."""
    ours = Path(vlmquant.__file__).is_relative_to(ROOT)
    code = code_state(ROOT) if ours else None
    return {"environment": asdict(this_environment()), "code": code, "presets": preset_hashes()}


def preset_hashes() -> dict[str, str]:
    """Return a short hash of every preset as it is now: a result made by another form of one is told by it."""
    return {name: digest(recipe.to_dict())[:16] for name, recipe in RECIPES.items()}


def code_state(root: Path) -> dict[str, Any] | None:
    """Return the commit checked out in `root` and whether files other than results differ from it; None without git.

    Where they do, `diff_sha256` tells one change of the tracked files from another.
    """
    own = ("--", ".", ":(exclude)benchmarks/results")
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = bool(_git(root, "status", "--porcelain", *own))
        diff = digest(_git(root, "diff", "HEAD", *own)) if changed else None
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "changed": changed, **({"diff_sha256": diff} if changed else {})}


def _makes(start: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return what of a start decides its rows, beside the head."""
    return start["code"], start["presets"]


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()
