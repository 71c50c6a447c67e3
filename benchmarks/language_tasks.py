"""The two tasks that need language on top of CLIP, with the CLIP under them float and quantized, on street world.

    python benchmarks/language_tasks.py guided -o benchmarks/results/guided-street.json
    python benchmarks/language_tasks.py coattention -o benchmarks/results/coattention-street.json

"guided": captions written by the bundled GPT-2 and steered by CLIP, 100 test pictures, against five captions each;
CLIPScore (Hessel et al. 2021: 2.5 max(cos, 0)) always by the float CLIP. "coattention": VQA accuracy of the bundled
MCAN on the questions about 500 test pictures. Every CLIP is a simulation in torch with both towers quantized,
calibrated on 64 training scenes. A run that was stopped goes on from the `.partial.json` beside the output.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vlmquant import CalibrationSet, get_recipe, load_model, streetworld
from vlmquant.bench.environment import this_environment
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.data.coco import read_vqa
from vlmquant.lab.coattention.answerer import McanAnswerer
from vlmquant.lab.coattention.features import ClipFeatures
from vlmquant.lab.gpt2 import load_gpt2
from vlmquant.lab.guided import GuidedOptions, guided_captions
from vlmquant.models.encoder import DualEncoder
from vlmquant.models.preprocess import preprocess
from vlmquant.progress import bar
from vlmquant.quantize.apply import quantize_tower
from vlmquant.streetworld.questions import IMAGE_NAME, write_questions
from vlmquant.tasks.answering import METRIC, score_answers, write_answers
from vlmquant.tasks.captioning import CaptioningResult, compare_captions, score_captions
from vlmquant.tasks.compare import compare
from vlmquant.tasks.result import save_json

FLOAT = "float32"
RECIPES = (
    FLOAT, "static-int8", "vanilla-w8a8", "vanilla-w6a6", "w4a8", "vanilla-w4a4", "twin-hessian-w4a4", "vanilla-w3a3",
    "vanilla-w2a2",
)  # fmt: skip
PICTURES, QUESTION_PICTURES, BATCH = 100, 500, 8
GUIDED = GuidedOptions(beams=3, candidates=12, guidance=0.1, max_new_tokens=40)
# The weight of the guidance was chosen among four settings on 12 dev pictures.

Towers = tuple[nn.Module, nn.Module]


def towers_of(model: ClipModel, recipe: str, calibration: CalibrationSet) -> Towers:
    if recipe == FLOAT:
        return model.image_tower, model.text_tower
    pixels = np.stack([preprocess(image, model.image_spec) for image in calibration.images])
    images = [torch.from_numpy(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
    texts = [torch.from_numpy(model.tokenizer.encode_batch([text])) for text in calibration.texts]
    chosen = get_recipe(recipe)
    return (
        quantize_tower(model.image_tower, chosen, images, f"{recipe}, image", bar),
        quantize_tower(model.text_tower, chosen, texts, f"{recipe}, text", bar),
    )


def encoder_of(model: ClipModel, towers: Towers, name: str) -> DualEncoder:
    def run(tower: nn.Module) -> Callable[[Any], np.ndarray]:
        def call(inputs: Any) -> np.ndarray:
            with torch.inference_mode():
                return np.asarray(tower(torch.from_numpy(inputs)).numpy(), dtype=np.float32)

        return call

    image, text = towers
    return DualEncoder(
        name=name,
        image_tower=run(image),
        text_tower=run(text),
        image_spec=model.image_spec,
        tokenizer=model.tokenizer,
        logit_scale=model.logit_scale,
        batch_size=256,
    )


class Guided:
    """Captions steered by CLIP."""

    def __init__(self, model: ClipModel, scratch: Path) -> None:
        self.model, self.data = model, streetworld.retrieval_set(PICTURES)
        self.language = load_gpt2(streetworld.checkpoint("street-gpt2"))
        self.judge = encoder_of(model, (model.image_tower, model.text_tower), FLOAT)
        self.pictures = self.judge.encode_images(self.data.images)

    def measure(self, recipe: str, towers: Towers) -> dict[str, Any]:
        encoder = encoder_of(self.model, towers, recipe)
        captions = guided_captions(encoder, self.language, self.data.images, GUIDED, track=bar)
        texts = self.judge.encode_texts([f"A photo depicts {caption}" for caption in captions])
        return {
            "captions": captions,
            "clip_score": float(np.mean(2.5 * np.maximum(np.sum(self.pictures * texts, 1), 0))),
        }

    def compare(self, row: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
        after, before = (self._score(captions["captions"]) for captions in (row, reference))
        return {change.metric: asdict(change) for change in compare_captions(after, before)}

    def _score(self, captions: Sequence[str]) -> CaptioningResult:
        ids = [str(index) for index in range(PICTURES)]
        return score_captions("", captions, self.data.captions, ids=ids, dataset="street retrieval test")


class Coattention:
    """Questions answered by MCAN."""

    def __init__(self, model: ClipModel, scratch: Path) -> None:
        self.model = model
        questions, annotations, images = write_questions(scratch / "questions", QUESTION_PICTURES, track=bar)
        self.data = read_vqa(questions, annotations, images, image_name=IMAGE_NAME)

    def measure(self, recipe: str, towers: Towers) -> dict[str, Any]:
        answerer = McanAnswerer.load(streetworld.checkpoint("street-mcan"), ClipFeatures(recipe, self.model, *towers))
        answers = write_answers(answerer, self.data, batch_size=64, track=bar)
        return {
            "answers": answers,
            "by_answer_type": score_answers(recipe, answers, self.data).details["by_answer_type"],
        }

    def compare(self, row: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
        after, before = (score_answers("", answers["answers"], self.data) for answers in (row, reference))
        (change,) = compare(after, before)
        kept = ("metric", "reference", "candidate", "difference", "p_value", "agreement", "samples")
        return {METRIC: {name: value for name, value in change.to_dict().items() if name in kept}}


TASKS = {"guided": Guided, "coattention": Coattention}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, calibration = load_model(streetworld.checkpoint()), streetworld.calibration_set(64)
    partial = arguments.output.with_suffix(".partial.json")
    rows: dict[str, Any] = json.loads(partial.read_text()) if partial.is_file() else {}
    with tempfile.TemporaryDirectory() as scratch:
        task = TASKS[arguments.task](model, Path(scratch))
        for recipe in dict.fromkeys((FLOAT, *arguments.recipes)):
            if recipe not in rows:
                rows[recipe] = task.measure(recipe, towers_of(model, recipe, calibration))
                save_json(partial, rows)
            for metric, change in task.compare(rows[recipe], rows[FLOAT]).items():
                difference = change["difference"]
                print(
                    f"{recipe:18} {metric:14} {change['reference']:.4f} -> {change['candidate']:.4f}  "
                    f"{difference['estimate']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}]",
                    flush=True,
                )
        results = {
            recipe: {
                **{name: value for name, value in row.items() if name not in ("captions", "answers")},
                "against_float": task.compare(row, rows[FLOAT]),
            }
            for recipe, row in rows.items()
        }
        examples = {recipe: row["captions"][:3] for recipe, row in rows.items() if "captions" in row}
    content = {
        "task": arguments.task,
        "split": "street world test",
        "weights_sha256": model.weights_sha256,
        "calibration": calibration.to_dict(),
        "recipes": results,
        "examples": examples,
        "environment": asdict(this_environment()),
    }
    save_json(arguments.output, content)
    partial.unlink()


if __name__ == "__main__":
    main()
