"""One bundle, made once, on every kind of CPU that can be had: each engine beside the simulation.

    python -m benchmarks portability -o benchmarks/results/portability.json --shared ../shared/data

Every model is quantized by `static-int8` and proved on the same file: on this CPU; with OpenVINO's kernels capped
(ONEDNN_MAX_CPU_ISA, which ONNX Runtime ignores); and, where `qemu-x86_64` is installed (Debian: qemu-user), on emulated
CPUs, whose instructions both engines really see (the small models; a full-size one takes hours there). "placed" is what
`--engine auto` takes there. A run that was stopped goes on from its `.partial.json`.
"""

import argparse
import os
import shutil
import site
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

import streetworld
import vlmquant
from benchmarks.data import add_shared, noise
from benchmarks.results import ResultFile, add_output
from vlmquant import CalibrationSet, load_model
from vlmquant.build.build import quantize_model
from vlmquant.bundle.manifest import Manifest, file_facts
from vlmquant.bundle.placement import place
from vlmquant.checkpoints import load_blip
from vlmquant.checkpoints.random_weights import random_checkpoint
from vlmquant.engines import installed_engines
from vlmquant.lab.stress import stressed
from vlmquant.models.preprocess import read_image
from vlmquant.models.prompts import BUILTIN_PROMPTS
from vlmquant.process import WorkerFailed, WorkerProcess
from vlmquant.progress import bar
from vlmquant.quantize.recipes.presets import get_recipe

RECIPE = get_recipe("static-int8")
PROBES, FEW_PROBES = 16, 4
"""Probes of a small and of a full-size model."""
CAPS = ("AVX2", "SSE41")
EMULATED = {"Nehalem": "SSE4.2, no AVX"}
TIMEOUT_SECONDS = 3000.0


def street_clip(shared: Path, folder: Path, stress: bool = False) -> None:
    model = load_model(streetworld.checkpoint())
    quantize_model(stressed(model) if stress else model, RECIPE, streetworld.calibration_set(64), folder, track=bar)


def real_clip(shared: Path, folder: Path, stress: bool = False) -> None:
    model = load_model(shared / "checkpoints" / "clip-real-tiny")
    files = sorted((shared / "flickr8k" / "images").glob("*.jpg"))[:64]
    photos = CalibrationSet(tuple(map(read_image, files)), BUILTIN_PROMPTS, "64 images of Flickr8k", "built-in")
    quantize_model(stressed(model) if stress else model, RECIPE, photos, folder, track=bar)


def street_blip(shared: Path, folder: Path, name: str) -> None:
    model = load_blip(streetworld.checkpoint(name))
    quantize_model(model, RECIPE, streetworld.calibration_set(16), folder, track=bar)


def full_size(shared: Path, folder: Path, architecture: str) -> None:
    checkpoint = folder.with_name("checkpoint")
    random_checkpoint(architecture, checkpoint)
    quantize_model(load_model(checkpoint), RECIPE, noise(16), folder, track=bar)
    shutil.rmtree(checkpoint)


MODELS: dict[str, tuple[Callable[[Path, Path], None], int]] = {
    "street CLIP": (street_clip, PROBES),
    "street CLIP with outliers": (lambda shared, folder: street_clip(shared, folder, stress=True), PROBES),
    "clip-real-tiny": (real_clip, PROBES),
    "clip-real-tiny with outliers": (lambda shared, folder: real_clip(shared, folder, stress=True), PROBES),
    "street BLIP, captions": (lambda shared, folder: street_blip(shared, folder, "street-blip-captions"), PROBES),
    "street BLIP, answers": (lambda shared, folder: street_blip(shared, folder, "street-blip-vqa"), PROBES),
    "RN50, random weights": (lambda shared, folder: full_size(shared, folder, "RN50"), FEW_PROBES),
    "ViT-B-32, random weights": (lambda shared, folder: full_size(shared, folder, "ViT-B-32"), FEW_PROBES),
}


