"""What portable weights cost: `static-int8` beside its form with unconstrained 8-bit weights, pair by pair.

    python -m benchmarks portable street -o benchmarks/results/portable-street.json
    python -m benchmarks portable real   -o benchmarks/results/portable-real-tiny.json --shared ../shared/data

Data, calibration and scores are those of `accuracy`. Both forms run in simulation, which adds products without
overflow on any CPU. Of street world 10,000 labelled scenes are drawn: two draws of the rounding noise of 8 bits differ
by a few images in 2,000.
"""

import argparse
from dataclasses import replace
from typing import Any

import torch

import streetworld
from benchmarks.data import DATA, Data, add_data
from benchmarks.results import ResultFile, add_output
from benchmarks.scoring import Rows, by_combination, cosines, encode, show, subject_of
from benchmarks.towers import simulated
from vlmquant import get_recipe
from vlmquant.progress import bar
from vlmquant.quantize.recipes.schemes import WeightScheme

STREET_SCENES = 10_000
PORTABLE = get_recipe("static-int8")
EIGHT_BITS = replace(PORTABLE, name="static-int8 without portable weights", weights=WeightScheme(portable=False))
FORMS = {"eight_bits": EIGHT_BITS, "portable": PORTABLE}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    add_output(parser)
    parser.add_argument("--stressed", action="store_true")


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    data = DATA[arguments.data](arguments.shared)
    if arguments.data == "street":
        data = with_more_scenes(data, arguments.limit or STREET_SCENES)
    subject = subject_of(data.limited(arguments.limit), stress=arguments.stressed)
    result = ResultFile(
        arguments.output, {**subject.facts(), "recipes": {name: recipe.to_dict() for name, recipe in FORMS.items()}}
    )
    before = encode(subject.model.encoder(), subject)
    forms = {
        name: encode(simulated(subject.model, recipe, subject.data.calibration).encoder(), subject)
        for name, recipe in FORMS.items()
    }
    changes = by_combination(forms["portable"], forms["eight_bits"], subject.data)
    result.save(
        {
            "cosine_to_float": {name: closeness(rows, before) for name, rows in forms.items()},
            "portable_minus_eight_bits": {
                combination: {metric: _renamed(row) for metric, row in rows.items()}
                for combination, rows in changes.items()
            },
        }
    )
    for combination, rows in changes.items():
        show(f"portable - eight bits, {combination}", rows)


def with_more_scenes(data: Data, count: int) -> Data:
    """Return the street data with `count` labelled scenes of the same test split."""
    labelled = streetworld.zero_shot_set(count, track=bar)
    return replace(data, images=labelled.images, labels=labelled.labels)


def closeness(after: Rows, before: Rows) -> dict[str, float]:
    """Return the mean and the least cosine of images and of texts to the float model's."""
    towers = {"image": cosines(after.images, before.images), "text": cosines(after.captions, before.captions)}
    means = {f"{tower}_mean": float(found.mean()) for tower, found in towers.items()}
    return {**means, **{f"{tower}_min": float(found.min()) for tower, found in towers.items()}}


def _renamed(row: dict[str, Any]) -> dict[str, Any]:
    names = {"float": "eight_bits", "int8": "portable"}
    return {names.get(name, name): value for name, value in row.items()}
