"""Semantic event detection with an optimized CLIP: a video, named concepts, FP32 beside dynamic INT8, frame by frame.

The source runs `openai/clip-vit-base-patch32` on an 82-frame video. Its figures are those of docs/sources.md.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlmquant.bench.environment import this_environment
from vlmquant.bench.measure import median, paired_ratio, quantile
from vlmquant.bundle.manifest import MANIFEST
from vlmquant.checkpoints.hub import resolve
from vlmquant.errors import DataError
from vlmquant.files import digest, sha256_of
from vlmquant.lab.reproduce.event_detection.frames_worker import CONTENDERS, DYNAMIC, FLOAT, OURS
from vlmquant.lab.reproduce.kept import STEPS, Kept
from vlmquant.lab.reproduce.outcome import Chart, Reproduction, Row
from vlmquant.lab.reproduce.request import ReproductionRequest
from vlmquant.lab.reproduce.sizes import smaller_files
from vlmquant.lab.reproduce.turns import MB, ratio_in_words, taken
from vlmquant.metrics.events import EventCounts, count_by_iou
from vlmquant.opening.first_use import BUNDLED, RECIPE, bundled_calibration, calibration_from_videos
from vlmquant.progress import Track, silent
from vlmquant.quantize.recipes.presets import get_recipe

TITLE = "Semantic event detection with an optimized CLIP"
CONCEPTS = ("a person walking", "a vehicle stopping", "a crowded scene")
STREET_CONCEPTS = ("a person walking", "a vehicle stopping", "a crowded street")
"""The same in words that the drawn model knows."""
FRAMES, FPS = 82, 5.0
"""The length of the source's video, and how many frames a second are looked at."""
VIDEO_SEED = 1
WORKER = "vlmquant.lab.reproduce.event_detection.frames_worker"
TIMEOUT_SECONDS = 4 * 3600.0


def event_detection(asked: ReproductionRequest, track: Track = silent) -> Reproduction:
    """Run the source's evaluation: each contender `asked.rounds` times in its own process, in turn.

    Raises DataError where there is no video, ModelError for what is not a CLIP, EngineError where a contender fails.
    """
    stand_ins, checkpoint = _checkpoint(asked)
    video, drawn = _video(asked)
    stand_ins = (*stand_ins, *drawn)
    events = STREET_CONCEPTS if asked.checkpoint is None else CONCEPTS
    request: dict[str, Any] = {
        "checkpoint": str(checkpoint),
        "video": str(video),
        "events": events,
        "fps": FPS,
        "limit": asked.limit,
        "threads": asked.used_threads,
    }
    hashes = {
        "video_sha256": sha256_of(video),
        "model": _identity(checkpoint),
        "recipe": digest(get_recipe(RECIPE).to_dict()),
    }
    kept = Kept(asked.output, {"source": "event-detection", **request, **hashes}, track)
    bundle = kept.place / "bundle"
    kept.once("bundle", lambda: _quantize(checkpoint, video, bundle, asked, track), made=bundle)
    request["bundle"] = str(bundle)
    turns = taken(kept, CONTENDERS, asked.rounds, WORKER, request, TIMEOUT_SECONDS)
    return Reproduction(
        source="event-detection",
        title=TITLE,
        stand_ins=stand_ins,
        rows=rows(turns),
        charts=charts(turns, events),
        notes=_notes(turns),
        facts={
            "Model": asked.checkpoint or checkpoint.name,
            "Video": f"{video.name}, {len(turns[FLOAT][0]['pts_seconds'])} frames looked at, {FPS:g} a second",
            "Contenders": f"{asked.rounds} turns each, alternated, every turn in a process of its own, batch 1, "
            f"{asked.used_threads} threads",
        },
        environment=this_environment(),
        computed=kept.computed,
        steps=kept.steps,
    )


def rows(turns: Mapping[str, list[dict[str, Any]]]) -> tuple[Row, ...]:
    """Return every figure of the source, with ours beside it."""
    frame_ms = {name: [median(turn["latency_ms"]) for turn in found] for name, found in turns.items()}
    ratios = {name: paired_ratio(frame_ms[FLOAT], frame_ms[name]) for name in (DYNAMIC, OURS)}
    first = {name: found[0] for name, found in turns.items()}
    saved = {name: 100 * (1 - 1 / ratio.median) for name, ratio in ratios.items()}

    def both(what: str, printed: str, value: Mapping[str, str], remark: str = "") -> Row:
        return Row(what=what, printed=printed, its_method=value[DYNAMIC], ours=value[OURS], remark=remark)

    return (
        Row(what="FP32, ms a frame", printed="57.9", its_method=_ms(frame_ms[FLOAT])),
        both("INT8, ms a frame", "41.0", {name: _ms(found) for name, found in frame_ms.items()}),
        Row(what="FP32, frames a second", printed="17.28", its_method=_per_second(turns[FLOAT])),
        both("INT8, frames a second", "24.40", {name: _per_second(found) for name, found in turns.items()}),
        both("INT8, times as fast", "1.41", {name: ratio_in_words(ratio) for name, ratio in ratios.items()}),
        both("INT8, latency saved", "29.2 %", {name: f"{percent:.1f} %" for name, percent in saved.items()}),
        Row(what="FP32, p50 / p95 / max in ms", printed="'stable'", its_method=_spread(turns[FLOAT])),
        both("INT8, p50 / p95 / max in ms", "'stable'", {name: _spread(found) for name, found in turns.items()}),
        Row(
            what="FP32, MB on disk",
            printed="577",
            its_method=f"{first[FLOAT]['bytes_on_disk'] / MB:.1f}",
            remark="; ".join(
                said
                for said in (
                    "the source counts parameters; here files, tokenizer included",
                    smaller_files(first[FLOAT]["bytes_on_disk"], first[FLOAT]["float32_bytes"]),
                )
                if said
            ),
        ),
        both(
            "INT8, MB on disk",
            "106",
            {name: f"{found['bytes_on_disk'] / MB:.1f}" for name, found in first.items()},
            "the printed figure counts what torch still calls parameters, and packed INT8 weights are none: counted "
            f"like that the same model has {first[DYNAMIC]['parameter_bytes'] / MB:.1f} MB here",
        ),
        both("INT8, peak memory in MB", "", {name: _memory(found) for name, found in turns.items()}),
        both(
            "frames whose likeliest concept is FP32's",
            "",
            {name: f"{100 * agreement(found, first[FLOAT]):.1f} %" for name, found in first.items()},
        ),
        both(
            "largest change of a probability",
            "",
            {name: f"{largest_change(found, first[FLOAT]):.3f}" for name, found in first.items()},
        ),
        both(
            "events of FP32 found again / missed / new (overlap of half)",
            "",
            {name: _events(found, first[FLOAT]) for name, found in first.items()},
        ),
    )


