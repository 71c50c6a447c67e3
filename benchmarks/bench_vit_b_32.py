"""Full-size ViT-B/32 with random weights, both towers: writes results/bench-vit-b-32.json and prints the tables.

Run on a quiet machine: `python benchmarks/bench_vit_b_32.py`; about ten minutes on 2 cores. Works offline.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from vlmquant.bench import BenchTargets, bench
from vlmquant.bench.run import COMPONENTS
from vlmquant.bench.table import markdown
from vlmquant.build.build import quantize_model
from vlmquant.checkpoints import load_model
from vlmquant.checkpoints.architectures import random_checkpoint
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.models.prompts import BUILTIN_PROMPTS, BUILTIN_PROMPTS_NAME
from vlmquant.progress import bar
from vlmquant.quantize.recipes.presets import get_recipe

OUTPUT = Path(__file__).resolve().parent / "results" / "bench-vit-b-32.json"
CALIBRATION_IMAGES = 64


def noise(count: int) -> CalibrationSet:
    """Return pictures of noise: the weights are random too, and no value here changes speed or size."""
    generator = np.random.default_rng(0)
    images = tuple(generator.integers(0, 256, (224, 224, 3), dtype=np.uint8) for _ in range(count))
    return CalibrationSet(
        images=images, texts=BUILTIN_PROMPTS, images_from=f"{count} images of noise", texts_from=BUILTIN_PROMPTS_NAME
    )


def main(rounds: int = 10, iterations: int = 5, output: Path = OUTPUT) -> None:
    """Quantize, bench both towers and write one JSON file: component -> BenchResult."""
    with tempfile.TemporaryDirectory() as name:
        checkpoint, bundle = Path(name) / "ViT-B-32", Path(name) / "bundle"
        random_checkpoint("ViT-B-32", checkpoint)
        model = load_model(checkpoint)
        started = time.monotonic()
        quantize_model(model, get_recipe("static-int8"), noise(CALIBRATION_IMAGES), bundle, track=bar)
        quantize_seconds = time.monotonic() - started
        del model
        results = {
            component: bench(
                BenchTargets(bundle=bundle, checkpoint=checkpoint, component=component),
                rounds=rounds,
                iterations=iterations,
                track=bar,
            )
            for component in COMPONENTS
        }
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(output.name + ".tmp")
    content = {component: result.to_dict() for component, result in results.items()}
    content["quantize"] = {"seconds": quantize_seconds, "calibration_images": CALIBRATION_IMAGES}
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, output)
    print("\n".join(markdown(result) for result in results.values()))


if __name__ == "__main__":
    if len(sys.argv) not in (1, 4):
        sys.exit("usage: bench_vit_b_32.py [ROUNDS ITERATIONS OUTPUT.json]")
    if len(sys.argv) == 4:
        main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
