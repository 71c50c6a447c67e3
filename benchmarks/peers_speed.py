"""Speed beside the peers: full-size ViT-B/32 with random weights, both towers, batch 1 and 8.

    /tmp/peers-venv/bin/python -m benchmarks peers_speed -o benchmarks/results/peers-vit-b-32.json

Needs the environment that `benchmarks.peers` describes and a quiet machine. Every contender lives in its own
process; the processes take turns, in an order drawn anew each round. Speed does not depend on what the weights and
calibration images are, so the weights are random and few images calibrate. Everything that is not integers computes in
float32. A contender that cannot be built or run is a row with its reason.
"""

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.data import noise
from benchmarks.peers import OURS, installed_peers, one_line, towers_of
from benchmarks.peers_build import FILE_PEERS, TORCH_PEERS, Tower
from benchmarks.peers_worker import FLOAT_ONNX, OURS_ONNX, WORKER
from benchmarks.racing import all_latencies_ms, raced, round_medians_ms
from benchmarks.results import ResultFile, add_output
from vlmquant import get_recipe, load_model
from vlmquant.bench.inputs import write_inputs
from vlmquant.bench.measure import median, paired_ratio
from vlmquant.bench.race import Record, Schedule
from vlmquant.build.build import quantize_model
from vlmquant.checkpoints.random_weights import random_checkpoint
from vlmquant.engines import ENGINES
from vlmquant.limits import available_cores
from vlmquant.progress import bar
from vlmquant.quantize.recipes.recipe import COMPONENTS

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
            failures |= dict.fromkeys(rows, one_line(error))
    return Prepared(paths | dict.fromkeys(TORCH_PEERS, checkpoint), failures)


def measure(component: str, prepared: Prepared, rounds: int, iterations: int, threads: int) -> dict[str, Any]:
    """Race all contenders of one component; name -> latencies in ms, size, ratio to ours by round, or the reason."""
    with tempfile.TemporaryDirectory() as scratch:
        inputs = write_inputs(prepared.paths[next(iter(TORCH_PEERS))], component, BATCHES, 0, Path(scratch))
        schedule = Schedule(batches=BATCHES, rounds=rounds, iterations=iterations, seed=0)
        records = raced(prepared.paths, component, inputs, schedule, threads, WORKER)
    failed = {name: {"outcome": "failed", "reason": reason} for name, reason in prepared.failures.items()}
    return failed | {name: _row(record, records[BASELINE]) for name, record in records.items()}


def _row(record: Record, ours: Record) -> dict[str, Any]:
    if record.outcome != "ran":
        return {"outcome": record.outcome, "reason": record.reason}
    return {
        "outcome": "ran",
        **record.facts,
        "batches": {str(batch): _latencies(record, ours, batch) for batch in BATCHES},
    }


def _latencies(record: Record, ours: Record, batch: int) -> dict[str, Any]:
    medians, our_medians = round_medians_ms(record, batch), round_medians_ms(ours, batch)
    latencies = all_latencies_ms(record, batch)
    return {
        "median_ms": median(latencies),
        "fastest_ms": min(latencies),
        "round_medians_ms": medians,
        # How many times faster ours on OpenVINO is than this one.
        "ours_is_faster_by": asdict(paired_ratio(medians, our_medians)) if our_medians else None,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument("--checkpoint", type=Path, help="another model than ViT-B/32 with random weights")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=10)


def run(arguments: argparse.Namespace) -> None:
    threads = available_cores()
    torch.set_num_threads(threads)
    head = {
        "model": f"{ARCHITECTURE}, random weights" if arguments.checkpoint is None else arguments.checkpoint.name,
        "threads": threads,
        "rounds": arguments.rounds,
        "iterations": arguments.iterations,
        "peers": installed_peers(),
    }
    result = ResultFile(arguments.output, head)
    with tempfile.TemporaryDirectory() as scratch:
        prepared = prepare(Path(scratch), arguments.checkpoint)
        components = {
            component: measure(component, prepared[component], arguments.rounds, arguments.iterations, threads)
            for component in COMPONENTS
        }
    result.save(components)
    for component, rows in components.items():
        for name, row in rows.items():
            print(component, f"{name:50}", row.get("reason") or _line(row["batches"]["1"]))


def _line(one: Mapping[str, Any]) -> str:
    return f"{one['median_ms']:8.2f} ms, ours faster by {one['ours_is_faster_by']['median']:.3f}"
