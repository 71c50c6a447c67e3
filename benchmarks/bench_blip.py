"""Full-size BLIP captioning with random weights: seconds per image, peak memory and bytes on disk, end to end.

    python -m benchmarks bench_blip -o benchmarks/results/bench-blip-base.json
    python -m benchmarks bench_blip --recipe decoder=int8-weights --recipe vision=static-int8 ...

Every contender writes exactly 20 tokens about one image (picture in, token ids out), alive in its own process, turns
alternated; for a quiet machine. Random weights: sizes and speeds mean something, captions nothing.
"""

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.generation_worker import BASELINE, CONTENDERS, PHASES, TOKENS, VISION, WORKER
from benchmarks.racing import all_latencies_ms, raced, round_medians_ms
from benchmarks.results import ResultFile, add_output
from vlmquant.bench.measure import bytes_on_disk, median, paired_ratio, quantile
from vlmquant.bench.race import Record, Schedule
from vlmquant.build.build import quantize_model
from vlmquant.bundle.manifest import Manifest
from vlmquant.checkpoints import load_blip
from vlmquant.checkpoints.blip.inputs import graph_examples
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.random_weights import random_checkpoint
from vlmquant.engines import engine, installed_engines
from vlmquant.models.prompts import BUILTIN_PROMPTS
from vlmquant.quantize.recipes.presets import get_recipe

ARCHITECTURE, SEED = "BLIP-base-captioning", 0
DEFAULT_RECIPES = ("vision=static-int8", "decoder=static-int8")


def build_bundle(checkpoint: Path, recipes: dict[str, str], output: Path) -> None:
    """Quantize the checkpoint on two pictures of noise; nothing here depends on how well."""
    noise = np.random.default_rng(SEED).integers(0, 256, (2, 384, 384, 3), dtype=np.uint8)
    calibration = CalibrationSet(tuple(noise), BUILTIN_PROMPTS, "2 pictures of noise", "")
    chosen = {name: replace(get_recipe(recipe), outliers=None) for name, recipe in recipes.items()}
    quantize_model(load_blip(checkpoint), chosen, calibration, output)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "vlmquant-bench-blip")
    parser.add_argument("--recipe", action="append", help="COMPONENT=RECIPE")
    parser.add_argument("--contender", action="append", choices=CONTENDERS)
    parser.add_argument("--phase", action="append", choices=PHASES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)


def run(arguments: argparse.Namespace) -> None:
    names = arguments.contender or list(CONTENDERS)
    recipes = dict(entry.split("=", 1) for entry in arguments.recipe or DEFAULT_RECIPES)
    head = {
        "architecture": ARCHITECTURE,
        "tokens": TOKENS,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "recipes": recipes,
    }
    result = ResultFile(arguments.output, head)
    checkpoint = arguments.work / ARCHITECTURE
    bundle = arguments.work / "-".join(f"{component}.{recipe}" for component, recipe in sorted(recipes.items()))
    if not checkpoint.exists():
        random_checkpoint(ARCHITECTURE, checkpoint, SEED)
    if not bundle.exists() and any(CONTENDERS[name].runs_on == "bundle" for name in names):
        build_bundle(checkpoint, recipes, bundle)
    picture = arguments.work / "picture.npy"
    np.save(picture, np.random.default_rng(SEED).integers(0, 256, (1, 480, 640, 3), dtype=np.uint8))
    paths = {name: checkpoint if CONTENDERS[name].runs_on == "checkpoint" else bundle for name in names}
    schedule = Schedule(batches=(1,), rounds=arguments.rounds, iterations=arguments.iterations, seed=SEED)
    phases = {}
    for phase in arguments.phase or PHASES:
        phases[phase] = rows_of(raced(paths, phase, {1: picture}, schedule, arguments.threads, WORKER))
        for name, row in phases[phase].items():
            print(phase, name, row, flush=True)
    content = {"float_bytes": bytes_on_disk(checkpoint / "model.safetensors"), "phases": phases}
    if bundle.exists():
        content |= int8_mac_shares(checkpoint, bundle)
    if {"beam-1", VISION} <= phases.keys():
        content["ms_per_token"] = ms_per_token(phases)
        print(content["ms_per_token"])
    result.save(content)


def ms_per_token(phases: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return what a greedy token costs on top of the vision tower, for each contender that ran."""
    per_image = {
        phase: {name: row["ms_per_image_median"] for name, row in phases[phase].items() if "ms_per_image_median" in row}
        for phase in ("beam-1", VISION)
    }
    return {
        name: (milliseconds - per_image[VISION][name]) / TOKENS
        for name, milliseconds in per_image["beam-1"].items()
        if name in per_image[VISION]
    }


def int8_mac_shares(checkpoint: Path, bundle: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Return for each graph and engine the share of MACs in INT8 kernels, and that in fast ones, on this machine."""
    parts = Manifest.read(bundle).components
    found = {
        graph: {name: engine(name).audit(bundle / parts[graph].file, *example.audited) for name in installed_engines()}
        for graph, example in graph_examples(load_blip(checkpoint)).items()
    }
    return {
        "int8_mac_share": {graph: {name: one.int8_share for name, one in row.items()} for graph, row in found.items()},
        "fast_int8_mac_share": {
            graph: {name: one.fast_int8_share for name, one in row.items()} for graph, row in found.items()
        },
    }


def rows_of(records: Mapping[str, Record]) -> dict[str, dict[str, Any]]:
    """Return one row per contender: milliseconds per image, the ratio to the baseline by round, memory and bytes."""
    base = round_medians_ms(records[BASELINE], 1) if BASELINE in records else []
    rows: dict[str, dict[str, Any]] = {}
    for name, record in records.items():
        latencies = all_latencies_ms(record, 1)
        if not latencies:
            rows[name] = {"outcome": record.outcome, "reason": record.reason}
            continue
        rows[name] = {
            "ms_per_image_median": median(latencies),
            "ms_per_image_p95": quantile(latencies, 0.95),
            "images_per_second": 1000 / median(latencies),
            "times_as_fast": asdict(paired_ratio(base, round_medians_ms(record, 1))) if base else None,
            **record.facts,
        }
    return rows
