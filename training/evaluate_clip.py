"""Scores the bundled street CLIP (float) and writes training/results.json and the picture of the training curve.

python training/evaluate_clip.py --log /tmp/street-clip/log0.jsonl
python training/evaluate_clip.py            # the curve stays as it is in results.json
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

import streetworld
from vlmquant.checkpoints import load_model
from vlmquant.models.encoder import DualEncoder
from vlmquant.progress import bar
from vlmquant.tasks.classification import zero_shot
from vlmquant.tasks.retrieval import retrieval

HERE = Path(__file__).resolve().parent
RESULTS, CURVE = HERE / "results.json", HERE / "curve.png"
LOSSES = {
    "by_caption": "picture to its caption",
    "by_text": "text to its pictures",
    "by_image": "picture to all true texts",
    "auxiliary": "attributes (auxiliary)",
}


def score(encoder: DualEncoder, split: str, classified: int, retrieved: int) -> dict[str, Any]:
    """Return the zero-shot and retrieval scores, shares in [0, 1], on one split."""
    labelled = streetworld.zero_shot_set(classified, split=split, track=bar)
    pairs = streetworld.retrieval_set(retrieved, split=split, track=bar)
    classes = zero_shot(encoder, labelled.images, labelled.labels, labelled.class_names, labelled.templates, track=bar)
    ranks = retrieval(encoder, pairs.images, pairs.captions, track=bar)
    return {
        "zero_shot": {"images": classified, "classes": len(labelled.class_names), **classes.metrics},
        "retrieval": {"images": retrieved, "captions": 5 * retrieved, **ranks.metrics},
    }


def read_log(path: Path) -> list[dict[str, float]]:
    """Return the log by step; after a resume the steps that were taken again count as they were the last time."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    last = {row["step"]: row for row in rows}
    return [last[step] for step in sorted(last)]


def draw_curve(curve: list[dict[str, float]], path: Path) -> None:
    """Draw every loss over the steps."""
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    steps = [row["step"] for row in curve]
    for name, label in LOSSES.items():
        axes.plot(steps, [row[name] for row in curve], label=label)
    axes.set(xlabel="step", ylabel="loss above its least possible value (nats)", title="Training of the street CLIP")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)


def main() -> None:
    """Score both held-out splits and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, help="the training's log0.jsonl; without it the stored curve is kept")
    parser.add_argument("--classified", type=int, default=2000)
    parser.add_argument("--retrieved", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load_model(streetworld.checkpoint())
    curve = read_log(options.log) if options.log else json.loads(RESULTS.read_text())["curve"]
    content = {
        "weights_sha256": model.weights_sha256,
        "scores": {
            split: score(model.encoder(), split, options.classified, options.retrieved) for split in ("dev", "test")
        },
        "curve": curve,
    }
    unfinished = RESULTS.with_suffix(".tmp")
    unfinished.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(unfinished, RESULTS)
    draw_curve(curve, CURVE)
    print(json.dumps(content["scores"], indent=1))


if __name__ == "__main__":
    main()
