"""The latencies of a sweep: all precisions of one tower in one race, each in its own process."""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from vlmquant.bench.inputs import write_inputs
from vlmquant.bench.measure import median, quantile
from vlmquant.bench.race import WORKER, Schedule, race
from vlmquant.bundle.manifest import file_facts
from vlmquant.errors import DataError
from vlmquant.files import digest
from vlmquant.limits import available_cores
from vlmquant.process import WorkerProcess
from vlmquant.progress import Track
from vlmquant.tasks.result import save_json

SCHEMA = 2
BUSY = 1.5
"""The sweep's own encoding before the race keeps every core busy once."""


@dataclass(frozen=True, kw_only=True)
class TimedTower:
    """One precision of one tower: the contender of `vlmquant.bench` that runs it, and the file or folder it needs."""

    runner: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class Latency:
    """One image or text at a time over all rounds; `reason` says why it did not run, and then the rest is None.

    `int8_mac_share` (0..1) is the share of multiply-accumulates that the engine ran in INT8 kernels,
    `fast_int8_mac_share` the share in INT8 kernels that are neither reference nor emulated ones, `load_per_core` how
    many processes wanted each core in the minute before the race, None where the system does not say.
    """

    runner: str
    load_per_core: float | None
    median_ms: float | None = None
    p95_ms: float | None = None
    int8_mac_share: float | None = None
    fast_int8_mac_share: float | None = None
    reason: str | None = None

    @property
    def disturbed(self) -> bool:
        """Whether the machine was busy with other work, so that the latency says little."""
        return self.load_per_core is not None and self.load_per_core > BUSY


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How to time: `iterations` of each contender in each of `rounds`, each with `threads` CPU threads."""

    rounds: int = 8
    iterations: int = 10
    threads: int

    def __post_init__(self) -> None:
        if self.rounds < 0 or min(self.iterations, self.threads) < 1:
            raise DataError(
                f"timing takes 0 or more rounds and at least 1 iteration and thread, got {self.rounds} rounds, "
                f"{self.iterations} iterations and {self.threads} threads"
            )


def latencies(
    contenders: Mapping[str, TimedTower], checkpoint: Path, component: str, timing: Timing, folder: Path, track: Track
) -> dict[str, Latency]:
    """Return the latency of each contender by its name.

    It comes from `folder` where the very same race was run before, unless the machine was busy then.
    """
    files = {name: file_facts(one.path).sha256 for name, one in contenders.items() if one.path.is_file()}
    runners = {name: one.runner for name, one in contenders.items()}
    key = digest(SCHEMA, component, sorted(files.items()), sorted(runners.items()), asdict(timing))
    path = folder / f"{component}-{key[:32]}.json"
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        kept = {name: Latency(**values) for name, values in content["latencies"].items()}
        if not any(latency.disturbed for latency in kept.values()):
            return kept
    found = _race(contenders, checkpoint, component, timing, track)
    save_json(path, {"schema": SCHEMA, "latencies": {name: asdict(latency) for name, latency in found.items()}})
    return found


def load_per_core() -> float | None:
    """Return how many processes wanted each core in the last minute, None where the system does not say."""
    return os.getloadavg()[0] / available_cores() if hasattr(os, "getloadavg") else None


def _race(
    contenders: Mapping[str, TimedTower], checkpoint: Path, component: str, timing: Timing, track: Track
) -> dict[str, Latency]:
    load = load_per_core()
    schedule = Schedule(batches=(1,), rounds=timing.rounds, iterations=timing.iterations, seed=0)
    with tempfile.TemporaryDirectory(prefix="vlmquant-sweep-") as name:
        inputs = write_inputs(checkpoint, component, (1,), 0, Path(name))
        loads = {
            name: {
                "command": "load",
                "contender": one.runner,
                "path": str(one.path),
                "component": component,
                "threads": timing.threads,
                "inputs": {str(batch): str(path) for batch, path in inputs.items()},
            }
            for name, one in contenders.items()
        }
        records = race(loads, schedule, lambda: WorkerProcess(timing.threads, WORKER), track)
    found = {}
    for name, record in records.items():
        runner = contenders[name].runner
        if record.outcome != "ran":
            found[name] = Latency(runner=runner, load_per_core=load, reason=record.reason)
            continue
        all_ms = list(chain.from_iterable(record.latencies_ms[1]))
        found[name] = Latency(
            runner=runner,
            load_per_core=load,
            median_ms=median(all_ms),
            p95_ms=quantile(all_ms, 0.95),
            int8_mac_share=record.facts.get("int8_mac_share"),
            fast_int8_mac_share=record.facts.get("fast_int8_mac_share"),
        )
    return found
