"""How long `quantize --max-drop` takes on a full-size ViT-B/32 with random weights, on 2 cores.

    python -m benchmarks budget_vit_b_32 -o benchmarks/results/budget-vit-b-32.json

Two searches by fidelity (random embeddings know no labels) over pictures of smooth noise: on the model as it is, where
the first candidate should do, and on its stressed equal, where smoothing, a ranking of all layers and a bisection
are needed. Other pictures calibrate. Run on a quiet machine.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.data import CALIBRATION_IMAGES
from benchmarks.results import ResultFile, add_output
from vlmquant import Budget, CalibrationSet, load_model, quantize_within_budget
from vlmquant.budget.log import NothingInsideError
from vlmquant.checkpoints.random_weights import random_checkpoint
from vlmquant.data.folders import read_flat_folder
from vlmquant.lab.stress import stressed
from vlmquant.models.prompts import BUILTIN_PROMPTS, BUILTIN_PROMPTS_NAME
from vlmquant.progress import bar


def pictures(count: int, seed: int) -> list[Image.Image]:
    generator = np.random.default_rng(seed)
    coarse = [Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(count)]
    return [picture.resize((224, 224), Image.Resampling.BICUBIC) for picture in coarse]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument("--max-drop", type=float, default=0.5)
    parser.add_argument("--pictures", type=int, default=1000)


def run(arguments: argparse.Namespace) -> None:
    calibration = CalibrationSet(
        images=tuple(pictures(CALIBRATION_IMAGES, 1)),
        texts=BUILTIN_PROMPTS,
        images_from=f"{CALIBRATION_IMAGES} pictures of smooth noise",
        texts_from=BUILTIN_PROMPTS_NAME,
    )
    head = {"max_drop_points": arguments.max_drop, "pictures": arguments.pictures, "calibration": calibration.to_dict()}
    result = ResultFile(arguments.output, head)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / "pictures").mkdir()
        for index, picture in enumerate(pictures(arguments.pictures, 0)):
            picture.save(scratch / "pictures" / f"{index:04d}.png")
        data = read_flat_folder(scratch / "pictures")
        model = load_model(random_checkpoint("ViT-B-32", scratch / "ViT-B-32"))
        for kind in ("as it is", "stressed"):
            if kind in result.rows:
                continue
            subject = stressed(model) if kind == "stressed" else model
            budget = Budget(max_drop_points=arguments.max_drop, metric="fidelity")
            started = time.perf_counter()
            try:
                log = quantize_within_budget(subject, calibration, data, budget, scratch / kind, track=bar)
            except NothingInsideError as error:
                print(error)
                log = error.log
            minutes = (time.perf_counter() - started) / 60
            result.add(kind, {"minutes": minutes, "log": log.to_dict()})
            for one in log.tried:
                print(f"{kind:9} {one.name:45} {one.drop.points:8.3f} points {one.latency_ms:6.1f} ms {one.decision}")
            print(f"{kind:9} chosen: {log.chosen}, {minutes:.1f} minutes", flush=True)
    result.save({"searches": result.rows})
