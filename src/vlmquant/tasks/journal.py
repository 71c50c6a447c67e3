"""A file of finished items, one JSON line each, so that a run that was killed goes on where it was."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmquant.errors import DataError


@dataclass(frozen=True)
class Journal:
    """The lines of one run at `path`; `identity` says what was run, and a journal of anything else is refused."""

    path: Path
    identity: str

    def read(self) -> dict[str, dict[str, Any]]:
        """Return the finished items by id; a last line that a kill tore off is dropped from the file.

        Raises DataError when the file is of another run.
        """
        if not self.path.is_file():
            return {}
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) != len(content):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        try:
            lines = [json.loads(line) for line in whole.decode("utf-8").splitlines()]
            if not lines:
                return {}
            header, found = lines[0], {str(line["id"]): line for line in lines[1:]}
            written_by = header["identity"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.path} is not a journal of this program ({error}); choose another file") from error
        if written_by != self.identity:
            raise DataError(f"{self.path} holds the results of another model, data or options; choose another file")
        return found

    def append(self, items: Mapping[str, Mapping[str, Any]]) -> None:
        """Add finished items; each line is on disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.is_file() or not self.path.stat().st_size
        with self.path.open("a", encoding="utf-8") as file:
            if new:
                file.write(json.dumps({"identity": self.identity}) + "\n")
            for name, values in items.items():
                file.write(json.dumps({"id": name, **values}, ensure_ascii=False) + "\n")
            file.flush()
