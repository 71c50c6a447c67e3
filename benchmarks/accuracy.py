"""What a recipe costs in accuracy on one checkpoint: float against INT8, image tower, text tower and both.

    python -m benchmarks accuracy street -o benchmarks/results/accuracy-street.json
    python -m benchmarks accuracy real   -o benchmarks/results/accuracy-real-tiny.json --shared ../shared/data
    python -m benchmarks accuracy street -o benchmarks/results/stress-street.json --stressed
    python -m benchmarks accuracy real   -o benchmarks/results/stress-real-tiny.json --stressed

`street`: the bundled CLIP on held-out scenes, calibrated on training scenes. `real`: clip-real-tiny on CIFAR-10's
10,000 test images and Flickr8k's test split, calibrated on 64 images and 100 captions of Flickr8k's dev split.
The budgeted result is what `vlmquant quantize --max-drop 0.3 --metric fidelity` finds on a development set: the
calibration pictures' own split, because neither test set may choose anything (0.3 points are 0.003 of mean cosine).
`--stressed` puts outliers into the model that change no output (`vlmquant.lab.stress`) and adds torch's dynamic
quantization, simulated and real. Every image and text is encoded once per precision, in batches of 32; "image" and
"text" combine INT8 rows of one tower with float rows of the other. A run that was stopped goes on from its
`.partial.json`.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.data import DATA, Data, add_data
from benchmarks.peers_build import on_torch, torch_dynamic
from benchmarks.results import ResultFile, add_output
from benchmarks.scoring import COMBINATIONS, against_float, encode, score, show, subject_of
from benchmarks.towers import simulated
from vlmquant import get_recipe, open_bundle
from vlmquant.bench.measure import bytes_on_disk
from vlmquant.budget.budget import Budget
from vlmquant.budget.search import quantize_within_budget
from vlmquant.build.build import quantize_model
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.models.encoder import DualEncoder
from vlmquant.models.heads import as_encoder
from vlmquant.progress import bar
from vlmquant.quantize.recipes.recipe import simulation_only

BUDGETED = "max-drop-0.3"
BUDGET = Budget(max_drop_points=0.3, metric="fidelity")
RECIPES = ("static-int8", BUDGETED, "dynamic-int8")
REAL_DYNAMIC = "torch-dynamic-real"
STRESS_RECIPES = ("torch-dynamic", REAL_DYNAMIC, "vanilla-w8a8", "static-int8", BUDGETED)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    add_output(parser)
    parser.add_argument("--stressed", action="store_true")
    parser.add_argument("--recipes", nargs="+")


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    data = DATA[arguments.data](arguments.shared).limited(arguments.limit)
    subject = subject_of(data, stress=arguments.stressed)
    before = encode(subject.model.encoder(), subject)
    protocols = [str(result.protocol) for result in score(before, before, data)]
    result = ResultFile(arguments.output, {**subject.facts(), "protocols": protocols})
    for name in arguments.recipes or (STRESS_RECIPES if arguments.stressed else RECIPES):
        if name in result.rows:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "bundle"
            encoder = quantized(name, subject.model, data, folder)
            size = bytes_on_disk(folder) if folder.exists() else None
            scores = against_float(encode(encoder, subject), before, data)
        result.add(name, {"engine": encoder.name, "bundle_bytes": size, **scores})
        for combination in COMBINATIONS:
            show(f"{name}, {combination}", scores[combination])
    result.save({"recipes": result.rows})


def quantized(name: str, model: ClipModel, data: Data, folder: Path) -> DualEncoder:
    """Return `model` quantized by what is called `name`, as a bundle in `folder` if it can be one."""
    if name == BUDGETED:
        return budgeted(model, data, folder)
    if name == REAL_DYNAMIC:
        return replace(
            model.encoder(),
            name=f"{model.name} by quantize_dynamic",
            image_tower=on_torch(torch_dynamic(model.image_tower)).run,
            text_tower=on_torch(torch_dynamic(model.text_tower)).run,
        )
    recipe = get_recipe(name)
    if simulation_only(recipe) is not None:
        return simulated(model, recipe, data.calibration).encoder()
    return as_encoder(open_bundle(quantize_model(model, recipe, data.calibration, folder, track=bar), threads=1))


def budgeted(model: ClipModel, data: Data, folder: Path) -> DualEncoder:
    """Search the fastest recipe inside `BUDGET`, write its bundle to `folder` and open it."""
    with tempfile.TemporaryDirectory() as scratch:
        development = data.development(Path(scratch))
        log = quantize_within_budget(model, data.calibration, development, BUDGET, folder, threads=1, track=bar)
    return replace(
        as_encoder(open_bundle(folder, threads=1)), name=f"{model.name}, {log.chosen}, held out: {log.confirmed}"
    )
