"""`vlmquant detect`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from vlmquant.cli import show
from vlmquant.cli.options import Json, Probe, Threads
from vlmquant.errors import VlmQuantError
from vlmquant.opening import AUTO, TORCH, RunsOn, open_named
from vlmquant.opening.first_use import calibration_from_videos

if TYPE_CHECKING:
    from vlmquant.video.detect import Detection


def detect(
    videos: Annotated[list[Path], typer.Argument(help="Video files.")],
    event: Annotated[list[str], typer.Option("--event", "-e", help="An event in plain words; may be repeated.")],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Bundle, checkpoint folder or hub id; the street demo otherwise."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for events, scores, pictures and page.")
    ] = Path("out"),
    negative: Annotated[
        list[str] | None, typer.Option("--not", help="What the events are not; may be repeated.")
    ] = None,
    fps: Annotated[float, typer.Option(help="Frames looked at per second of video.")] = 5.0,
    engine: Annotated[str, typer.Option(help="auto, openvino or onnxruntime.")] = "auto",
    threads: Threads = None,
    probe: Probe = True,
    as_float: Annotated[bool, typer.Option("--float", help="Run a checkpoint unquantized, in torch.")] = False,
    on: Annotated[float | None, typer.Option(help="Probability at which an event starts.")] = None,
    off: Annotated[float | None, typer.Option(help="Probability below which it ends.")] = None,
    min_duration: Annotated[float | None, typer.Option(help="Shortest event, in seconds.")] = None,
    merge_gap: Annotated[float | None, typer.Option(help="Gaps up to this many seconds are closed.")] = None,
    annotate: Annotated[bool, typer.Option(help="Write a copy of the video with scores and events drawn in.")] = True,
    json_output: Json = False,
) -> None:
    """Find events named in plain words in video files."""
    from vlmquant.video.detect import detect as find
    from vlmquant.video.events import EventRule

    chosen = {"on": on, "off": off, "min_duration_seconds": min_duration, "merge_gap_seconds": merge_gap}
    try:
        rule = EventRule(**{name: value for name, value in chosen.items() if value is not None})
    except ValueError as error:
        raise VlmQuantError(str(error)) from error
    for path in videos:
        _check_readable(path)
    track = show.tracker(json_output)
    if as_float and engine != AUTO:
        raise VlmQuantError(f"--float runs in torch and --engine {engine} does not; name one of the two")
    opened = open_named(
        model,
        head="dual-encoder",
        runs_on=RunsOn(engine=TORCH if as_float else engine, threads=threads, probe=probe),
        calibrate=lambda: calibration_from_videos(videos, track),
        track=track,
    )
    results = []
    for path in videos:
        folder = output if len(videos) == 1 else output / path.name
        detection = find(path, opened.encoder, event, fps=fps, rule=rule, negatives=tuple(negative or ()), track=track)
        written = _write(detection, folder, annotate, opened.notes, track)
        results.append({"video": str(path), **summary(detection), "files": {k: str(v) for k, v in written.items()}})
        if not json_output:
            _print(detection, written)
    if json_output:
        show.as_json({"notes": list(opened.notes), "videos": results})
        return
    for note in opened.notes:
        show.line(note)


def _check_readable(path: Path) -> None:
    from vlmquant.video.source import open_video

    with open_video(path):
        pass


def _write(detection: "Detection", folder: Path, annotate: bool, notes: tuple[str, ...], track: Any) -> dict[str, Path]:
    from vlmquant.report.detection import detection_page
    from vlmquant.report.page import write_page
    from vlmquant.video.write import write_detection
    from vlmquant.video.write_mp4 import write_mp4

    written = write_detection(detection, folder)
    if annotate:
        written["annotated"] = folder / "annotated.mp4"
        notes = (*notes, *write_mp4(detection, written["annotated"], track=track))
    written["page"] = folder / "index.html"
    write_page(written["page"], detection_page(detection, notes))
    return written


def summary(detection: "Detection") -> dict[str, Any]:
    """Return what a machine wants to know of a run, as plain JSON values."""
    from vlmquant.video.write import event_rows

    p50, p95 = np.percentile(detection.latency_ms, [50, 95])
    return {
        "model": detection.model,
        "events": event_rows(detection),
        "frames": len(detection.pts_seconds),
        "video_seconds": detection.end_seconds,
        "wall_seconds": detection.wall_seconds,
        "speed": detection.speed,
        "latency_ms_p50": float(p50),
        "latency_ms_p95": float(p95),
        "latency_ms_max": float(detection.latency_ms.max()),
        "warnings": list(detection.warnings),
    }


def _print(detection: "Detection", written: dict[str, Path]) -> None:
    facts = summary(detection)
    rows = [
        (item.name, f"{item.start_seconds:.2f}", f"{item.end_seconds:.2f}", f"{item.peak_seconds:.2f}", item.peak_score)
        for item in detection.events
    ]
    title = f"{detection.info.path.name}: {len(rows)} events in {detection.end_seconds:.1f} s of video"
    show.table(title, ("event", "start s", "end s", "peak s", "peak score"), rows)
    show.line(
        f"{facts['frames']} frames in {facts['wall_seconds']:.1f} s ({facts['speed']:.1f} x real time); per frame "
        f"p50 {facts['latency_ms_p50']:.1f} ms, p95 {facts['latency_ms_p95']:.1f} ms; {detection.model}"
    )
    for warning in detection.warnings:
        show.line(f"warning: {warning}")
    show.line(f"page: {written['page']}")
