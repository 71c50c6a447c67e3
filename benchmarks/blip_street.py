"""What quantization costs the bundled street BLIPs: captions of 1,000 and questions about 500 held-out pictures.

    python benchmarks/blip_street.py -o benchmarks/results/blip-street.json

Every row is a bundle, both halves quantized, on the engines that "auto" takes, against the float model in torch on
the same pictures: CIDEr, BLEU-4, VQA accuracy with 95 % paired intervals, and the share of equal tokens. Calibrated
on 64 pictures of the training split. A run that was stopped goes on from the `.partial.json` beside the output.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from vlmquant import get_recipe, streetworld
from vlmquant.bench.environment import this_environment
from vlmquant.build.build import quantize_model
from vlmquant.bundle.manifest import Manifest
from vlmquant.bundle.open import open_bundle
from vlmquant.checkpoints import load_blip
from vlmquant.data.coco import read_vqa
from vlmquant.models.blip_runner import BlipRunner
from vlmquant.models.generate import GenerationOptions
from vlmquant.progress import bar
from vlmquant.streetworld.questions import IMAGE_NAME, write_questions
from vlmquant.tasks.answering import score_answers
from vlmquant.tasks.captioning import compare_captions, score_captions, token_agreement
from vlmquant.tasks.compare import compare
from vlmquant.tasks.result import save_json

CAPTIONED, QUESTIONED, BATCH = 1000, 500, 32
OPTIONS = {"captioning": GenerationOptions(max_new_tokens=56), "vqa": GenerationOptions(max_new_tokens=10)}
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


def caption_ids(runner: BlipRunner, images: Sequence[Any]) -> Ids:
    starts = range(0, len(images), BATCH)
    return [
        ids
        for i in bar(starts, f"Captions, {runner.name}", len(starts))
        for ids in runner.caption_ids(images[i : i + BATCH])
    ]


def answer_ids(runner: BlipRunner, data: Any) -> Ids:
    found: Ids = []
    for i in bar(range(0, len(data.questions), 64), f"Answers, {runner.name}", -(-len(data.questions) // 64)):
        asked = data.questions[i : i + 64]
        found += runner.answer_ids([data.images[q.image_index] for q in asked], [q.text for q in asked])
    return found


class Measured:
    """Float and quantized models of one kind on one set of pictures."""

    def __init__(self, kind: str, scratch: Path) -> None:
        self.kind = kind
        self.model = load_blip(
            streetworld.checkpoint("street-blip-captions" if kind == "captioning" else "street-blip-vqa")
        )
        if kind == "captioning":
            self.data: Any = streetworld.retrieval_set(CAPTIONED, track=bar)
        else:
            questions, annotations, images = write_questions(scratch / "questions", QUESTIONED, track=bar)
            self.data = read_vqa(questions, annotations, images, image_name=IMAGE_NAME)

    def written(self, runner: BlipRunner) -> Ids:
        runner = replace(runner, batch_size=BATCH)
        return caption_ids(runner, self.data.images) if self.kind == "captioning" else answer_ids(runner, self.data)

    def changes(self, ids: Ids, reference: Ids) -> dict[str, Any]:
        after, before = self._score(ids), self._score(reference)
        if self.kind == "captioning":
            found = {c.metric: {**asdict(c), "relative": c.relative} for c in compare_captions(after, before)}
        else:
            (change,) = compare(after, before)
            kept = ("reference", "candidate", "difference", "p_value", "agreement", "samples")
            found = {change.metric: {name: value for name, value in change.to_dict().items() if name in kept}}
        return {"changes": found, "equal_tokens": token_agreement(ids, reference)}

    def _score(self, ids: Ids) -> Any:
        texts = [self.model.tokenizer.decode(row) for row in ids]
        if self.kind == "vqa":
            return score_answers("", texts, self.data)
        names = [str(index) for index in range(CAPTIONED)]
        return score_captions("", texts, self.data.captions, ids=names, dataset="street retrieval test")


def recipes(kind: str, vision: str, text: str) -> dict[str, Any]:
    texts = ("decoder",) if kind == "captioning" else ("question_encoder", "decoder")
    return {"vision": get_recipe(vision), **{component: get_recipe(text) for component in texts}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--mixes", nargs="+", default=list(MIXES), choices=MIXES)
    parser.add_argument("--engine", default="auto")
    arguments = parser.parse_args()
    partial = arguments.output.with_suffix(".partial.json")
    done: dict[str, Any] = json.loads(partial.read_text()) if partial.is_file() else {}
    results: dict[str, Any] = {}
    calibration = streetworld.calibration_set(64)
    with tempfile.TemporaryDirectory() as name:
        for kind in OPTIONS:
            measured = Measured(kind, Path(name))
            rows = done.setdefault(kind, {})
            if "float32" not in rows:
                rows["float32"] = {"ids": measured.written(measured.model.runner(OPTIONS[kind]))}
                save_json(partial, done)
            for mix in arguments.mixes:
                if mix not in rows:
                    folder = Path(name) / kind / mix.replace(" ", "-").replace(",", "")
                    quantize_model(measured.model, recipes(kind, *MIXES[mix]), calibration, folder, track=bar)
                    runner = open_bundle(folder, engine=arguments.engine, options=OPTIONS[kind])
                    size = Manifest.read(folder).total_bytes
                    rows[mix] = {"ids": measured.written(runner), "bundle_bytes": size, "engine": runner.name}
                    save_json(partial, done)
                row = measured.changes(rows[mix]["ids"], rows["float32"]["ids"])
                results.setdefault(mix, {})[kind] = {**{k: v for k, v in rows[mix].items() if k != "ids"}, **row}
                for metric in ("CIDEr", "BLEU-4", "vqa_accuracy"):
                    if metric in row["changes"]:
                        c = row["changes"][metric]
                        d = c["difference"]
                        print(
                            f"{mix:34} {metric:13} {c['reference']:.4f} -> {c['candidate']:.4f} "
                            f"{d['estimate']:+.4f} [{d['low']:+.4f}, {d['high']:+.4f}]  "
                            f"equal tokens {row['equal_tokens']:.4f}",
                            flush=True,
                        )
    content = {
        "split": "street world test",
        "pictures": {"captioning": CAPTIONED, "vqa": QUESTIONED},
        "calibration": calibration.to_dict(),
        "mixes": results,
        "environment": asdict(this_environment()),
    }
    save_json(arguments.output, content)
    partial.unlink()


if __name__ == "__main__":
    main()
