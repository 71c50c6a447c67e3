"""What pruning saves on a full-size image tower in 8 bits: milliseconds, megabytes and multiply-accumulates.

    python -m benchmarks pruning_speed -o benchmarks/results/pruning-vit-b-32.json

ViT-B/32 with random weights, calibrated on noise: speed and size depend on how much is left, not on what the weights
are. Every bundle on every engine in its own process, rounds alternated, batch 1. For a quiet machine; about fifteen
minutes on 2 cores, most of them for choosing what goes.
"""

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import noise
from benchmarks.racing import all_latencies_ms, raced, round_medians_ms
from benchmarks.results import ResultFile, add_output
from vlmquant.bench.contenders import bundle_contender
from vlmquant.bench.inputs import write_inputs
from vlmquant.bench.measure import median, paired_ratio, quantile
from vlmquant.bench.race import Record, Schedule
from vlmquant.build.build import quantize_model
from vlmquant.checkpoints import load_model
from vlmquant.checkpoints.random_weights import random_checkpoint
from vlmquant.engines import engine, installed_engines
from vlmquant.limits import available_cores
from vlmquant.progress import bar
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.quantize.recipes.recipe import pruned

ARCHITECTURE, COMPONENT, RECIPE = "ViT-B-32", "image", "static-int8"
SHARES = (0.0, 0.3, 0.5)
PICTURES = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=10)


def run(arguments: argparse.Namespace) -> None:
    result = ResultFile(arguments.output, {"architecture": ARCHITECTURE, "component": COMPONENT, "recipe": RECIPE})
    threads = available_cores()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        model = load_model(random_checkpoint(ARCHITECTURE, scratch / ARCHITECTURE))
        for share in SHARES:
            recipe = pruned(get_recipe(RECIPE), share)
            quantize_model(model, recipe, noise(PICTURES), scratch / _title(share), components=(COMPONENT,), track=bar)
        del model
        graphs = {share: scratch / _title(share) / f"{COMPONENT}.onnx" for share in SHARES}
        files = {f"{_title(share)}, {on}": path for share, path in graphs.items() for on in installed_engines()}
        run_as = {name: bundle_contender(name.rpartition(" ")[2]) for name in files}
        inputs = write_inputs(scratch / _title(0.0), COMPONENT, (1,), 0, scratch)
        schedule = Schedule(batches=(1,), rounds=arguments.rounds, iterations=arguments.iterations, seed=0)
        records = raced(files, COMPONENT, inputs, schedule, threads, run_as=run_as)
        rows: dict[str, dict[str, Any]] = {
            _title(share): {
                "share": share,
                "bytes": path.stat().st_size,
                "macs": engine(installed_engines()[0]).audit(path, np.load(inputs[1])).total_macs,
                "engines": {
                    on: _times(records[f"{_title(share)}, {on}"], records[f"{_title(0.0)}, {on}"])
                    for on in installed_engines()
                },
            }
            for share, path in graphs.items()
        }
    result.save({"rows": rows, "threads": threads, "rounds": arguments.rounds, "iterations": arguments.iterations})
    for title, row in rows.items():
        for on, times in row["engines"].items():
            print(f"{title:26} {on:12} {times['median_ms']:.2f} ms, {times['speedup']['median']:.2f} times as fast")


def _title(share: float) -> str:
    return f"{RECIPE}, {100 * share:g} % pruned" if share else RECIPE


def _times(record: Record, whole: Record) -> dict[str, Any]:
    """Return the latency, and how many times as fast as the whole tower on the same engine it is."""
    latencies = all_latencies_ms(record, 1)
    return {
        "median_ms": median(latencies),
        "p95_ms": quantile(latencies, 0.95),
        "speedup": asdict(paired_ratio(round_medians_ms(whole, 1), round_medians_ms(record, 1))),
    }
