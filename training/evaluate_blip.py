"""Scores the bundled street BLIPs (float, greedy) and writes training/results-blip.json.

python training/evaluate_blip.py --log /tmp/street-blip/log0.jsonl
python training/evaluate_blip.py --splits dev       # prints only: the file is written with both splits
"""

import argparse
import hashlib
import json
import os
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluate_clip import read_log
from street_data import SEED
from street_language import caption
from train_blip import CAPTIONS, VQA
from train_clip import WEIGHTS as STREET_CLIP
from transformers import BlipForConditionalGeneration, BlipForQuestionAnswering, BlipProcessor

import streetworld
from streetworld.dataset import PICTURE_SIZE
from vlmquant.metrics.captions import caption_scores
from vlmquant.metrics.vqa import vqa_accuracy
from vlmquant.progress import bar

RESULTS = Path(__file__).resolve().parent / "results-blip.json"
BATCH, MOST_TOKENS, EXAMPLES, CURVE_EVERY = 50, 40, 8, 50
REPORTED = ("BLEU-1", "BLEU-4", "ROUGE-L", "CIDEr")
QUESTION_SEED = 3000  # as `streetworld.write_questions`, question seed 0


def write_captions(folder: Path, images: list[np.ndarray]) -> list[str]:
    """Return the greedy caption of every picture."""
    model = BlipForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = BlipProcessor.from_pretrained(folder)
    written = []
    for start in bar(range(0, len(images), BATCH), "writing captions"):
        pixels = processor(images=images[start : start + BATCH], return_tensors="pt").pixel_values
        tokens = model.generate(pixel_values=pixels, max_length=MOST_TOKENS, num_beams=1, do_sample=False)
        written += processor.batch_decode(tokens, skip_special_tokens=True)
    return written


def answer(folder: Path, images: list[np.ndarray], asked: list[dict[str, Any]]) -> list[str]:
    """Return the greedy answer to every question.

    Questions of one length go together, because transformers' `generate` lets the decoder see padding.
    """
    model = BlipForQuestionAnswering.from_pretrained(folder, dtype=torch.float32).eval()
    processor = BlipProcessor.from_pretrained(folder)
    pixels = processor(images=images, return_tensors="pt").pixel_values
    tokens = [processor.tokenizer(row["question"]).input_ids for row in asked]
    by_length = defaultdict(list)
    for index, ids in enumerate(tokens):
        by_length[len(ids)].append(index)
    batches = [rows[i : i + BATCH] for rows in by_length.values() for i in range(0, len(rows), BATCH)]
    answers = [""] * len(asked)
    for rows in bar(batches, "answering questions"):
        found = model.generate(
            input_ids=torch.tensor([tokens[i] for i in rows]),
            pixel_values=pixels[[asked[i]["image_id"] for i in rows]],
            max_length=10,
            num_beams=1,
            do_sample=False,
        )
        for index, text in zip(rows, processor.batch_decode(found, skip_special_tokens=True), strict=True):
            answers[index] = text
    return answers


def score_captions(folder: Path, split: str, count: int) -> dict[str, Any]:
    """Return the scores of the model and of the most frequent training caption, given to every picture."""
    pairs = streetworld.retrieval_set(count, split=split, track=bar)
    references = dict(enumerate(pairs.captions))
    written = write_captions(folder, list(pairs.images))
    rng = np.random.default_rng(0)
    usual = Counter(caption(scene, rng) for scene in streetworld.scenes(8000, "train", SEED)).most_common(1)[0][0]
    found = {
        "model": caption_scores(dict(enumerate(written)), references).corpus(),
        "most_frequent_caption": caption_scores(dict.fromkeys(references, usual), references).corpus(),
    }
    scores = {who: {name: values[name] for name in REPORTED} for who, values in found.items()}
    examples = [{"written": w, "reference": r[0]} for w, r in zip(written, pairs.captions, strict=True)][:EXAMPLES]
    return {"images": count, **scores, "most_frequent": usual, "examples": examples}


def score_answers(folder: Path, split: str, count: int) -> dict[str, Any]:
    """Return the VQA accuracy in percent: the model's, and of the most frequent training answers."""
    chosen = streetworld.scenes(count, split, QUESTION_SEED)
    files = streetworld.questions(chosen)
    asked, annotations = files[0]["questions"], files[1]["annotations"]
    people = [[row["answer"] for row in a["answers"]] for a in annotations]
    answers = answer(folder, [streetworld.render(scene, PICTURE_SIZE) for scene in chosen], asked)
    trained = streetworld.questions(streetworld.scenes(8000, "train", SEED))
    keys = {
        "most_frequent_answer_of_the_question_type": lambda question, annotation: annotation["question_type"],
        "most_frequent_answer_of_the_question": lambda question, annotation: question["question"],
    }
    accuracy = {"model": vqa_accuracy(answers, people)}
    for name, key in keys.items():
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for question, annotation in zip(trained[0]["questions"], trained[1]["annotations"], strict=True):
            counts[key(question, annotation)][annotation["multiple_choice_answer"]] += 1
        usual = [counts[key(q, a)].most_common(1)[0][0] for q, a in zip(asked, annotations, strict=True)]
        accuracy[name] = vqa_accuracy(usual, people)
    of_type = defaultdict(list)
    for annotation, value in zip(annotations, accuracy["model"], strict=True):
        of_type[annotation["question_type"]].append(value)
    truth = [annotation["multiple_choice_answer"] for annotation in annotations]
    return {
        "images": count,
        "questions": len(asked),
        **{name: 100 * float(values.mean()) for name, values in accuracy.items()},
        "perfect": 100 * float(vqa_accuracy(truth, people).mean()),
        "model_by_question_type": {name: 100 * float(np.mean(values)) for name, values in sorted(of_type.items())},
    }


def main() -> None:
    """Score the splits; with both, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, help="the training's log0.jsonl; without it the stored curve is kept")
    parser.add_argument("--captioned", type=int, default=1000)
    parser.add_argument("--questioned", type=int, default=500)
    parser.add_argument("--splits", nargs="+", choices=("dev", "test"), default=["dev", "test"])
    parser.add_argument("--weights", type=Path, default=STREET_CLIP.parent)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folders = {name: options.weights / name for name in (CAPTIONS, VQA)}
    scores = {
        split: {
            "captions": score_captions(folders[CAPTIONS], split, options.captioned),
            "answers": score_answers(folders[VQA], split, options.questioned),
        }
        for split in options.splits
    }
    print(json.dumps(scores, indent=1))
    if set(options.splits) != {"dev", "test"}:
        return
    curve = json.loads(RESULTS.read_text())["curve"] if not options.log else read_log(options.log)
    content = {
        "weights_sha256": {
            name: hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
            for name, folder in folders.items()
        },
        "scores": scores,
        "curve": [row for row in curve if row["step"] % CURVE_EVERY == 0],
    }
    unfinished = RESULTS.with_suffix(".tmp")
    unfinished.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(unfinished, RESULTS)


if __name__ == "__main__":
    main()
