"""Full-size architectures with random weights: bytes, agreement of engines, INT8 shares, latency, memory, time.

    python -m benchmarks full_size -o benchmarks/results/full-size.json --images ../shared/data/flickr8k/images
    python -m benchmarks full_size --part RN50 --part ViT-L-14 -o ...   # the other parts in the file stay

Each step runs in a process of its own, so that a peak of memory is that of `quantize_model` alone (with the float
model that it is given). Timings: each contender in its own process, rounds alternated, batch 1, image tower; for a
quiet machine. Sizes, speeds and memory do not depend on the weights' values; cosines of random weights say whether
engines compute the same, not what a trained model would lose.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.racing import all_latencies_ms, raced, round_medians_ms
from benchmarks.results import add_output, provenance
from vlmquant import CalibrationSet, get_recipe, load_model
from vlmquant.bench.inputs import write_inputs
from vlmquant.bench.measure import median, paired_ratio, quantile
from vlmquant.bench.race import Record, Schedule
from vlmquant.bench.worker import peak_rss_bytes
from vlmquant.build.build import quantize_model
from vlmquant.bundle import Manifest, verify
from vlmquant.checkpoints.random_weights import random_checkpoint
from vlmquant.limits import available_cores
from vlmquant.tasks.result import save_json

T = TypeVar("T")
TORCH, OURS = "torch-fp32", ("bundle-openvino", "bundle-onnxruntime")


@dataclass(frozen=True)
class Part:
    """One architecture under one recipe; `timed` also races its image tower against float torch."""

    architecture: str
    recipe: str
    images: int
    timed: bool = False


PARTS: dict[str, Part] = {
    "RN50": Part("RN50", "static-int8", images=16, timed=True),
    "ViT-B-16": Part("ViT-B-16", "static-int8", images=16, timed=True),
    "ViT-B-32-w4a8": Part("ViT-B-32", "w4a8", images=16),
    "ViT-B-32-int4-weights": Part("ViT-B-32", "int4-weights", images=16),
    "ViT-L-14": Part("ViT-L-14", "static-int8", images=16),
}


def build(part: Part, checkpoint: Path, images: Path, output: Path) -> dict[str, Any]:
    """Quantize and say what it took and what came out."""
    calibration = CalibrationSet.from_files(images, count=part.images)
    model = load_model(checkpoint)
    started = time.monotonic()
    quantize_model(model, get_recipe(part.recipe), calibration, output)
    seconds, peak = time.monotonic() - started, peak_rss_bytes()
    manifest = Manifest.read(output)
    parameters = sum(p.numel() for tower in (model.image_tower, model.text_tower) for p in tower.parameters())
    return {
        "architecture": part.architecture,
        "recipe": part.recipe,
        "parameters": parameters,
        "calibration": calibration.to_dict(),
        "quantize_seconds": seconds,
        "peak_rss_bytes": peak,
        "bundle_bytes": sum(path.stat().st_size for path in output.iterdir()),
        "components": {
            name: {"bytes": manifest.files[facts.file].bytes, **asdict(facts)}
            for name, facts in manifest.components.items()
        },
    }


def prove(bundle: Path) -> list[dict[str, Any]]:
    """Return the rows of `verify`, which raises where an engine does not agree."""
    return [asdict(row) for row in verify(bundle).rows]


def latencies(checkpoint: Path, bundle: Path, folder: Path, rounds: int, iterations: int) -> dict[str, Any]:
    """Race float torch against the bundle on both engines; milliseconds for one image."""
    threads, component = available_cores(), "image"
    inputs = write_inputs(bundle, component, (1,), 0, folder)
    paths = {TORCH: checkpoint} | dict.fromkeys(OURS, bundle / Manifest.read(bundle).components[component].file)
    schedule = Schedule(batches=(1,), rounds=rounds, iterations=iterations, seed=0)
    records = raced(paths, component, inputs, schedule, threads)
    return {"threads": threads, "rounds": rounds, "iterations": iterations} | {
        name: _figures(record, records[TORCH]) for name, record in records.items()
    }


def _figures(record: Record, baseline: Record) -> dict[str, Any]:
    if record.outcome != "ran" or baseline.outcome != "ran":
        return {"outcome": record.outcome, "reason": record.reason}
    latencies_ms = all_latencies_ms(record, 1)
    return {
        "outcome": "ran",
        "median_ms": median(latencies_ms),
        "p95_ms": quantile(latencies_ms, 0.95),
        "speedup": asdict(paired_ratio(round_medians_ms(baseline, 1), round_medians_ms(record, 1))),
        "int8_mac_share": record.facts.get("int8_mac_share"),
        "fast_int8_mac_share": record.facts.get("fast_int8_mac_share"),
    }


def alone(work: Callable[..., T], *arguments: object) -> T:
    """Call `work` in a new process and return what it returns."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def measured(part: Part, images: Path, rounds: int, iterations: int) -> dict[str, Any]:
    """Make a checkpoint and its bundle in a temporary folder and return every figure of the part."""
    started = provenance()
    with tempfile.TemporaryDirectory(prefix="vlmquant-full-size-") as name:
        checkpoint, bundle = Path(name) / part.architecture, Path(name) / "bundle"
        alone(random_checkpoint, part.architecture, checkpoint)
        found = alone(build, part, checkpoint, images, bundle)
        found["verify"] = alone(prove, bundle)
        if part.timed:
            found["latency"] = latencies(checkpoint, bundle, Path(name), rounds, iterations)
    return {**found, **started}


def summary(found: Mapping[str, Any]) -> str:
    """Say the figures of one part in one line."""
    shares = [share for facts in found["components"].values() for share in facts["integer_mac_share"].values()]
    cosines = [row["cosine_min"] for row in found["verify"]]
    words = [
        f"{found['bundle_bytes'] / 1e6:.1f} MB, {found['quantize_seconds']:.0f} s,",
        f"peak {found['peak_rss_bytes'] / 1e9:.2f} GB, engines to stored >= {min(cosines):.5f},",
        f"INT8 MACs >= {min(shares):.1%}",
    ]
    for name in (TORCH, *OURS):
        if "median_ms" in found.get("latency", {}).get(name, {}):
            figures = found["latency"][name]
            words.append(f"; {name} {figures['median_ms']:.1f} ms ({figures['speedup']['median']:.2f}x)")
    return " ".join(words)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument("--part", action="append", choices=PARTS, help="may be repeated; all when left out")
    parser.add_argument("--images", type=Path, default=Path("../shared/data/flickr8k/images"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=10)


def run(arguments: argparse.Namespace) -> None:
    results = json.loads(arguments.output.read_text(encoding="utf-8")) if arguments.output.exists() else {}
    for name in arguments.part or PARTS:
        results[name] = measured(PARTS[name], arguments.images, arguments.rounds, arguments.iterations)
        print(f"{name}: {summary(results[name])}", flush=True)
        save_json(arguments.output, results)
