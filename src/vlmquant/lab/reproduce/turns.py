"""Contenders in turn: every turn in a process of its own, kept once it is finished."""

import sys
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from vlmquant.bench.measure import Ratio
from vlmquant.errors import EngineError
from vlmquant.lab.reproduce.kept import Kept
from vlmquant.process import WorkerFailed, WorkerProcess

MB = 1e6


def taken(
    kept: Kept, contenders: Iterable[str], rounds: int, worker: str, request: Mapping[str, Any], timeout_seconds: float
) -> dict[str, list[dict[str, Any]]]:
    """Return what each contender answered, turn by turn; `worker` is the module that answers `request`.

    Raises EngineError where a contender fails.
    """
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    for turn in range(rounds):
        for name, found in turns.items():
            one = partial(in_its_own_process, worker, {**request, "contender": name}, timeout_seconds)
            found.append(kept.once(f"{name} round {turn + 1}", one))
    return turns


def in_its_own_process(worker: str, request: Mapping[str, Any], timeout_seconds: float) -> dict[str, Any]:
    """Return the answer of a contender in a process that ends with this one. Raises EngineError where it fails."""
    try:
        with WorkerProcess(request["threads"], (sys.executable, "-P", "-m", worker)) as process:
            return process.ask({"command": "run", **request}, timeout_seconds)
    except WorkerFailed as error:
        raise EngineError(f"{request['contender']} failed: {error}") from error


def ratio_in_words(ratio: Ratio) -> str:
    """Return how many times as fast, with the slowest and the fastest turn."""
    return f"{ratio.median:.2f} ({ratio.lowest:.2f} to {ratio.highest:.2f} by turn)"
