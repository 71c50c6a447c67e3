"""What a short tuning without labels (`vlmquant recover`) wins back at few bits, both towers, simulated in torch.

    python benchmarks/recovery.py real   -o benchmarks/results/recovery-real-tiny.json --shared ../shared/data
    python benchmarks/recovery.py street -o benchmarks/results/recovery-street.json

`real`: tuned on 512 CIFAR-10 test pictures without their labels, which are then left out of the score, and the captions
of Flickr8k's dev split; scored on 5,000 other CIFAR-10 pictures and Flickr8k's test split. `street`: tuned on 512
training scenes and their captions, scored on held-out scenes. Recipes are vanilla ones: the point is what tuning adds.
A run that was stopped goes on from its `.partial.json` and from the tuning's own state beside it.
"""

import argparse
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import DATA, Data, encode, preprocessed, rows_of, score

from vlmquant import CalibrationSet, get_recipe, load_model
from vlmquant.bench.environment import this_environment
from vlmquant.checkpoints.clip_inputs import calibration_inputs
from vlmquant.progress import bar
from vlmquant.quantize.apply import quantize_tower
from vlmquant.quantize.recipes.recipe import COMPONENTS
from vlmquant.quantize.recovery.recover import recover
from vlmquant.quantize.recovery.tuning import RecoverySettings
from vlmquant.tasks.result import save_json

RECIPES = ("vanilla-w4a4", "vanilla-w3a3")
UNLABELLED, SCORED = 512, 5000


def real(data: Data) -> tuple[CalibrationSet, Data]:
    """Return what to tune on and what to score on: different pictures of the same kind."""
    tuned_on = [data.images[i] for i in range(SCORED, SCORED + UNLABELLED)]
    unlabelled = CalibrationSet(
        images=tuple(tuned_on),
        texts=data.calibration.texts,
        images_from=f"{UNLABELLED} CIFAR-10 test images, not among those scored",
        texts_from=data.calibration.texts_from,
    )
    return unlabelled, replace(data, images=data.images[:SCORED], labels=np.asarray(data.labels)[:SCORED])


def street(data: Data) -> tuple[CalibrationSet, Data]:
    """Return training scenes to tune on; all held-out scenes are scored."""
    from vlmquant import streetworld

    return streetworld.calibration_set(UNLABELLED), data


SPLITS: dict[str, Callable[[Data], tuple[CalibrationSet, Data]]] = {"real": real, "street": street}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=list(SPLITS))
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    unlabelled, data = SPLITS[arguments.data](DATA[arguments.data](arguments.shared))
    model = load_model(data.checkpoint)
    pixels = preprocessed(data, model.image_spec)
    before = encode(model.encoder(), data, pixels)
    settings = RecoverySettings(steps=arguments.steps, device="cpu")
    inputs = {component: calibration_inputs(model, unlabelled, component) for component in COMPONENTS}
    float_towers = {"image": model.image_tower, "text": model.text_tower}

    def against_float(towers: dict[str, torch.nn.Module], name: str) -> dict[str, Any]:
        quantized = replace(model, image_tower=towers["image"], text_tower=towers["text"])
        after = encode(replace(quantized.encoder(), name=name), data, pixels)
        return rows_of(score(after, after, data), score(before, before, data))

    partial = arguments.output.with_suffix(".partial.json")
    results: dict[str, Any] = json.loads(partial.read_text()) if partial.exists() else {}
    for name in arguments.recipes:
        if name in results:
            continue
        recipe = get_recipe(name)
        plain = {
            component: quantize_tower(tower, recipe, inputs[component], name, bar)
            for component, tower in float_towers.items()
        }
        work = arguments.output.with_suffix(f".{name}")
        found = recover(model, recipe, inputs, settings, work=work, track=bar)
        results[name] = {
            "without": against_float(plain, name),
            "recovered": against_float(found.towers, f"{name} recovered"),
            "facts": found.facts,
        }
        save_json(partial, results)
        shutil.rmtree(work)
        show(name, results[name])
    content = {
        "model": model.name,
        "weights_sha256": model.weights_sha256,
        "unlabelled": unlabelled.to_dict(),
        "settings": asdict(settings),
        "threads": arguments.threads,
        "recipes": results,
        "environment": asdict(this_environment()),
    }
    save_json(arguments.output, content)
    partial.unlink()


def show(name: str, result: dict[str, Any]) -> None:
    for which in ("without", "recovered"):
        row = result[which]["top1"]
        print(
            f"{name:14} {which:10} top1 {row['float']:.4f} -> {row['int8']:.4f}  {row['difference_points']:+.2f} "
            f"[{row['low_points']:+.2f}, {row['high_points']:+.2f}] points, {result['facts']['seconds']:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
