"""Which steps `static-int8` should take, decided on development scenes that no result is reported on.

    python benchmarks/steps_street_dev.py -o benchmarks/results/steps-street-dev.json

The street CLIP's image tower alone, simulated; thousands of scenes, because a tenth of a point is looked for.
"""

import argparse
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from vlmquant import get_recipe, load_model, streetworld
from vlmquant.bench.environment import this_environment
from vlmquant.checkpoints.clip_inputs import calibration_inputs
from vlmquant.metrics.intervals import bootstrap_mean
from vlmquant.models.preprocess import preprocess
from vlmquant.progress import bar
from vlmquant.quantize.apply import quantize_tower
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.recipes.schemes import ActivationScheme
from vlmquant.tasks.encode import embed_classes
from vlmquant.tasks.result import save_json

BATCH = 64


def variants() -> Mapping[str, Recipe]:
    """Return what is compared: ranges, exact bytes with a float-input projection, and bias correction."""
    full = replace(get_recipe("static-int8"), outliers=None)
    plain = replace(full, byte_pixels=False, float_inputs=())
    clipped = {name: ActivationScheme(observer=name) for name in ("mse", "percentile")}  # type: ignore[arg-type]
    return {
        "clipped by squared error": replace(plain, activations=clipped["mse"]),
        "min/max": plain,
        "bytes and projection, clipped by squared error": replace(full, activations=clipped["mse"]),
        "bytes and projection, clipped at 99.99 %": replace(full, activations=clipped["percentile"]),
        "bytes and projection, min/max": full,
        "bytes and projection, min/max, bias correction": replace(full, bias_correction=True),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=6000)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = load_model(streetworld.checkpoint())
    scenes = streetworld.zero_shot_set(arguments.scenes, split="dev")
    count = len(scenes.images)
    drawn = (preprocess(scenes.images[i], model.image_spec) for i in bar(range(count), "Drawing", count))
    pixels = torch.from_numpy(np.stack(list(drawn)))
    labels = np.asarray(scenes.labels)
    classes = embed_classes(model.encoder(), scenes.class_names, scenes.templates, bar)
    inputs = calibration_inputs(model, streetworld.calibration_set(64), "image")

    def embed(tower: torch.nn.Module) -> np.ndarray:
        with torch.inference_mode():
            return torch.cat([normalize(tower(batch), dim=-1) for batch in pixels.split(BATCH)]).numpy()

    expected = embed(model.image_tower)
    right = (expected @ classes.T).argmax(axis=1) == labels
    results: dict[str, Any] = {}
    for name, recipe in variants().items():
        rows = embed(quantize_tower(model.image_tower, recipe, inputs, name, bar))
        still = (rows @ classes.T).argmax(axis=1) == labels
        difference = bootstrap_mean(100.0 * (still.astype(float) - right), np.arange(count))
        results[name] = {
            "cosine_loss": float(1 - np.mean(np.sum(rows * expected, axis=1))),
            "difference_points": asdict(difference),
            "losses": int((right & ~still).sum()),
            "gains": int((still & ~right).sum()),
            "recipe": recipe.to_dict(),
        }
        print(name, {key: value for key, value in results[name].items() if key != "recipe"}, flush=True)
    content = {
        "model": model.name,
        "scenes": count,
        "split": "dev",
        "float_top1": float(right.mean()),
        "variants": results,
        "environment": asdict(this_environment()),
    }
    save_json(arguments.output, content)


if __name__ == "__main__":
    main()
