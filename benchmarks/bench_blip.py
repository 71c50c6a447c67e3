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
from pathlib import Path
from typing import Any

import numpy as np

from vlmquant.bench.contenders import Contender, Running
from vlmquant.bench.environment import this_environment
from vlmquant.bench.measure import bytes_on_disk, median, paired_ratio, quantile
from vlmquant.bench.process import WorkerProcess
from vlmquant.bench.race import Schedule, race
from vlmquant.bench.worker import main as serve_worker
from vlmquant.models.generate import GenerationOptions
from vlmquant.models.preprocess import preprocess
from vlmquant.models.spec import ImageSpec
from vlmquant.progress import silent
from vlmquant.tasks.result import save_json

ARCHITECTURE, TOKENS, SEED = "BLIP-base-captioning", 20, 0
BASELINE = "transformers-fp32"
DEFAULT_RECIPES = ("vision=static-int8", "decoder=static-int8")


def transformers_fp32(path: Path, beams: str, threads: int) -> Running:
    """Return transformers' own `generate` in float32."""
    return _transformers(path, int(beams), threads, dynamic=False)


def torch_dynamic_int8(path: Path, beams: str, threads: int) -> Running:
    """Return the same model with every Linear in torch's dynamic INT8 (S4's baseline)."""
    return _transformers(path, int(beams), threads, dynamic=True)


def _transformers(path: Path, beams: int, threads: int, *, dynamic: bool) -> Running:
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
            return model.generate(pixels, max_new_tokens=TOKENS, min_new_tokens=TOKENS, num_beams=beams).numpy()

    def size() -> int:
        with tempfile.NamedTemporaryFile() as stream:
            torch.save(model.state_dict(), stream)
            return Path(stream.name).stat().st_size

    return Running(run, size)


def _bundle(engine: str, path: Path, beams: str, threads: int) -> Running:
    from vlmquant.bundle import open_blip

    options = GenerationOptions(max_new_tokens=TOKENS, min_new_tokens=TOKENS, beams=int(beams))
    runner = open_blip(path, engine=engine, threads=threads, options=options)
    return Running(lambda images: runner.caption_ids(list(images)), lambda: bytes_on_disk(path))


def bundle_auto(path: Path, beams: str, threads: int) -> Running:
    """Return the bundle on the engines that "auto" takes."""
    return _bundle("auto", path, beams, threads)


def bundle_openvino(path: Path, beams: str, threads: int) -> Running:
    """Return the bundle on OpenVINO."""
    return _bundle("openvino", path, beams, threads)


def bundle_onnxruntime(path: Path, beams: str, threads: int) -> Running:
    """Return the bundle on ONNX Runtime."""
    return _bundle("onnxruntime", path, beams, threads)


CONTENDERS = {
    BASELINE: Contender(runs_on="checkpoint", packages=("transformers",), build=transformers_fp32),
    "torch-dynamic-int8": Contender(runs_on="checkpoint", packages=("transformers",), build=torch_dynamic_int8),
    "bundle-auto": Contender(runs_on="bundle", packages=(), build=bundle_auto),
    "bundle-openvino": Contender(runs_on="bundle", packages=("openvino",), build=bundle_openvino),
    "bundle-onnxruntime": Contender(runs_on="bundle", packages=("onnxruntime",), build=bundle_onnxruntime),
}


def build_bundle(checkpoint: Path, recipes: dict[str, str], output: Path) -> None:
    """Quantize the checkpoint on two pictures of noise; nothing here depends on how well."""
    from vlmquant.bundle.blip_build import quantize_blip
    from vlmquant.models import load_blip
    from vlmquant.quantize.calibration_set import CalibrationSet
    from vlmquant.quantize.prompts import BUILTIN_PROMPTS
    from vlmquant.quantize.recipe import get_recipe

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
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    names = options.contender or list(CONTENDERS)
    recipes = dict(entry.split("=", 1) for entry in options.recipe or DEFAULT_RECIPES)
    checkpoint = options.work / ARCHITECTURE
    bundle = options.work / "-".join(f"{component}.{recipe}" for component, recipe in sorted(recipes.items()))
    if not checkpoint.exists():
        from vlmquant.models.architectures import random_checkpoint

        random_checkpoint(ARCHITECTURE, checkpoint, SEED)
    if not bundle.exists() and any(CONTENDERS[name].runs_on == "bundle" for name in names):
        build_bundle(checkpoint, recipes, bundle)
    picture = options.work / "picture.npy"
    np.save(picture, np.random.default_rng(SEED).integers(0, 256, (1, 480, 640, 3), dtype=np.uint8))
    loads = {
        name: {
            "command": "load",
            "contender": name,
            "path": str(checkpoint if CONTENDERS[name].runs_on == "checkpoint" else bundle),
            "component": str(options.beams),
            "threads": options.threads,
            "inputs": {"1": str(picture)},
        }
        for name in names
    }
    schedule = Schedule(batches=(1,), rounds=options.rounds, iterations=options.iterations, seed=SEED)
    command = (sys.executable, __file__, "--worker")
    records = race(loads, schedule, lambda: WorkerProcess(options.threads, command), silent)
    base = [median(one) for one in records[BASELINE].latencies_ms[1]] if BASELINE in records else []
    rows = {}
    for name, record in records.items():
        latencies = [value for one in record.latencies_ms[1] for value in one]
        if not latencies:
            rows[name] = {"outcome": record.outcome, "reason": record.reason}
            continue
        rows[name] = {
            "seconds_per_image_median": median(latencies) / 1000,
            "seconds_per_image_p95": quantile(latencies, 0.95) / 1000,
            "times_as_fast": dataclasses.asdict(paired_ratio(base, [median(one) for one in record.latencies_ms[1]]))
            if base
            else None,
            **record.facts,
        }
        print(name, rows[name], flush=True)
    if options.output is not None:
        environment = dataclasses.asdict(this_environment())
        about = {
            "architecture": ARCHITECTURE,
            "tokens": TOKENS,
            "beams": options.beams,
            "threads": options.threads,
            "recipes": recipes,
        }
        save_json(options.output, {**about, "environment": environment, "contenders": rows})


if __name__ == "__main__":
    if sys.argv[1:] == ["--worker"]:
        serve_worker(CONTENDERS)
    else:
        main()
