"""Full-size BLIP captioning with random weights: seconds per image, peak memory and bytes on disk, end to end.

    python benchmarks/bench_blip.py -o benchmarks/results/bench-blip-base.json
    python benchmarks/bench_blip.py --recipe decoder=int8-weights --recipe vision=static-int8 ...

Every contender writes exactly 20 tokens about one image (picture in, token ids out), alive in its
own process, turns alternated; for a quiet machine. Random weights: sizes and speeds mean something, captions nothing.
"""

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlmquant.bench.contenders import Contender, Running
from vlmquant.bench.environment import this_environment
from vlmquant.bench.measure import bytes_on_disk, median, paired_ratio, quantile
from vlmquant.bench.race import Record, Schedule, race
from vlmquant.bench.worker import main as serve_worker
from vlmquant.bundle.manifest import Manifest
from vlmquant.engines import engine, installed_engines
from vlmquant.models.generate import GenerationOptions
from vlmquant.models.preprocess import preprocess
from vlmquant.models.spec import ImageSpec
from vlmquant.process import WorkerProcess
from vlmquant.progress import silent
from vlmquant.tasks.result import save_json

ARCHITECTURE, TOKENS, SEED = "BLIP-base-captioning", 20, 0
BASELINE = "transformers-fp32"
VISION = "vision"
PHASES = {"beam-1": 1, "beam-3": 3, VISION: 1}
"""What is timed, and the width of the beam search."""
DEFAULT_RECIPES = ("vision=static-int8", "decoder=static-int8")


def transformers_fp32(path: Path, phase: str, threads: int) -> Running:
    """Return transformers' own `generate` in float32."""
    return _transformers(path, phase, threads, dynamic=False)


def torch_dynamic_int8(path: Path, phase: str, threads: int) -> Running:
    """Return the same model with every Linear in torch's dynamic INT8 (S4's baseline)."""
    return _transformers(path, phase, threads, dynamic=True)


def _transformers(path: Path, phase: str, threads: int, *, dynamic: bool) -> Running:
    import torch
    from transformers import BlipForConditionalGeneration

    torch.set_num_threads(threads)
    model: Any = BlipForConditionalGeneration.from_pretrained(path, dtype=torch.float32).eval()
    if dynamic:
        model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    spec = ImageSpec.from_folder(path)

    def run(images: Any) -> object:
        pixels = torch.from_numpy(np.stack([preprocess(image, spec) for image in images]))
        with torch.inference_mode():
            if phase == VISION:
                return model.vision_model(pixel_values=pixels).last_hidden_state.numpy()
            beams = PHASES[phase]
            return model.generate(pixels, max_new_tokens=TOKENS, min_new_tokens=TOKENS, num_beams=beams).numpy()

    def size() -> int:
        with tempfile.NamedTemporaryFile() as stream:
            torch.save(model.state_dict(), stream)
            return Path(stream.name).stat().st_size

    return Running(run, size)


def _bundle(engine: str, path: Path, phase: str, threads: int) -> Running:
    from vlmquant.bundle import open_blip

    options = GenerationOptions(max_new_tokens=TOKENS, min_new_tokens=TOKENS, beams=PHASES[phase])
    runner = open_blip(path, engine=engine, threads=threads, options=options)
    run = runner.states if phase == VISION else runner.caption_ids
    return Running(lambda images: run(list(images)), lambda: bytes_on_disk(path))


def bundle_auto(path: Path, phase: str, threads: int) -> Running:
    """Return the bundle on the engines that "auto" takes."""
    return _bundle("auto", path, phase, threads)


def bundle_openvino(path: Path, phase: str, threads: int) -> Running:
    """Return the bundle on OpenVINO."""
    return _bundle("openvino", path, phase, threads)


def bundle_onnxruntime(path: Path, phase: str, threads: int) -> Running:
    """Return the bundle on ONNX Runtime."""
    return _bundle("onnxruntime", path, phase, threads)


CONTENDERS = {
    BASELINE: Contender(runs_on="checkpoint", packages=("transformers",), build=transformers_fp32),
    "torch-dynamic-int8": Contender(runs_on="checkpoint", packages=("transformers",), build=torch_dynamic_int8),
    "bundle-auto": Contender(runs_on="bundle", packages=(), build=bundle_auto),
    "bundle-openvino": Contender(runs_on="bundle", packages=("openvino",), build=bundle_openvino),
    "bundle-onnxruntime": Contender(runs_on="bundle", packages=("onnxruntime",), build=bundle_onnxruntime),
}


