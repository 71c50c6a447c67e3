"""What a short tuning without labels (`vlmquant recover`) wins back at few bits, both towers, simulated in torch.

    python -m benchmarks recovery real   -o benchmarks/results/recovery-real-tiny.json --steps 150
    python -m benchmarks recovery street -o benchmarks/results/recovery-street.json

`real`: tuned on photographs of Flickr8k's dev split and of COCO, scored on CIFAR-10's and Flickr8k's test pictures, of
which the tuning sees none. `street`: tuned on 512 training scenes and their captions, scored on held-out scenes. The
recipes are vanilla ones: the point is what tuning adds. A run that was stopped goes on from its `.partial.json`, its
tuning from its own state beside that.
"""

import argparse
import shutil
from dataclasses import asdict
from typing import Any

import torch

from benchmarks.data import DATA, add_data
from benchmarks.results import ResultFile, add_output
from benchmarks.scoring import compared, encode, score, show, subject_of
from benchmarks.towers import simulated, with_towers
from vlmquant import get_recipe
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.checkpoints.clip.inputs import calibration_inputs
from vlmquant.progress import bar
from vlmquant.quantize.recipes.recipe import COMPONENTS
from vlmquant.quantize.recovery.recover import recover
from vlmquant.quantize.recovery.tuning import RecoverySettings

RECIPES = ("vanilla-w4a4", "vanilla-w3a3")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    add_output(parser)
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    subject = subject_of(DATA[arguments.data](arguments.shared).limited(arguments.limit))
    unlabelled = subject.data.unlabelled()
    model, settings = subject.model, RecoverySettings(steps=arguments.steps, device="cpu")
    before = encode(model.encoder(), subject)
    protocols = [str(result.protocol) for result in score(before, before, subject.data)]
    head = {
        "model": model.name,
        "weights_sha256": model.weights_sha256,
        "unlabelled": unlabelled.to_dict(),
        "protocols": protocols,
        "settings": asdict(settings),
        "threads": arguments.threads,
    }
    result = ResultFile(arguments.output, head)
    inputs = {component: calibration_inputs(model, unlabelled, component) for component in COMPONENTS}

    def scores(form: ClipModel) -> dict[str, Any]:
        after = encode(form.encoder(), subject)
        return compared(score(after, after, subject.data), score(before, before, subject.data))

    for name in arguments.recipes:
        if name in result.rows:
            continue
        recipe, work = get_recipe(name), arguments.output.with_suffix(f".{name}")
        without = scores(simulated(model, recipe, unlabelled))
        found = recover(model, recipe, inputs, settings, work=work, track=bar)
        tuned = with_towers(model, found.towers["image"], found.towers["text"], f"{model.name} {name} recovered")
        recovered = scores(tuned)
        result.add(name, {"without": without, "recovered": recovered, "facts": found.facts})
        shutil.rmtree(work)
        show(f"{name} without recovery", without)
        show(f"{name} recovered in {found.facts['seconds']:.0f} s", recovered)
    result.save({"recipes": result.rows})
