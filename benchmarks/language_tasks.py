"""The two tasks that need language on top of CLIP, with the CLIP under them float and quantized, on street world.

    python -m benchmarks language_tasks guided -o benchmarks/results/guided-street.json
    python -m benchmarks language_tasks coattention -o benchmarks/results/coattention-street.json

"guided": captions written by the bundled GPT-2 and steered by CLIP, 100 test pictures, against five captions each;
CLIPScore (Hessel et al. 2021: 2.5 max(cos, 0)) always by the float CLIP. "coattention": VQA accuracy of the bundled
MCAN on the questions about 500 test pictures. Every CLIP is a simulation in torch with both towers quantized,
calibrated on 64 training scenes. A run that was stopped goes on from the `.partial.json` beside the output.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

import streetworld
from benchmarks.data import CALIBRATION_IMAGES, street_questions
from benchmarks.results import ResultFile, add_output
from benchmarks.scoring import answer_changes, caption_changes, show_changes
from benchmarks.towers import simulated
from vlmquant import get_recipe, load_model
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.lab.coattention.answerer import McanAnswerer
from vlmquant.lab.coattention.features import ClipFeatures
from vlmquant.lab.gpt2 import load_gpt2
from vlmquant.lab.guided import GuidedOptions, guided_captions
from vlmquant.models.encoder import DualEncoder
from vlmquant.progress import bar
from vlmquant.tasks.answering import score_answers, write_answers

FLOAT = "float32"
RECIPES = (
    FLOAT, "static-int8", "vanilla-w8a8", "vanilla-w6a6", "w4a8", "vanilla-w4a4", "twin-hessian-w4a4", "vanilla-w3a3",
    "vanilla-w2a2",
)  # fmt: skip
PICTURES, QUESTION_PICTURES = 100, 500
GUIDED = GuidedOptions(beams=3, candidates=12, guidance=0.1, max_new_tokens=40)
# The weight of the guidance was chosen among four settings on 12 dev pictures.


class Task(Protocol):
    """A task over one CLIP; `written` names what of a row is long and stays out of the result file."""

    written: str

    def measure(self, name: str, model: ClipModel) -> dict[str, Any]:
        """Return the row of one form of the CLIP."""

    def compare(self, row: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
        """Return the change of each score against the reference."""


class Guided:
    """Captions steered by CLIP."""

    written = "captions"

    def __init__(self, model: ClipModel, scratch: Path) -> None:
        self.data = streetworld.retrieval_set(PICTURES)
        self.language = load_gpt2(streetworld.checkpoint("street-gpt2"))
        self.judge = self._encoder(model)
        self.pictures = self.judge.encode_images(self.data.images)

    def measure(self, name: str, model: ClipModel) -> dict[str, Any]:
        captions = guided_captions(self._encoder(model), self.language, self.data.images, GUIDED, track=bar)
        texts = self.judge.encode_texts([f"A photo depicts {caption}" for caption in captions])
        return {
            "captions": captions,
            "clip_score": float(np.mean(2.5 * np.maximum(np.sum(self.pictures * texts, 1), 0))),
        }

    def compare(self, row: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
        return caption_changes(row["captions"], reference["captions"], self.data.captions)

    def _encoder(self, model: ClipModel) -> DualEncoder:
        return replace(model.encoder(), batch_size=256)


class Coattention:
    """Questions answered by MCAN."""

    written = "answers"

    def __init__(self, model: ClipModel, scratch: Path) -> None:
        self.data = street_questions(scratch / "questions", QUESTION_PICTURES)

    def measure(self, name: str, model: ClipModel) -> dict[str, Any]:
        features = ClipFeatures(name, model, model.image_tower, model.text_tower)
        answerer = McanAnswerer.load(streetworld.checkpoint("street-mcan"), features)
        answers = write_answers(answerer, self.data, batch_size=64, track=bar)
        return {
            "answers": answers,
            "by_answer_type": score_answers(name, answers, self.data).details["by_answer_type"],
        }

    def compare(self, row: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
        return answer_changes(row["answers"], reference["answers"], self.data)


TASKS: dict[str, Callable[[ClipModel, Path], Task]] = {"guided": Guided, "coattention": Coattention}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", choices=TASKS)
    add_output(parser)
    parser.add_argument("--recipes", nargs="+", default=RECIPES)


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    model, calibration = load_model(streetworld.checkpoint()), streetworld.calibration_set(CALIBRATION_IMAGES)
    head = {
        "task": arguments.task,
        "split": "street world test",
        "weights_sha256": model.weights_sha256,
        "calibration": calibration.to_dict(),
    }
    result = ResultFile(arguments.output, head)
    with tempfile.TemporaryDirectory() as scratch:
        task = TASKS[arguments.task](model, Path(scratch))
        for name in dict.fromkeys((FLOAT, *arguments.recipes)):
            if name not in result.rows:
                form = model if name == FLOAT else simulated(model, get_recipe(name), calibration)
                result.add(name, task.measure(name, form))
            show_changes(name, task.compare(result.rows[name], result.rows[FLOAT]))
        recipes = {
            name: {
                **{what: value for what, value in row.items() if what != task.written},
                "against_float": task.compare(row, result.rows[FLOAT]),
            }
            for name, row in result.rows.items()
        }
    examples = {name: row["captions"][:3] for name, row in result.rows.items() if "captions" in row}
    result.save({"recipes": recipes, "examples": examples})