def build_bundle(checkpoint: Path, recipes: dict[str, str], output: Path) -> None:
    """Quantize the checkpoint on two pictures of noise; nothing here depends on how well."""
    from vlmquant.build.blip_build import quantize_blip
    from vlmquant.checkpoints import load_blip
    from vlmquant.checkpoints.calibration_set import CalibrationSet
    from vlmquant.models.prompts import BUILTIN_PROMPTS
    from vlmquant.quantize.recipes.presets import get_recipe

    noise = np.random.default_rng(SEED).integers(0, 256, (2, 384, 384, 3), dtype=np.uint8)
    calibration = CalibrationSet(tuple(noise), BUILTIN_PROMPTS, "2 pictures of noise", "")
    chosen = {name: dataclasses.replace(get_recipe(recipe), outliers=None) for name, recipe in recipes.items()}
    quantize_blip(load_blip(checkpoint), chosen, calibration, output)


def main() -> None:
    """Build what is missing in the work folder, race, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "vlmquant-bench-blip")
    parser.add_argument("--recipe", action="append", help="COMPONENT=RECIPE")
    parser.add_argument("--contender", action="append", choices=CONTENDERS)
    parser.add_argument("--phase", action="append", choices=PHASES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    names = options.contender or list(CONTENDERS)
    recipes = dict(entry.split("=", 1) for entry in options.recipe or DEFAULT_RECIPES)
    checkpoint = options.work / ARCHITECTURE
    bundle = options.work / "-".join(f"{component}.{recipe}" for component, recipe in sorted(recipes.items()))
    if not checkpoint.exists():
        from vlmquant.checkpoints.architectures import random_checkpoint

        random_checkpoint(ARCHITECTURE, checkpoint, SEED)
    if not bundle.exists() and any(CONTENDERS[name].runs_on == "bundle" for name in names):
        build_bundle(checkpoint, recipes, bundle)
    picture = options.work / "picture.npy"
    np.save(picture, np.random.default_rng(SEED).integers(0, 256, (1, 480, 640, 3), dtype=np.uint8))
    command = (sys.executable, __file__, "--worker")
    phases = {}
    for phase in options.phase or PHASES:
        loads = {
            name: {
                "command": "load",
                "contender": name,
                "path": str(checkpoint if CONTENDERS[name].runs_on == "checkpoint" else bundle),
                "component": phase,
                "threads": options.threads,
                "inputs": {"1": str(picture)},
            }
            for name in names
        }
        schedule = Schedule(batches=(1,), rounds=options.rounds, iterations=options.iterations, seed=SEED)
        phases[phase] = rows_of(race(loads, schedule, lambda: WorkerProcess(options.threads, command), silent))
        for name, row in phases[phase].items():
            print(phase, name, row, flush=True)
    content: dict[str, Any] = {
        "architecture": ARCHITECTURE,
        "tokens": TOKENS,
        "threads": options.threads,
        "rounds": options.rounds,
        "recipes": recipes,
        "float_bytes": bytes_on_disk(checkpoint / "model.safetensors"),
        "environment": dataclasses.asdict(this_environment()),
        "phases": phases,
    }
    if bundle.exists():
        content |= int8_mac_shares(checkpoint, bundle)
    if {"beam-1", VISION} <= phases.keys():
        content["ms_per_token"] = {
            name: (row["ms_per_image_median"] - phases[VISION][name]["ms_per_image_median"]) / TOKENS
            for name, row in phases["beam-1"].items()
            if "ms_per_image_median" in row and "ms_per_image_median" in phases[VISION].get(name, {})
        }
        print(content["ms_per_token"])
    if options.output is not None:
        save_json(options.output, content)


def int8_mac_shares(checkpoint: Path, bundle: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Return for each graph and engine the share of MACs in INT8 kernels, and that in fast ones, on this machine."""
    from vlmquant.build.blip_export import graph_examples
    from vlmquant.checkpoints import load_blip

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
    base = [median(one) for one in records[BASELINE].latencies_ms[1]] if BASELINE in records else []
    rows: dict[str, dict[str, Any]] = {}
    for name, record in records.items():
        latencies = [value for one in record.latencies_ms[1] for value in one]
        if not latencies:
            rows[name] = {"outcome": record.outcome, "reason": record.reason}
            continue
        medians = [median(one) for one in record.latencies_ms[1]]
        rows[name] = {
            "ms_per_image_median": median(latencies),
            "ms_per_image_p95": quantile(latencies, 0.95),
            "images_per_second": 1000 / median(latencies),
            "times_as_fast": dataclasses.asdict(paired_ratio(base, medians)) if base else None,
            **record.facts,
        }
    return rows


if __name__ == "__main__":
    if sys.argv[1:] == ["--worker"]:
        serve_worker(CONTENDERS)
    else:
        main()
