"""Which steps `static-int8` should take, decided on development scenes that no result is reported on.

    python -m benchmarks steps_street_dev -o benchmarks/results/steps-street-dev.json

The street CLIP's image tower alone, simulated; thousands of scenes, because a tenth of a point is looked for.
"""

import argparse
from collections.abc import Mapping
from dataclasses import asdict, replace

import numpy as np
import torch
from torch import nn
from torch.nn.functional import normalize

import streetworld
from benchmarks.data import CALIBRATION_IMAGES
from benchmarks.results import ResultFile, add_output
from benchmarks.scoring import cosines
from benchmarks.towers import simulated_tower
from vlmquant import get_recipe, load_model
from vlmquant.metrics.intervals import paired_mean
from vlmquant.models.preprocess import preprocess
from vlmquant.models.spec import FloatArray
from vlmquant.progress import bar
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.recipes.schemes import ActivationScheme
from vlmquant.tasks.encode import embed_classes

BATCH = 64


def variants() -> Mapping[str, Recipe]:
    """Return what is compared: ranges, exact bytes with a float-input projection, and bias correction."""
    full = replace(get_recipe("static-int8"), outliers=None)
    plain = replace(full, byte_pixels=False, float_inputs=())
    squared_error, percentile = ActivationScheme(observer="mse"), ActivationScheme(observer="percentile")
    return {
        "clipped by squared error": replace(plain, activations=squared_error),
        "min/max": plain,
        "bytes and projection, clipped by squared error": replace(full, activations=squared_error),
        "bytes and projection, clipped at 99.99 %": replace(full, activations=percentile),
        "bytes and projection, min/max": full,
        "bytes and projection, min/max, bias correction": replace(full, bias_correction=True),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument("--scenes", type=int, default=6000)
    parser.add_argument("--threads", type=int, default=1)


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    model = load_model(streetworld.checkpoint())
    scenes = streetworld.zero_shot_set(arguments.scenes, split="dev")
    head = {"model": model.name, "scenes": arguments.scenes, "split": "dev"}
    result = ResultFile(arguments.output, head)
    drawn = bar(scenes.images, "Preprocessing", arguments.scenes)
    pixels = torch.from_numpy(np.stack([preprocess(image, model.image_spec) for image in drawn]))
    classes = embed_classes(model.encoder(), scenes.class_names, scenes.templates, bar)
    calibration = streetworld.calibration_set(CALIBRATION_IMAGES)

    def embed(tower: nn.Module) -> FloatArray:
        with torch.inference_mode():
            return np.asarray(torch.cat([normalize(tower(batch), dim=-1) for batch in torch.split(pixels, BATCH)]))

    expected = embed(model.image_tower)
    right = (expected @ classes.T).argmax(axis=1) == scenes.labels
    for name, recipe in variants().items():
        if name in result.rows:
            continue
        rows = embed(simulated_tower(model, "image", recipe, calibration))
        still = (rows @ classes.T).argmax(axis=1) == scenes.labels
        figures = {
            "cosine_loss": float(1 - np.mean(cosines(rows, expected))),
            "difference_points": {
                name: 100 * value
                for name, value in asdict(paired_mean(still.astype(float) - right, np.arange(arguments.scenes))).items()
            },
            "losses": int((right & ~still).sum()),
            "gains": int((still & ~right).sum()),
        }
        print(name, figures, flush=True)
        result.add(name, {**figures, "recipe": recipe.to_dict()})
    result.save({"float_top1": float(right.mean()), "variants": result.rows})
