"""What leaving out heads and channels costs and saves, in 8 bits, with and without data; scores, MACs and bytes.

    python -m benchmarks pruning real   -o benchmarks/results/pruning-real-tiny.json --shared ../shared/data
    python -m benchmarks pruning street -o benchmarks/results/pruning-street.json

Every form is static-int8 of both towers, simulated in torch. "pruned": importance, allocation and closed-form fit on
calibration pictures alone. "tuned": then taught by the whole float model on unlabelled pictures (`vlmquant recover`).
"without data": the same two on noise in place of pictures and on the built-in prompts, as one would have to without any
data; it is what failed in DQ-CLIP. None of the unlabelled pictures is scored. A run that was stopped goes on from its
`.partial.json` and from the tuning's own state beside it.
"""

import argparse
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.data import DATA, add_data, noise
from benchmarks.results import ResultFile, add_output
from benchmarks.scoring import Rows, Subject, against_float, encode, show, subject_of
from benchmarks.towers import tower_of, with_towers
from vlmquant import CalibrationSet, get_recipe
from vlmquant.build.build import write_bundle
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.checkpoints.clip.inputs import calibration_inputs
from vlmquant.progress import bar
from vlmquant.quantize.apply import pruned_first, quantize_tower
from vlmquant.quantize.prunable import macs_of, units
from vlmquant.quantize.recipes.recipe import COMPONENTS, Recipe, pruned
from vlmquant.quantize.recovery.recover import recover
from vlmquant.quantize.recovery.tuning import RecoverySettings

RECIPE, SHARES = "static-int8", (0.3, 0.5)


@dataclass(frozen=True)
class Form:
    """So much pruned; tuned or not; with pictures or with noise."""

    share: float
    tuned: bool
    data: bool

    @property
    def name(self) -> str:
        """What its row is called."""
        words = ["tuned" if self.tuned else "pruned", *(() if self.data else ("without data",))]
        return f"{100 * self.share:g} %, {', '.join(words)}" if self.share else "nothing pruned"


FORMS = (
    Form(0, tuned=False, data=True),
    *(Form(share, tuned, data) for share in SHARES for data in (True, False) for tuned in (False, True)),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    add_output(parser)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    subject = subject_of(DATA[arguments.data](arguments.shared).limited(arguments.limit))
    settings = RecoverySettings(steps=arguments.steps, device="cpu")
    pictures = subject.data.unlabelled()
    unlabelled = {True: pictures, False: noise(len(pictures.images))}
    head = {
        **subject.facts(),
        "unlabelled": pictures.to_dict(),
        "settings": asdict(settings),
        "recipe": get_recipe(RECIPE).to_dict(),
        "labelled_images": len(subject.data.images),
        "captioned_images": len(subject.data.captioned),
    }
    result = ResultFile(arguments.output, head)
    before = encode(subject.model.encoder(), subject)
    for form in FORMS:
        if form.name not in result.rows:
            work = arguments.output.with_suffix(f".{form.name.replace(' ', '-')}")
            row = measured(form, subject, before, unlabelled[form.data], settings, work)
            result.add(form.name, row)
            show(form.name, row["both"])
    result.save({"rows": result.rows})


def measured(
    form: Form, subject: Subject, before: Rows, unlabelled: CalibrationSet, settings: RecoverySettings, work: Path
) -> dict[str, Any]:
    """Return the row of one form."""
    make = _tuned if form.tuned else _pruned
    calibration = subject.data.calibration if form.data else unlabelled
    made, facts = make(subject.model, pruned(get_recipe(RECIPE), form.share), calibration, unlabelled, settings, work)
    after = encode(made.encoder(), subject)
    return {**against_float(after, before, subject.data), **facts}


def _pruned(
    model: ClipModel, recipe: Recipe, calibration: CalibrationSet, *_: object
) -> tuple[ClipModel, dict[str, Any]]:
    towers, left = {}, {}
    for component in COMPONENTS:
        inputs = calibration_inputs(model, calibration, component)
        whole = tower_of(model, component)
        smaller, rest = pruned_first(whole, recipe, inputs, f"{recipe.name}, {component}", bar)
        left[component] = (
            macs_of(smaller, inputs[0], units(smaller)).total / macs_of(whole, inputs[0], units(whole)).total
        )
        towers[component] = (quantize_tower(smaller, rest, inputs, f"{recipe.name}, {component}", bar), recipe)
    facts = {"macs_left": left, "bundle_bytes": _bundle_bytes(model, towers, calibration)}
    return with_towers(model, towers["image"][0], towers["text"][0], f"{model.name} {recipe.name}"), facts


def _bundle_bytes(model: ClipModel, towers: Mapping[str, Any], calibration: CalibrationSet) -> int:
    with tempfile.TemporaryDirectory() as scratch:
        bundle = write_bundle(model, model.prepare(calibration), towers, Path(scratch) / "bundle", track=bar)
        return sum(path.stat().st_size for path in bundle.iterdir())


def _tuned(
    model: ClipModel,
    recipe: Recipe,
    _: CalibrationSet,
    unlabelled: CalibrationSet,
    settings: RecoverySettings,
    work: Path,
) -> tuple[ClipModel, dict[str, Any]]:
    inputs = {component: calibration_inputs(model, unlabelled, component) for component in COMPONENTS}
    found = recover(model, recipe, inputs, settings, work=work, track=bar)
    shutil.rmtree(work)
    return with_towers(model, found.towers["image"], found.towers["text"], f"{model.name} {recipe.name} tuned"), {
        "facts": found.facts
    }
