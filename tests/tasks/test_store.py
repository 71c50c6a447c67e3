"""The embedding cache: keys, damage, and ten kills at random points."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vlmquant.errors import DataError
from vlmquant.tasks.store import SHARD_ROWS, Store

COUNT = 10 * SHARD_ROWS + 17
CHILD = """
import sys, time
from pathlib import Path
import numpy as np
from vlmquant.tasks.store import Store

def encode(start, stop):
    print(start, flush=True)
    time.sleep(0.03)
    return np.sin(np.arange(start, stop, dtype=np.float32))[:, None] * np.ones(5, np.float32)

Store(Path(sys.argv[1])).rows({"model": "m"}, int(sys.argv[2]), encode, description="")
print("done", flush=True)
"""


def numbers(start: int, stop: int) -> np.ndarray:
    return np.arange(start, stop, dtype=np.float32)[:, None]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*/*") if path.suffix != ".tmp"}


def test_a_second_run_encodes_nothing_and_another_key_everything(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []

    def encode(start: int, stop: int) -> np.ndarray:
        calls.append((start, stop))
        return numbers(start, stop)

    cache = Store(tmp_path)
    first = cache.rows({"model": "a"}, 600, encode, description="")
    assert calls == [(0, 256), (256, 512), (512, 600)]
    np.testing.assert_array_equal(first, numbers(0, 600))
    np.testing.assert_array_equal(cache.rows({"model": "a"}, 600, encode, description=""), first)
    assert len(calls) == 3
    cache.rows({"model": "b"}, 600, encode, description="")
    assert len(calls) == 6


def test_damage_is_found(tmp_path: Path) -> None:
    cache = Store(tmp_path)
    cache.rows({"model": "a"}, 10, numbers, description="")
    (shard,) = tmp_path.glob("*/*.f32")
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataError, match=r"f32 was damaged after it was written; delete it"):
        cache.rows({"model": "a"}, 10, numbers, description="")


def test_ten_kills_lose_at_most_one_shard_each_and_change_nothing(tmp_path: Path) -> None:
    def start(folder: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", CHILD, str(folder), str(COUNT)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole).communicate()[0].split()[-1] == "done"
    picks = random.Random(4)
    encoded: list[str] = []
    for _ in range(10):
        child = start(killed)
        assert child.stdout is not None
        encoded.append(child.stdout.readline().strip())
        time.sleep(picks.uniform(0, 0.05))
        os.kill(child.pid, signal.SIGKILL)
        encoded.extend(child.communicate()[0].split())
    encoded.extend(start(killed).communicate()[0].split())
    assert encoded[-1] == "done"
    shards = len(range(0, COUNT, SHARD_ROWS))
    assert len([entry for entry in encoded if entry.isdecimal()]) <= shards + 10
    assert contents(killed) == contents(whole)
