"""One bench from beginning to end."""

import json
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from vlmquant.bench.contenders import BUNDLE, CHECKPOINT, CONTENDERS, FLOAT_ONNX, bundle_contender
from vlmquant.bench.environment import this_environment
from vlmquant.bench.inputs import write_inputs
from vlmquant.bench.measure import bytes_on_disk, median, paired_ratio, quantile
from vlmquant.bench.race import TIMEOUT_SECONDS, WORKER, Record, Schedule, race
from vlmquant.bench.result import BASELINE, BenchResult, ContenderResult, Measurement
from vlmquant.bench.targets import TOWERS, BenchTargets
from vlmquant.bench.writing import GENERATION
from vlmquant.bundle.check import checked_bundle
from vlmquant.bundle.manifest import Manifest
from vlmquant.bundle.placement import in_words, place
from vlmquant.checkpoints.weight_files import weight_files
from vlmquant.errors import BundleError, DataError, EngineError, ModelError, unknown
from vlmquant.limits import available_cores, check_threads
from vlmquant.process import WorkerFailed, WorkerProcess, run_program
from vlmquant.progress import Track, silent

# That of models.checkpoint, which cannot be imported here: it needs torch.
RANDOM_WEIGHTS_KEY = "vlmquant_random_weights"


def bench(
    targets: BenchTargets,
    *,
    batches: tuple[int, ...] = (1, 8),
    rounds: int = 10,
    iterations: int = 5,
    threads: int | None = None,
    seed: int = 0,
    track: Track = silent,
) -> BenchResult:
    """Time every contender that `targets` and this machine allow, in alternated rounds of one run.

    `threads` is the same for all; None takes the physical cores available. Neither torch nor transformers is needed
    for a bundle alone. A contender that cannot run is a row with its reason. Raises BundleError, ModelError,
    EngineError (also when no contender can run or did) and DataError for numbers below 1.
    """
    asked_threads, threads = threads, check_threads(available_cores() if threads is None else threads)
    check_schedule(batches, rounds, iterations)
    environment = this_environment()
    manifest = _checked_manifest(targets)
    schedule = Schedule(batches=batches, rounds=rounds, iterations=iterations, seed=seed)
    with tempfile.TemporaryDirectory(prefix="vlmquant-bench-") as name:
        folder = Path(name)
        source = targets.bundle or targets.checkpoint
        assert source is not None
        inputs = write_inputs(source, targets.component, batches, seed, folder, allow_pickle=targets.allow_pickle)
        loads, absent = _plan(targets, manifest, inputs, threads, folder, track)
        if not loads:
            raise EngineError(f"no contender can run: {_reasons(absent)}")
        records = absent | race(loads, schedule, lambda: WorkerProcess(threads, WORKER), track)
        if not any(record.outcome == "ran" for record in records.values()):
            raise EngineError(f"nothing ran, so there is nothing to compare: {_reasons(records)}")
        shapes = {batch: tuple(np.load(path, mmap_mode="r").shape) for batch, path in inputs.items()}
    auto, auto_reason = _auto(targets, manifest, asked_threads, track)
    return BenchResult(
        model=manifest.name if manifest is not None else source.name,
        component=targets.component,
        random_weights=_random_weights(targets, manifest),
        bundle_bytes=None if targets.bundle is None else bytes_on_disk(targets.bundle),
        batches=batches,
        rounds=rounds,
        iterations=iterations,
        threads=threads,
        seed=seed,
        environment=environment,
        contenders=tuple(_row(name, records, shapes) for name in CONTENDERS),
        auto=auto,
        auto_reason=auto_reason,
    )


def check_schedule(batches: tuple[int, ...], rounds: int, iterations: int) -> None:
    """Raise DataError where nothing would be timed."""
    if not batches:
        raise DataError("expected at least one batch size, got none")
    if min(rounds, iterations, *batches) < 1 or len(set(batches)) != len(batches):
        raise DataError(
            f"rounds, iterations and batch sizes must be at least 1 and each batch size named once, got "
            f"{rounds = }, {iterations = }, {batches = }"
        )


def _reasons(records: Mapping[str, Record]) -> str:
    return "; ".join(f"{name} {record.outcome}: {record.reason}" for name, record in records.items())


def _auto(
    targets: BenchTargets, manifest: Manifest | None, threads: int | None, track: Track
) -> tuple[str | None, str | None]:
    """Return the contender that "auto" takes, and why; the reason alone where that is none of them.

    `threads` is what the caller asked for, so that this is what opening the bundle with the same request takes.
    """
    if manifest is None or targets.bundle is None:
        return None, None
    try:
        placements = place(targets.bundle, manifest, threads=threads, track=track)
    except EngineError as error:
        return None, str(error)
    taken = list(placements.values()) if targets.component == GENERATION else [placements[targets.component]]
    said = (one.reason if one.warning is None else f"{one.reason}; {one.warning}" for one in taken)
    reason = "; ".join(dict.fromkeys(said))
    ways = {(one.engine, one.arithmetic) for one in taken}
    (engine, arithmetic), *others = ways
    if others:
        return None, f"{in_words(placements)}: {reason}"
    return (bundle_contender(engine) if arithmetic == "integer" else None), reason


