"""Embeddings on disk, so that nothing is encoded twice and a killed run goes on where it was.

A folder per key (a sha256 of everything that decides the numbers: weights, preprocessing, engine, data), in it one
file per 256 rows. A file appears whole or not at all, so `kill -9` costs at most the shard that was being encoded.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlmquant.errors import DataError
from vlmquant.models.spec import FloatArray
from vlmquant.progress import Track, silent

SHARD_ROWS = 256


@dataclass(frozen=True)
class EmbeddingCache:
    """A folder of cached embeddings; safe for several processes, which at worst do the same work."""

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
            _write(folder / "key.json", json.dumps(dict(key), indent=1).encode() + b"\n")
        shards = []
        for start in track(range(0, count, SHARD_ROWS), description):
            stop = min(start + SHARD_ROWS, count)
            path = folder / f"{start:09d}.f32"
            if not path.is_file():
                _write(path, _pack(encode(start, stop)))
            shards.append(_unpack(path, stop - start))
        return np.concatenate(shards)


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


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
