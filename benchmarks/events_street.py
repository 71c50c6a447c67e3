"""How well named events are found in held-out street videos, by the float model and by its INT8 bundle.

    python -m benchmarks events_street -o benchmarks/results/events-street.json

`--split dev` is what thresholds and prompts were chosen on; the committed result is of the test split.
"""

import argparse
import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import streetworld
from benchmarks.data import CALIBRATION_IMAGES
from benchmarks.results import ResultFile, add_output
from streetworld.videos import EVENT_NAMES, STATE_EVENTS
from vlmquant import get_recipe, load_model, open_bundle
from vlmquant.build.build import quantize_model
from vlmquant.models.heads import as_encoder
from vlmquant.progress import bar
from vlmquant.tasks.events import EventScores, score_events
from vlmquant.video.detect import detect
from vlmquant.video.events import EventRule

TIOU = 0.5
FPS = 5.0


def table(scores: EventScores) -> dict[str, Any]:
    """Return the scores by event and over all; None where nothing was true or found, so that a ratio has no value."""
    rows = {}
    for name in EVENT_NAMES:
        counts = scores[name].by_iou
        rows[name] = {
            "state": name in STATE_EVENTS,
            "true": counts.true,
            "found": counts.found,
            "matched": counts.matched,
            "precision": _defined(counts.precision),
            "recall": _defined(counts.recall),
            "f1": _defined(counts.f1),
        }
    state = [scores[name].by_iou for name in STATE_EVENTS]
    total = sum(state[1:], start=state[0])
    return {
        "events": rows,
        "state_events_micro_f1": _defined(total.f1),
        "state_events_macro_f1": _defined(sum(counts.f1 for counts in state) / len(state)),
        "all_micro_f1": _defined(scores.micro.f1),
        "false_alarms_per_hour": _defined(scores.false_alarms_per_hour),
        "mean_average_precision": _defined(scores.mean_average_precision),
    }


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def show(name: str, scores: Mapping[str, Any]) -> None:
    """Print the scores of one model."""
    print(name, {key: value for key, value in scores.items() if key != "events"})
    for event, row in scores["events"].items():
        print(f"  {event:24} true {row['true']:3} found {row['found']:3} matched {row['matched']:3} F1 {row['f1']}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument("--split", default="test", choices=["dev", "test"])
    parser.add_argument("--videos", type=int, default=24)
    parser.add_argument("--keep", type=Path, help="folder to keep the videos in; made once, used again")


def run(arguments: argparse.Namespace) -> None:
    model = load_model(streetworld.checkpoint())
    head = {
        "split": arguments.split,
        "videos": arguments.videos,
        "tiou": TIOU,
        "fps": FPS,
        "rule": asdict(EventRule()),
        "weights_sha256": model.weights_sha256,
    }
    result = ResultFile(arguments.output, head)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        bundle = quantize_model(
            model,
            get_recipe("static-int8"),
            streetworld.calibration_set(CALIBRATION_IMAGES),
            Path(scratch) / "int8",
            track=bar,
        )
        encoders = {"float": model.encoder(), "int8": as_encoder(open_bundle(bundle))}
        found: dict[str, list[Any]] = {name: [] for name in encoders}
        truths = []
        for seed in bar(range(arguments.videos), "Videos", arguments.videos):
            script = streetworld.script_video(seed, split=arguments.split)
            path = folder / f"{arguments.split}-{seed:03d}.mp4"
            if not path.is_file():
                streetworld.write_video(path, script)
            truths.append(streetworld.truth(script))
            for name, encoder in encoders.items():
                found[name].append(detect(path, encoder, EVENT_NAMES, fps=FPS))
    results = {name: table(score_events(detections, truths, tiou=TIOU)) for name, detections in found.items()}
    seconds = sum(detection.end_seconds for detection in found["float"])
    result.save({"video_seconds": seconds, "results": results})
    for name, scores in results.items():
        show(name, scores)
