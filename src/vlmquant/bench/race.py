"""The race: every contender alive in its own process, one at a time at work, their turns alternated."""

import math
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from vlmquant.process import WorkerFailed, WorkerProcess
from vlmquant.progress import Track

WARMUP = 2
WORKER = (sys.executable, "-P", "-m", "vlmquant.bench.worker")
TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """In each of `rounds`, each batch size is measured `iterations` times on every contender in a shuffled order.

    No round but the first begins later than `budget_seconds` after it.
    """

    batches: tuple[int, ...]
    rounds: int
    iterations: int
    seed: int
    timeout_seconds: float = TIMEOUT_SECONDS
    budget_seconds: float = math.inf

    def turns(self, names: Sequence[str]) -> Iterator[tuple[int, str]]:
        """Yield (batch, name) for every turn; the order within a round and batch is drawn from `seed`."""
        shuffled = random.Random(self.seed)
        for _ in range(self.rounds):
            for batch in self.batches:
                for name in shuffled.sample(list(names), len(names)):
                    yield batch, name


@dataclass(kw_only=True)
class Record:
    """What one contender did; `latencies_ms` maps a batch size to one list of latencies per round."""

    outcome: str = "ran"
    reason: str | None = None
    cold_start_seconds: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    latencies_ms: dict[int, list[list[float]]] = field(default_factory=lambda: defaultdict(list))


def race(
    loads: Mapping[str, Mapping[str, Any]],
    schedule: Schedule,
    start: Callable[[], WorkerProcess],
    track: Track,
) -> dict[str, Record]:
    """Load, time and question every contender; `loads` maps its name to the `load` request of `bench.worker`.

    A worker that cannot be started, dies, raises or does not answer in time is ended and its record says why; the
    others go on. All processes have ended when this returns or raises.
    """
    records = {name: Record() for name in loads}
    workers: dict[str, WorkerProcess] = {}

    def ask(name: str, request: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return workers[name].ask(request, schedule.timeout_seconds)
        except WorkerFailed as failure:
            drop(name, "failed", str(failure))
            return {}

    def drop(name: str, outcome: str, reason: str) -> None:
        records[name] = Record(outcome=outcome, reason=reason)
        workers.pop(name).kill()

    with ExitStack() as stack:
        for name, load in track(loads.items(), "Starting contenders", len(loads)):
            try:
                workers[name] = stack.enter_context(start())
            except WorkerFailed as failure:
                records[name] = Record(outcome="failed", reason=str(failure))
                continue
            answer = ask(name, load)
            if name in workers:
                records[name].cold_start_seconds = monotonic() - workers[name].started_seconds
            if "unavailable" in answer:
                drop(name, "not run", answer["unavailable"])
        turns = list(schedule.turns(list(workers)))
        begun = monotonic()
        for index, (batch, name) in enumerate(track(turns, "Measuring in turns", len(turns))):
            if index and index * schedule.rounds % len(turns) == 0 and monotonic() - begun > schedule.budget_seconds:
                break
            request = {"command": "measure", "batch": batch, "warmup": WARMUP, "iterations": schedule.iterations}
            if name in workers and (answer := ask(name, request)):
                records[name].latencies_ms[batch].append(answer["latencies_ms"])
        # Memory first: taking the size and auditing need memory of their own.
        for command in ("peak", "size", "audit"):
            for name in list(workers):
                records[name].facts |= ask(name, {"command": command})
    return records
