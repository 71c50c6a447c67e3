"""The micro-benchmark: matrix products on every engine, each contender in its own process, rounds alternated."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlmquant.bench.measure import median, paired_ratio
from vlmquant.bench.race import Record, Schedule, race
from vlmquant.doctor.contenders import INPUT_SHAPE, MACS, PRODUCTS, Arithmetic, graph
from vlmquant.engines import ENGINES, Cpu
from vlmquant.errors import DataError
from vlmquant.process import WorkerProcess
from vlmquant.progress import Track

WORKER = (sys.executable, "-P", "-m", "vlmquant.doctor.worker")
TIMEOUT_SECONDS = 30.0
_BATCH = 1


@dataclass(frozen=True, kw_only=True)
class Product:
    """The two matrix products of `doctor.contenders` on one engine in one arithmetic.

    `outcome` is "ran", "not run" or "failed", with the `reason` unless it ran; then all numbers are None. `median_ms`
    is over all runs of all `rounds`, `gmacs_per_second` are 10^9 multiply-accumulates a second at that. `speedup` is
    the fastest float32's `median_ms` divided by this one's, with the slowest and fastest single round; None when no
    float32 ran. For int8, `int8_mac_share` (0..1) is the share of multiply-accumulates that the engine ran in INT8
    kernels, `fast_int8_mac_share` that in kernels that are neither reference nor emulated ones.
    """

    engine: str
    arithmetic: Arithmetic
    outcome: str
    reason: str | None = None
    rounds: int | None = None
    median_ms: float | None = None
    gmacs_per_second: float | None = None
    speedup: float | None = None
    speedup_slowest: float | None = None
    speedup_fastest: float | None = None
    int8_mac_share: float | None = None
    fast_int8_mac_share: float | None = None


@dataclass(frozen=True, kw_only=True)
class Effort:
    """In each of `rounds` every contender runs `iterations` times; no round begins after `budget_seconds`.

    Raises DataError for numbers below 1.
    """

    rounds: int = 30
    iterations: int = 5
    budget_seconds: float = 4.0

    def __post_init__(self) -> None:
        if min(self.rounds, self.iterations) < 1:
            raise DataError(
                f"rounds and iterations must be at least 1, got rounds {self.rounds} and iterations {self.iterations}"
            )


def measure(
    installed: Sequence[str],
    cpu: Cpu,
    effort: Effort,
    *,
    threads: int,
    track: Track,
    command: Sequence[str] = WORKER,
) -> tuple[Product, ...]:
    """Time every contender of the `installed` engines that this `cpu` can run; the others are rows with the reason.

    Each runs on `threads` threads in a process of its own, started by `command`. An engine that crashes, raises or does
    not answer in time is a row with its reason. Raises DataError for fewer than one thread.
    """
    if threads < 1:
        raise DataError(f"threads must be at least 1, got {threads}")
    schedule = Schedule(
        batches=(_BATCH,),
        rounds=effort.rounds,
        iterations=effort.iterations,
        seed=0,
        timeout_seconds=TIMEOUT_SECONDS,
        budget_seconds=effort.budget_seconds,
    )
    absent = {
        name: Record(outcome="not run", reason=reason)
        for name, product in PRODUCTS.items()
        if (reason := _why_not(*product, installed, cpu))
    }
    with tempfile.TemporaryDirectory(prefix="vlmquant-doctor-") as folder:
        inputs = Path(folder) / "inputs.npy"
        values = np.random.default_rng(0).standard_normal(INPUT_SHAPE, dtype=np.float32)
        np.save(inputs, values, allow_pickle=False)
        loads = {
            name: {
                "command": "load",
                "contender": name,
                "path": str(graph(arithmetic)),
                "component": "",
                "threads": threads,
                "inputs": {str(_BATCH): str(inputs)},
            }
            for name, (_, arithmetic) in PRODUCTS.items()
            if name not in absent
        }
        records = race(loads, schedule, lambda: WorkerProcess(threads, command), track) if loads else {}
    return products(absent | records)


def products(records: Mapping[str, Record]) -> tuple[Product, ...]:
    """Return one row for each record, in the order of `PRODUCTS`."""
    floats = [name for name in records if PRODUCTS[name][1] == "float32" and records[name].outcome == "ran"]
    baseline = min((records[name] for name in floats), key=_median_ms, default=None)
    return tuple(_product(name, records[name], baseline) for name in PRODUCTS if name in records)


def _why_not(engine: str, arithmetic: Arithmetic, installed: Sequence[str], cpu: Cpu) -> str | None:
    if engine not in installed:
        return f"it is not installed; run: pip install {ENGINES[engine].package}"
    if arithmetic == "bfloat16" and cpu.has_bf16 is False:
        return "this CPU does not multiply bfloat16"
    return None


def _product(name: str, record: Record, baseline: Record | None) -> Product:
    engine, arithmetic = PRODUCTS[name]
    if record.outcome != "ran":
        return Product(engine=engine, arithmetic=arithmetic, outcome=record.outcome, reason=record.reason)
    median_ms, rounds_ms = _median_ms(record), _round_medians_ms(record)
    ratio = None if baseline is None else paired_ratio(_round_medians_ms(baseline), rounds_ms)
    return Product(
        engine=engine,
        arithmetic=arithmetic,
        outcome=record.outcome,
        rounds=len(rounds_ms),
        median_ms=median_ms,
        gmacs_per_second=MACS / median_ms / 1e6,
        # Of all runs, not paired by round as in the bench: with six processes on two cores, repeats gave 1.80 to 2.05
        # so and 1.81 to 2.42 paired.
        speedup=None if baseline is None else _median_ms(baseline) / median_ms,
        speedup_slowest=None if ratio is None else ratio.lowest,
        speedup_fastest=None if ratio is None else ratio.highest,
        int8_mac_share=record.facts.get("int8_mac_share"),
        fast_int8_mac_share=record.facts.get("fast_int8_mac_share"),
    )


def _round_medians_ms(record: Record) -> list[float]:
    return [median(turn) for turn in record.latencies_ms[_BATCH]]


def _median_ms(record: Record) -> float:
    return median([latency for turn in record.latencies_ms[_BATCH] for latency in turn])
