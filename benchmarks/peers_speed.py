"""Speed beside the peers: full-size ViT-B/32 with random weights, both towers, batch 1 and 8.

    /tmp/peers-venv/bin/python benchmarks/peers_speed.py -o benchmarks/results/peers-vit-b-32.json

Needs the environment that `benchmarks/peers.py` describes and a quiet machine. Every contender lives in its own
process; the processes take turns, in an order drawn anew each round. Speed does not depend on what the weights and
calibration images are, so the weights are random and few images calibrate. Everything that is not integers computes in
float32. A contender that cannot be built or run is a row with its reason.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from bench_vit_b_32 import noise
from peers import OURS, PACKAGES, installed, towers_of
from peers_build import FILE_PEERS, TORCH_PEERS, Tower
from peers_worker import FLOAT_ONNX, OURS_ONNX, WORKER

from vlmquant import get_recipe, load_model
from vlmquant.bench.environment import this_environment
from vlmquant.bench.inputs import write_inputs
from vlmquant.bench.measure import median, paired_ratio
from vlmquant.bench.race import Record, Schedule, race
from vlmquant.build.build import quantize_model
from vlmquant.checkpoints.architectures import random_checkpoint
from vlmquant.engines import ENGINES
from vlmquant.limits import available_cores
from vlmquant.process import WorkerProcess
from vlmquant.progress import bar
from vlmquant.quantize.recipes.recipe import COMPONENTS
from vlmquant.tasks.result import save_json

ARCHITECTURE = "ViT-B-32"
# The calibrators of ONNX Runtime differ in ranges only.
FILES = ("onnxruntime-static-minmax-matmuls", "onnxruntime-static-minmax-default", "nncf-default", "nncf-no-smoothing")
BASELINE = f"{OURS_ONNX}-openvino"
BATCHES = (1, 8)
CALIBRATION_IMAGES = 8


@dataclass(frozen=True)
class Prepared:
    """What the workers load: contender name to path, and the reason for each file that a peer could not make."""

    paths: Mapping[str, Path]
    failures: Mapping[str, str]


def prepare(folder: Path, checkpoint: Path | None) -> dict[str, Prepared]:
    """Write our bundle and the peers' files, and a checkpoint unless given, into `folder`; component -> its files."""
    if checkpoint is None:
        checkpoint = folder / ARCHITECTURE
        random_checkpoint(ARCHITECTURE, checkpoint)
    model, calibration = load_model(checkpoint), noise(CALIBRATION_IMAGES)
    bundle = quantize_model(model, get_recipe(OURS), calibration, folder / OURS, track=bar)
    towers = towers_of(model, calibration, folder / "float")
    return {component: _prepare(tower, checkpoint, bundle, folder) for component, tower in towers.items()}


def _prepare(tower: Tower, checkpoint: Path, bundle: Path, folder: Path) -> Prepared:
    paths: dict[str, Path] = {f"{FLOAT_ONNX}-openvino": tower.float_onnx}
    paths |= {f"{OURS_ONNX}-{engine}": bundle / f"{tower.component}.onnx" for engine in ENGINES}
    failures: dict[str, str] = {}
    for name in FILES:
        peer = FILE_PEERS[name]
        path = folder / f"{name}-{tower.component}{peer.suffix}"
        rows = [f"{name}-on-{engine}" for engine in peer.engines]
        try:
            peer.write(tower, path)
            paths |= dict.fromkeys(rows, path)
        except Exception as error:  # whatever a peer raises is its result
            failures |= dict.fromkeys(rows, " ".join(f"{type(error).__name__}: {error}".split()))
    return Prepared(paths | dict.fromkeys(TORCH_PEERS, checkpoint), failures)


def measure(component: str, prepared: Prepared, rounds: int, iterations: int, threads: int) -> dict[str, Any]:
    """Race all contenders of one component; name -> latencies in ms, size, ratio to ours by round, or the reason."""
    with tempfile.TemporaryDirectory() as scratch:
        inputs = write_inputs(prepared.paths[next(iter(TORCH_PEERS))], component, BATCHES, 0, Path(scratch))
        loads = {
            name: {
                "command": "load",
                "contender": name,
                "path": str(path),
                "component": component,
                "threads": threads,
                "inputs": {str(batch): str(file) for batch, file in inputs.items()},
            }
            for name, path in prepared.paths.items()
        }
        schedule = Schedule(batches=BATCHES, rounds=rounds, iterations=iterations, seed=0)
        records = race(loads, schedule, lambda: WorkerProcess(threads, WORKER), bar)
    failed = {name: {"outcome": "failed", "reason": reason} for name, reason in prepared.failures.items()}
    return failed | {name: _row(record, records[BASELINE]) for name, record in records.items()}


def _row(record: Record, ours: Record) -> dict[str, Any]:
    if record.outcome != "ran":
        return {"outcome": record.outcome, "reason": record.reason}
    return {
        "outcome": "ran",
        **record.facts,
        "batches": {str(batch): _latencies(record.latencies_ms[batch], ours.latencies_ms[batch]) for batch in BATCHES},
    }


def _latencies(rounds: Sequence[Sequence[float]], ours: Sequence[Sequence[float]]) -> dict[str, Any]:
    medians = [median(latencies) for latencies in rounds]
    ratio = paired_ratio(medians, [median(latencies) for latencies in ours]) if ours else None
    return {
        "median_ms": median(list(chain.from_iterable(rounds))),
        "fastest_ms": min(chain.from_iterable(rounds)),
        "round_medians_ms": medians,
        # How many times faster ours on OpenVINO is than this one.
        "ours_is_faster_by": None if ratio is None else asdict(ratio),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, help="another model than ViT-B/32 with random weights")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=10)
    arguments = parser.parse_args()
    threads = available_cores()
    torch.set_num_threads(threads)
    environment = this_environment()
    with tempfile.TemporaryDirectory() as scratch:
        prepared = prepare(Path(scratch), arguments.checkpoint)
        content: dict[str, Any] = {
            component: measure(component, prepared[component], arguments.rounds, arguments.iterations, threads)
            for component in COMPONENTS
        }
    content |= {
        "model": f"{ARCHITECTURE}, random weights" if arguments.checkpoint is None else arguments.checkpoint.name,
        "threads": threads,
        "rounds": arguments.rounds,
        "iterations": arguments.iterations,
        "peers": {package: installed(package) for package in PACKAGES},
        "environment": asdict(environment),
    }
    save_json(arguments.output, content)
    for component in COMPONENTS:
        for name, row in content[component].items():
            print(component, f"{name:50}", row.get("reason") or _line(row["batches"]["1"]))


def _line(one: Mapping[str, Any]) -> str:
    return f"{one['median_ms']:8.2f} ms, ours faster by {one['ours_is_faster_by']['median']:.3f}"


if __name__ == "__main__":
    main()