def _checked_manifest(targets: BenchTargets) -> Manifest | None:
    if targets.checkpoint is not None and not (targets.checkpoint / "config.json").is_file():
        raise ModelError(f"{str(targets.checkpoint)!r} has no config.json; expected a Hugging Face checkpoint folder")
    if targets.checkpoint is not None:
        # Contenders open what is found here without asking again.
        weight_files(targets.checkpoint, targets.allow_pickle)
    if targets.bundle is None:
        return None
    manifest = checked_bundle(targets.bundle)
    known = TOWERS if manifest.head.name == "dual-encoder" else (GENERATION,)
    if targets.component not in known:
        raise unknown(BundleError, f"component of a {manifest.head.name} to bench", targets.component, known)
    return manifest


def _plan(
    targets: BenchTargets,
    manifest: Manifest | None,
    inputs: Mapping[int, Path],
    threads: int,
    folder: Path,
    track: Track,
) -> tuple[dict[str, dict[str, Any]], dict[str, Record]]:
    """Return the `load` request of each contender that can be tried, and a record of why for each that cannot."""
    paths: dict[str, Path] = {}
    if manifest is not None and targets.bundle is not None:
        graph = manifest.components.get(targets.component)
        paths[BUNDLE] = targets.bundle if graph is None else targets.bundle / graph.file
    if targets.checkpoint is not None:
        paths[CHECKPOINT] = targets.checkpoint
        paths[FLOAT_ONNX] = folder / "float.onnx"
    loads: dict[str, dict[str, Any]] = {}
    absent: dict[str, Record] = {}
    for name, contender in CONTENDERS.items():
        missing = [package for package in contender.packages if find_spec(package) is None]
        if targets.component == GENERATION and not contender.writes:
            absent[name] = Record(outcome="not run", reason="times the towers of a CLIP only")
        elif contender.runs_on not in paths:
            absent[name] = Record(outcome="not run", reason=_NEEDS[contender.runs_on])
        elif missing:
            absent[name] = Record(outcome="not run", reason=f"{' and '.join(missing)} not installed")
        else:
            loads[name] = {
                "command": "load",
                "contender": name,
                "path": str(paths[contender.runs_on]),
                "component": targets.component,
                "threads": threads,
                "inputs": {str(batch): str(path) for batch, path in inputs.items()},
            }
    on_float_onnx = [name for name in loads if CONTENDERS[name].runs_on == FLOAT_ONNX]
    if on_float_onnx and (reason := _export(targets, inputs, paths[FLOAT_ONNX], threads, track)):
        for name in on_float_onnx:
            del loads[name]
            absent[name] = Record(outcome="failed", reason=reason)
    return loads, absent


_NEEDS = {
    CHECKPOINT: "needs the float checkpoint (pass --against CHECKPOINT)",
    FLOAT_ONNX: "needs the float checkpoint (pass --against CHECKPOINT)",
    BUNDLE: "needs a bundle (`vlmquant quantize` makes one)",
}


def _export(targets: BenchTargets, inputs: Mapping[int, Path], output: Path, threads: int, track: Track) -> str | None:
    """Write the float ONNX graph; return the reason when that failed."""
    arguments: list[str | Path] = [str(targets.checkpoint), targets.component, inputs[max(inputs)], output]
    for _ in track([output], "Exporting the float graph", 1):
        try:
            run_program("vlmquant.bench.float_onnx", arguments, threads, TIMEOUT_SECONDS)
        except WorkerFailed as failure:
            return str(failure)
    return None


def _row(name: str, records: Mapping[str, Record], shapes: Mapping[int, tuple[int, ...]]) -> ContenderResult:
    record = records[name]
    if record.outcome != "ran":
        return ContenderResult(name=name, outcome=record.outcome, reason=record.reason)
    facts = {**record.facts, "slow_int8_kernels": tuple(record.facts.get("slow_int8_kernels", ()))}
    return ContenderResult(
        name=name,
        outcome="ran",
        cold_start_seconds=record.cold_start_seconds,
        measurements=tuple(
            _measurement(batch, shape, record, records.get(BASELINE)) for batch, shape in shapes.items()
        ),
        **facts,
    )


def _measurement(batch: int, shape: tuple[int, ...], record: Record, baseline: Record | None) -> Measurement:
    medians = _round_medians(record, batch)
    latencies_ms = list(chain.from_iterable(record.latencies_ms[batch]))
    compared = baseline is not None and baseline.outcome == "ran"
    return Measurement(
        batch=batch,
        input_shape=shape,
        round_medians_ms=medians,
        median_ms=median(latencies_ms),
        p95_ms=quantile(latencies_ms, 0.95),
        speedup=paired_ratio(_round_medians(baseline, batch), medians) if compared and baseline else None,
    )


def _round_medians(record: Record, batch: int) -> tuple[float, ...]:
    return tuple(median(latencies) for latencies in record.latencies_ms[batch])


def _random_weights(targets: BenchTargets, manifest: Manifest | None) -> bool:
    if manifest is not None and manifest.source.get("random_weights"):
        return True
    if targets.checkpoint is None:
        return False
    config = json.loads((targets.checkpoint / "config.json").read_text(encoding="utf-8"))
    return bool(config.get(RANDOM_WEIGHTS_KEY, False))
