"""Contenders of one race: each alive in its own process, turns alternated, the order drawn anew each round."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from vlmquant.bench.measure import median
from vlmquant.bench.race import WORKER, Record, Schedule, race
from vlmquant.process import WorkerProcess
from vlmquant.progress import bar


def raced(
    paths: Mapping[str, Path],
    component: str,
    inputs: Mapping[int, Path],
    schedule: Schedule,
    threads: int,
    worker: Sequence[str] = WORKER,
    run_as: Mapping[str, str] | None = None,
) -> dict[str, Record]:
    """Race what is at `paths`, contender to path, on `inputs`, batch size to .npy; `worker` knows the contenders.

    `run_as` names the contender of the worker where several paths run as the same one.
    """
    loads = {
        name: {
            "command": "load",
            "contender": (run_as or {}).get(name, name),
            "path": str(path),
            "component": component,
            "threads": threads,
            "inputs": {str(batch): str(file) for batch, file in inputs.items()},
        }
        for name, path in paths.items()
    }
    return race(loads, schedule, lambda: WorkerProcess(threads, worker), bar)


def all_latencies_ms(record: Record, batch: int) -> list[float]:
    """Return every measured latency of all rounds."""
    return list(chain.from_iterable(record.latencies_ms[batch]))


def round_medians_ms(record: Record, batch: int) -> list[float]:
    """Return the median latency of each round."""
    return [median(latencies) for latencies in record.latencies_ms[batch]]
