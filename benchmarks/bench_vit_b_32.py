"""Full-size ViT-B/32 with random weights, both towers: speed, size and memory beside the float model.

    python -m benchmarks bench_vit_b_32 -o benchmarks/results/bench-vit-b-32.json

For a quiet machine; about ten minutes on 2 cores. Works offline.
"""

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks.data import CALIBRATION_IMAGES, noise
from benchmarks.results import ResultFile, add_output
from vlmquant.bench import BenchTargets, bench
from vlmquant.bench.table import markdown
from vlmquant.bench.targets import TOWERS
from vlmquant.build.build import quantize_model
from vlmquant.checkpoints import load_model
from vlmquant.checkpoints.random_weights import random_checkpoint
from vlmquant.progress import bar
from vlmquant.quantize.recipes.presets import get_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=5)


def run(arguments: argparse.Namespace) -> None:
    result = ResultFile(arguments.output, {})
    with tempfile.TemporaryDirectory() as name:
        checkpoint, bundle = Path(name) / "ViT-B-32", Path(name) / "bundle"
        random_checkpoint("ViT-B-32", checkpoint)
        model = load_model(checkpoint)
        started = time.monotonic()
        quantize_model(model, get_recipe("static-int8"), noise(CALIBRATION_IMAGES), bundle, track=bar)
        quantize_seconds = time.monotonic() - started
        del model
        benched = {
            component: bench(
                BenchTargets(bundle=bundle, checkpoint=checkpoint, component=component),
                rounds=arguments.rounds,
                iterations=arguments.iterations,
                track=bar,
            )
            for component in TOWERS
        }
    quantize = {"seconds": quantize_seconds, "calibration_images": CALIBRATION_IMAGES}
    result.save({**{component: one.to_dict() for component, one in benched.items()}, "quantize": quantize})
    print("\n".join(markdown(one) for one in benched.values()))