def machines(emulate: bool) -> dict[str, tuple[tuple[str, ...], dict[str, str]]]:
    """Return, by name, what comes before python and what goes into its environment."""
    found: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {"this CPU": ((), {})}
    found |= {f"this CPU, OpenVINO capped at {cap}": ((), {"ONEDNN_MAX_CPU_ISA": cap}) for cap in CAPS}
    emulator = shutil.which("qemu-x86_64")
    if emulate and emulator:
        ours = str(Path(vlmquant.__file__).parents[1])
        packages = {"PYTHONPATH": os.pathsep.join([ours, *site.getsitepackages()])}
        for cpu, sets in EMULATED.items():
            found[f"emulated {cpu} ({sets})"] = ((emulator, "-cpu", cpu), packages)
    return found


def proved(folder: Path, engine: str, before: tuple[str, ...], environment: dict[str, str]) -> dict[str, Any]:
    """Return the cosines of each component on one engine and machine, or why there are none."""
    python = str(Path(sys.executable).resolve()) if before else sys.executable
    command = (*before, python, "-m", "vlmquant.bundle.proof_worker")
    manifest = Manifest.read(folder)
    names = list(manifest.components)
    rows: dict[str, Any] = {}
    for group in [[name] for name in names] if manifest.head.independent else [names]:
        request = {
            "command": "prove",
            "folder": str(folder),
            "engine": engine,
            "arithmetic": "integer",
            "components": group,
            "threads": 2,
            "timed_seconds": 0.0,
        }
        try:
            with patch.dict(os.environ, environment), WorkerProcess(2, command) as worker:
                rows |= worker.ask(request, TIMEOUT_SECONDS)["rows"]
        except WorkerFailed as failure:
            rows |= {component: {"failed": str(failure)} for component in group}
    return rows


def placed(folder: Path, before: tuple[str, ...], environment: dict[str, str]) -> dict[str, str] | None:
    """Return what "auto" takes for each component; None on an emulated CPU, whose cpuinfo is this one's."""
    if before:
        return None
    with patch.dict(os.environ, environment):
        found = place(folder, Manifest.read(folder))
    return {name: f"{one.way}: {one.warning or one.reason}" for name, one in found.items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    add_shared(parser)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)


def run(arguments: argparse.Namespace) -> None:
    result = ResultFile(arguments.output, {})
    for name in arguments.models:
        if name not in result.rows:
            result.add(name, measured(name, arguments.shared))
            show(name, result.rows[name])
    result.save({"models": result.rows})


def measured(name: str, shared: Path) -> dict[str, Any]:
    """Build one model's bundle with enough probes and prove it on every machine and engine."""
    build, probes = MODELS[name]
    with (
        tempfile.TemporaryDirectory() as scratch,
        patch("vlmquant.checkpoints.part.COUNT", probes),
        patch("vlmquant.checkpoints.clip.inputs.COUNT", probes),
    ):
        folder = Path(scratch) / "bundle"
        build(shared, folder)
        return {
            "probes": probes,
            "requires_any_of": list(Manifest.read(folder).requires_any_of),
            "graphs": {part.name: file_facts(part).sha256 for part in sorted(folder.glob("*.onnx"))},
            "machines": {
                machine: {
                    "placed": placed(folder, *how),
                    **{engine: proved(folder, engine, *how) for engine in installed_engines()},
                }
                for machine, how in machines(emulate=probes == PROBES).items()
            },
        }


def show(name: str, result: dict[str, Any]) -> None:
    for machine, engines in result["machines"].items():
        for engine, rows in engines.items():
            if engine == "placed":
                continue
            cosines = [row for row in rows.values() if "failed" not in row]
            mean = np.mean([row["cosine_mean"] for row in cosines]) if cosines else np.nan
            least = min((row["cosine_min"] for row in cosines), default=np.nan)
            failed = [f"{part}: {row['failed']}" for part, row in rows.items() if "failed" in row]
            print(f"{name:30} {machine:36} {engine:12} {mean:.6f} {least:.6f} {' '.join(failed)[:90]}", flush=True)
