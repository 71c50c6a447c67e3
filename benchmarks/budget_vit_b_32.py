"""How long `quantize --max-drop` takes on a full-size ViT-B/32 with random weights, on 2 cores.

    python benchmarks/budget_vit_b_32.py -o benchmarks/results/budget-vit-b-32.json

Two searches by fidelity (random embeddings know no labels) over pictures of smooth noise: on the model as it is, where
the first candidate should do, and on its stressed equal, where smoothing, a ranking of all layers and a bisection
are needed. Other pictures calibrate. Run on a quiet machine.
"""

import argparse
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlmquant import Budget, CalibrationSet, load_model, quantize_within_budget
from vlmquant.bench.environment import this_environment
from vlmquant.budget.log import NothingInsideError
from vlmquant.checkpoints.architectures import random_checkpoint
from vlmquant.data.folders import read_flat_folder
from vlmquant.lab.stress import stressed
from vlmquant.models.prompts import BUILTIN_PROMPTS, BUILTIN_PROMPTS_NAME
from vlmquant.progress import bar
from vlmquant.tasks.result import save_json

CALIBRATION_IMAGES = 64


def pictures(count: int, seed: int) -> list[Image.Image]:
    generator = np.random.default_rng(seed)
    coarse = [Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(count)]
    return [picture.resize((224, 224), Image.Resampling.BICUBIC) for picture in coarse]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--max-drop", type=float, default=0.5)
    parser.add_argument("--pictures", type=int, default=1000)
    arguments = parser.parse_args()
    calibration = CalibrationSet(
        images=tuple(pictures(CALIBRATION_IMAGES, 1)),
        texts=BUILTIN_PROMPTS,
        images_from=f"{CALIBRATION_IMAGES} pictures of smooth noise",
        texts_from=BUILTIN_PROMPTS_NAME,
    )
    searches: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / "pictures").mkdir()
        for index, picture in enumerate(pictures(arguments.pictures, 0)):
            picture.save(scratch / "pictures" / f"{index:04d}.png")
        data = read_flat_folder(scratch / "pictures")
        model = load_model(random_checkpoint("ViT-B-32", scratch / "ViT-B-32"))
        for kind in ("as it is", "stressed"):
            subject = stressed(model) if kind == "stressed" else model
            budget = Budget(max_drop_points=arguments.max_drop, metric="fidelity")
            started = time.perf_counter()
            try:
                log = quantize_within_budget(subject, calibration, data, budget, scratch / kind, track=bar)
            except NothingInsideError as error:
                print(error)
                log = error.log
            searches[kind] = {"minutes": (time.perf_counter() - started) / 60, "log": log.to_dict()}
            for one in log.tried:
                print(f"{kind:9} {one.name:45} {one.drop.points:8.3f} points {one.latency_ms:6.1f} ms {one.decision}")
            print(f"{kind:9} chosen: {log.chosen}, {searches[kind]['minutes']:.1f} minutes", flush=True)
    save_json(arguments.output, {"searches": searches, "environment": asdict(this_environment())})


if __name__ == "__main__":
    main()
