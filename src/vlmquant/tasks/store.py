"""What evaluations keep on disk, so that nothing is computed twice and a killed run goes on where it was.

Everything lies under a key, a sha256 of all that decides the numbers: the model's identity and the data. Embeddings
are a folder per key with one file per 256 rows, which appears whole or not at all, so `kill -9` costs at most the shard
that was being encoded. Texts and other items are a journal: a file with one JSON line each.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlmquant.errors import DataError
from vlmquant.files import digest, write_whole
from vlmquant.models.spec import FloatArray
from vlmquant.progress import Track, silent

SHARD_ROWS = 256


@dataclass(frozen=True)
class Store:
    """A folder of kept embeddings and journals; safe for several processes, which at worst do the same work."""

    folder: Path

    def rows(
        self,
        key: Mapping[str, str],
        count: int,
        encode: Callable[[int, int], FloatArray],
        *,
        description: str,
        track: Track = silent,
    ) -> FloatArray:
        """Return (count, d) float32: the shards that are there, and the others from `encode(start, stop)`.

        Shard borders do not depend on what is there already, so a resumed run encodes the very same batches. Raises
        DataError naming a shard that was damaged after it was written.
        """
        folder = self.folder / _digest(key)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "key.json").is_file():
            write_whole(folder / "key.json", json.dumps(dict(key), indent=1) + "\n")
        shards = []
        for start in track(range(0, count, SHARD_ROWS), description):
            stop = min(start + SHARD_ROWS, count)
            path = folder / f"{start:09d}.f32"
            if not path.is_file():
                write_whole(path, _pack(encode(start, stop)))
            shards.append(_unpack(path, stop - start))
        return np.concatenate(shards)

    def journal(self, task: str, identity: str, data: str) -> "Journal":
        """Return the journal of a task, run by the model of this identity on the data of this digest."""
        key = digest(task, identity, data)
        return Journal(self.folder / f"{task}-{key[:24]}.jsonl", key)


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


def _digest(key: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:40]


def _pack(rows: FloatArray) -> bytes:
    data = np.ascontiguousarray(rows, dtype="<f4").tobytes()
    return hashlib.sha256(data).digest() + data


def _unpack(path: Path, count: int) -> FloatArray:
    content = path.read_bytes()
    digest, data = content[:32], content[32:]
    if hashlib.sha256(data).digest() != digest or len(data) % (4 * count):
        raise DataError(f"{path} was damaged after it was written; delete it and run again")
    return np.frombuffer(data, dtype="<f4").reshape(count, -1).astype(np.float32)
