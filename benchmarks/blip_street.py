"""What quantization costs the bundled street BLIPs: captions of 1,000 and questions about 500 held-out pictures.

    python -m benchmarks blip_street -o benchmarks/results/blip-street.json

Every row is a bundle, both halves quantized, on the engines that "auto" takes, against the float model in torch on
the same pictures: CIDEr, BLEU-4, VQA accuracy with 95 % paired intervals, and the share of equal tokens. Calibrated
on 64 pictures of the training split. A run that was stopped goes on from the `.partial.json` beside the output.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import streetworld
from benchmarks.data import CALIBRATION_IMAGES, street_questions
from benchmarks.results import ResultFile, add_output
from benchmarks.scoring import answer_changes, caption_changes, show_changes
from vlmquant import CalibrationSet, get_recipe
from vlmquant.build.build import quantize_model
from vlmquant.bundle.manifest import Manifest
from vlmquant.bundle.open import open_bundle
from vlmquant.checkpoints import load_blip
from vlmquant.models.generate import GenerationOptions
from vlmquant.models.heads import as_writer
from vlmquant.models.writer import Writer
from vlmquant.progress import bar
from vlmquant.tasks.captioning import token_agreement

CAPTIONED, QUESTIONED, BATCH = 1000, 500, 32
MIXES: dict[str, tuple[str, str]] = {
    "static-int8": ("static-int8", "static-int8"),
    "dynamic-int8": ("dynamic-int8", "dynamic-int8"),
    "static vision, dynamic text": ("static-int8", "dynamic-int8"),
    "static vision, int8-weights text": ("static-int8", "int8-weights"),
    "static vision, int4-weights text": ("static-int8", "int4-weights"),
    "w4a8": ("w4a8", "w4a8"),
}
"""Recipe of the vision component, and of every component that reads or writes text."""

Ids = list[list[int]]


class Captions:
    """The captioning model on pictures of the retrieval set."""

    options = GenerationOptions(max_new_tokens=56)
    reads_or_writes_text = ("decoder",)

    def __init__(self, scratch: Path) -> None:
        self.model = load_blip(streetworld.checkpoint("street-blip-captions"))
        self.data = streetworld.retrieval_set(CAPTIONED, track=bar)

    def written(self, runner: Writer) -> Ids:
        starts = bar(range(0, CAPTIONED, BATCH), f"Captions, {runner.name}")
        return [ids for start in starts for ids in runner.caption_ids(self.data.images[start : start + BATCH])]

    def changes(self, texts: list[str], before: list[str]) -> dict[str, Any]:
        return caption_changes(texts, before, self.data.captions)


class Answers:
    """The answering model on the questions about held-out pictures."""

    options = GenerationOptions(max_new_tokens=10)
    reads_or_writes_text = ("question_encoder", "decoder")

    def __init__(self, scratch: Path) -> None:
        self.model = load_blip(streetworld.checkpoint("street-blip-vqa"))
        self.data = street_questions(scratch / "questions", QUESTIONED)

    def written(self, runner: Writer) -> Ids:
        found: Ids = []
        for start in bar(range(0, len(self.data.questions), BATCH), f"Answers, {runner.name}"):
            asked = self.data.questions[start : start + BATCH]
            found += runner.answer_ids([self.data.images[q.image_index] for q in asked], [q.text for q in asked])
        return found

    def changes(self, texts: list[str], before: list[str]) -> dict[str, Any]:
        return answer_changes(texts, before, self.data)


KINDS: dict[str, type[Captions] | type[Answers]] = {"captioning": Captions, "vqa": Answers}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument("--mixes", nargs="+", default=list(MIXES), choices=MIXES)
    parser.add_argument("--engine", default="auto")


def run(arguments: argparse.Namespace) -> None:
    calibration = streetworld.calibration_set(CALIBRATION_IMAGES)
    head = {
        "split": "street world test",
        "pictures": {"captioning": CAPTIONED, "vqa": QUESTIONED},
        "engine": arguments.engine,
        "calibration": calibration.to_dict(),
    }
    result = ResultFile(arguments.output, head)
    mixes: dict[str, dict[str, Any]] = {mix: {} for mix in arguments.mixes}
    with tempfile.TemporaryDirectory() as name:
        for kind, make in KINDS.items():
            subject = make(Path(name))
            reference = f"{kind}, float32"
            if reference not in result.rows:
                runner = subject.model.runner(subject.options)
                result.add(reference, {"ids": subject.written(replace(runner, batch_size=BATCH))})
            for mix in arguments.mixes:
                key = f"{kind}, {mix}"
                if key not in result.rows:
                    result.add(key, quantized(subject, mix, calibration, Path(name) / key, arguments.engine))
                row, before = result.rows[key], result.rows[reference]["ids"]
                found = against_float(subject, row["ids"], before)
                mixes[mix][kind] = {"bundle_bytes": row["bundle_bytes"], "engine": row["engine"], **found}
                show_changes(mix, found["changes"])
                print(f"{mix:34} equal tokens {found['equal_tokens']:.4f}", flush=True)
    result.save({"mixes": mixes})


def quantized(
    subject: Captions | Answers, mix: str, calibration: CalibrationSet, folder: Path, engine: str
) -> dict[str, Any]:
    """Return what the bundle of one mix, written to `folder`, writes on `engine`: token ids."""
    vision, text = (get_recipe(name) for name in MIXES[mix])
    recipes = {"vision": vision, **dict.fromkeys(subject.reads_or_writes_text, text)}
    quantize_model(subject.model, recipes, calibration, folder, track=bar)
    runner = replace(as_writer(open_bundle(folder, engine=engine, options=subject.options)), batch_size=BATCH)
    return {
        "ids": subject.written(runner),
        "bundle_bytes": Manifest.read(folder).total_bytes,
        "engine": runner.name,
    }


def against_float(subject: Captions | Answers, ids: Ids, before: Ids) -> dict[str, Any]:
    """Return the changes of every score, and the share of equal tokens."""
    after_texts, before_texts = ([subject.model.tokenizer.decode(row) for row in rows] for rows in (ids, before))
    return {
        "changes": subject.changes(after_texts, before_texts),
        "equal_tokens": token_agreement(ids, before),
    }