def charts(turns: Mapping[str, list[dict[str, Any]]], events: tuple[str, ...]) -> tuple[Chart, ...]:
    """Return the probability of each concept over time, and the latency of each frame."""
    first = {name: found[0] for name, found in turns.items()}
    scores = [
        Chart(
            title=event,
            x_label="time in the video (s)",
            y_label="probability",
            lines={
                name: (found["pts_seconds"], [row[column] for row in found["scores"]]) for name, found in first.items()
            },
        )
        for column, event in enumerate(events)
    ]
    latency = Chart(
        title="Latency of each frame, first turn",
        x_label="time in the video (s)",
        y_label="ms a frame",
        lines={name: (found["pts_seconds"], found["latency_ms"]) for name, found in first.items()},
    )
    return (*scores, latency)


def agreement(found: Mapping[str, Any], reference: Mapping[str, Any]) -> float:
    """Return the share of frames with the same likeliest concept."""
    one, other = (np.asarray(each["scores"]).argmax(axis=1) for each in (found, reference))
    return float(np.mean(one == other))


def largest_change(found: Mapping[str, Any], reference: Mapping[str, Any]) -> float:
    """Return the largest difference of a probability, over frames and concepts."""
    return float(np.abs(np.asarray(found["scores"]) - np.asarray(reference["scores"])).max())


def _events(found: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    names = dict.fromkeys(name for name, *_ in (*found["events"], *reference["events"]))
    counts = EventCounts()
    for name in names:
        counts += count_by_iou(_spans(found, name), _spans(reference, name))
    return f"{counts.matched} / {counts.true - counts.matched} / {counts.found - counts.matched}"


def _spans(found: Mapping[str, Any], name: str) -> list[tuple[float, float]]:
    return [(start, end) for event, start, end in found["events"] if event == name]


def _ms(by_round: list[float]) -> str:
    return f"{median(by_round):.1f}"


def _per_second(found: list[dict[str, Any]]) -> str:
    return f"{median([len(turn['pts_seconds']) / turn['wall_seconds'] for turn in found]):.2f}"


def _spread(found: list[dict[str, Any]]) -> str:
    latencies = [one for turn in found for one in turn["latency_ms"]]
    return f"{quantile(latencies, 0.5):.1f} / {quantile(latencies, 0.95):.1f} / {max(latencies):.1f}"


def _memory(found: list[dict[str, Any]]) -> str:
    return f"{median([turn['peak_rss_bytes'] for turn in found]) / MB:.0f}"


def _notes(turns: Mapping[str, list[dict[str, Any]]]) -> tuple[str, ...]:
    return (
        "Frames a second are end to end, decoding included; milliseconds are the work on a frame without decoding.",
        f"static-int8 ran as {turns[OURS][0]['model']}.",
    )


def _checkpoint(asked: ReproductionRequest) -> tuple[tuple[str, ...], Path]:
    if asked.checkpoint is not None:
        return (), resolve(asked.checkpoint)
    import streetworld

    said = "model: the drawn-street CLIP stands in for openai/clip-vit-base-patch32; name one with --checkpoint"
    return (said,), streetworld.checkpoint(BUNDLED["dual-encoder"])


def _video(asked: ReproductionRequest) -> tuple[Path, tuple[str, ...]]:
    """Return the user's video, or draw one of the source's length. Raises DataError for a folder."""
    if asked.data is not None:
        if not asked.data.is_file():
            raise DataError(f"{asked.data} is not a video file; event-detection takes one (--data street.mp4)")
        return asked.data, ()
    import streetworld

    video = asked.output / STEPS / "street.mp4"
    if not video.is_file():
        video.parent.mkdir(parents=True, exist_ok=True)
        streetworld.write_video(video, streetworld.script_video(VIDEO_SEED, seconds=FRAMES / FPS))
    said = f"video: {FRAMES} frames of a drawn street stand in for the source's own video; name one with --data"
    return video, (said,)


def _identity(checkpoint: Path) -> str:
    from vlmquant.checkpoints import load_model

    return load_model(checkpoint).identity


def _quantize(checkpoint: Path, video: Path, bundle: Path, asked: ReproductionRequest, track: Track) -> dict[str, Any]:
    from vlmquant.build.build import quantize_model
    from vlmquant.checkpoints import load_model

    if not (bundle / MANIFEST).is_file():
        own = asked.data is not None
        calibration = calibration_from_videos([str(video)], track) if own else bundled_calibration()
        quantize_model(load_model(checkpoint), get_recipe(RECIPE), calibration, bundle, track=track)
    return {}
