"""What portable weights cost: `static-int8` beside its form with unconstrained 8-bit weights, pair by pair.

    python benchmarks/portable.py street -o benchmarks/results/portable-street.json
    python benchmarks/portable.py real   -o benchmarks/results/portable-real-tiny.json --shared ../shared/data

Data, calibration and scores are those of `accuracy.py`. Both forms run in simulation, which adds products without
overflow on any CPU. Of street world 10,000 labelled scenes are drawn: two draws of the rounding noise of 8 bits differ
by a few images in 2,000.
"""

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import DATA, Data, encode, limited, preprocessed, rows_of, score, show

from vlmquant import get_recipe, load_model
from vlmquant.bench.environment import this_environment
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.checkpoints.clip_inputs import calibration_inputs
from vlmquant.lab.stress import stressed
from vlmquant.models.encoder import DualEncoder
from vlmquant.progress import bar
from vlmquant.quantize.apply import quantize_tower
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.recipes.schemes import WeightScheme
from vlmquant.tasks.result import save_json

PORTABLE = get_recipe("static-int8")
STREET_SCENES = 10_000
EIGHT_BITS = replace(PORTABLE, name="static-int8 without portable weights", weights=WeightScheme(portable=False))


def simulated(model: ClipModel, recipe: Recipe, data: Data) -> DualEncoder:
    """Return `model` with both towers quantized by `recipe`, in torch."""

    def quantized(tower: torch.nn.Module, component: str) -> torch.nn.Module:
        return quantize_tower(tower, recipe, calibration_inputs(model, data.calibration, component), recipe.name)

    towers = replace(
        model, image_tower=quantized(model.image_tower, "image"), text_tower=quantized(model.text_tower, "text")
    )
    return replace(towers.encoder(), name=f"{model.name} {recipe.name}")


def more_scenes(data: Data) -> Data:
    """Return the street data with `STREET_SCENES` labelled scenes of the same test split."""
    from vlmquant import streetworld

    labelled = streetworld.zero_shot_set(STREET_SCENES, track=bar)
    return replace(data, images=labelled.images, labels=np.asarray(labelled.labels))


def _renamed(row: dict[str, Any]) -> dict[str, Any]:
    names = {"float": "eight_bits", "int8": "portable"}
    return {names.get(name, name): value for name, value in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=list(DATA))
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--stressed", action="store_true")
    parser.add_argument("--limit", type=int, help="only the first so many images of either set, for a trial")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = DATA[arguments.data](arguments.shared)
    data = limited(more_scenes(data) if arguments.data == "street" else data, arguments.limit)
    model = load_model(data.checkpoint)
    model = stressed(model) if arguments.stressed else model
    pixels = preprocessed(data, model.image_spec)
    before = encode(model.encoder(), data, pixels)
    forms = {
        name: encode(simulated(model, recipe, data), data, pixels)
        for name, recipe in (("eight_bits", EIGHT_BITS), ("portable", PORTABLE))
    }
    eight, portable = forms["eight_bits"], forms["portable"]
    reference = score(eight, eight, data)
    scored = {
        "image": score(portable, eight, data),
        "text": score(eight, portable, data),
        "both": score(portable, portable, data),
    }
    compared = {components: rows_of(results, reference) for components, results in scored.items()}
    content = {
        "model": model.name,
        "weights_sha256": model.weights_sha256,
        "calibration": data.calibration.to_dict(),
        "recipes": {"eight_bits": EIGHT_BITS.to_dict(), "portable": PORTABLE.to_dict()},
        "cosine_to_float": {
            name: {
                "image_mean": float(np.mean(np.sum(before.images * rows.images, axis=1))),
                "image_min": float(np.min(np.sum(before.images * rows.images, axis=1))),
                "text_mean": float(np.mean(np.sum(before.captions * rows.captions, axis=1))),
                "text_min": float(np.min(np.sum(before.captions * rows.captions, axis=1))),
            }
            for name, rows in forms.items()
        },
        "portable_minus_eight_bits": {
            components: {metric: _renamed(row) for metric, row in rows.items()} for components, rows in compared.items()
        },
        "environment": asdict(this_environment()),
    }
    save_json(arguments.output, content)
    show("portable - eight bits", compared)


if __name__ == "__main__":
    main()
