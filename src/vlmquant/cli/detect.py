"""`vlmquant detect`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from vlmquant.cli import show
from vlmquant.cli.options import Engine, Json, Probe, Threads
from vlmquant.errors import DataError, EngineError, VideoError
from vlmquant.opening import AUTO, TORCH, RunsOn, open_named
from vlmquant.opening.first_use import calibration_from_videos
from vlmquant.text import counted, encodable

if TYPE_CHECKING:
    from vlmquant.progress import Track
    from vlmquant.video.detect import Detection

ANNOTATED, PAGE = "annotated.mp4", "index.html"
LINKED = {
    "jsonl": "Events (JSON lines)",
    "csv": "Events (CSV)",
    "vtt": "Events (WebVTT)",
    "scores": "Scores of every frame (CSV)",
    "annotated": "Annotated video",
}
"""What the page calls the files that it links to."""


def detect(
    videos: Annotated[list[str], typer.Argument(help="Video files.")],
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
    engine: Engine = "auto",
    threads: Threads = None,
    probe: Probe = True,
    as_float: Annotated[bool, typer.Option("--float", help="Run a checkpoint unquantized, in torch.")] = False,
    on: Annotated[float | None, typer.Option(help="Probability at which an event starts.")] = None,
    off: Annotated[float | None, typer.Option(help="Probability below which it ends.")] = None,
    min_duration: Annotated[float | None, typer.Option(help="Shortest event, in seconds.")] = None,
    merge_gap: Annotated[float | None, typer.Option(help="Gaps up to this many seconds are closed.")] = None,
    stream: Annotated[
        int | None, typer.Option(help="Number of the picture's stream in the file; the best when left out.")
    ] = None,
    annotate: Annotated[bool, typer.Option(help="Write a copy of the video with scores and events drawn in.")] = True,
    json_output: Json = False,
) -> None:
    """Find events named in plain words in video files."""
    from vlmquant.video.detect import detect as find
    from vlmquant.video.events import EventRule
    from vlmquant.video.output import result_folders
    from vlmquant.video.sampling import SampleClock
    from vlmquant.video.score import EventQuery

    try:
        rule = EventRule.of(on=on, off=off, min_duration_seconds=min_duration, merge_gap_seconds=merge_gap)
    except ValueError as error:
        raise DataError(str(error)) from error
    queries = [EventQuery.from_text(text, tuple(negative or ())) for text in event]
    SampleClock(fps)
    paths = [Path(name) for name in videos]
    for name in videos:
        _check_readable(name, stream)
    folders = result_folders(paths, output)
    for folder in folders:
        _check_writable(folder, annotate, paths)
    track = show.tracker(json_output)
    if as_float and engine != AUTO:
        raise EngineError(f"--float runs in torch and --engine {engine} does not; name one of the two")
    opened = open_named(
        model,
        head="dual-encoder",
        runs_on=RunsOn(engine=TORCH if as_float else engine, threads=threads, probe=probe),
        calibrate=lambda: calibration_from_videos(paths, track),
        track=track,
    )
    results = []
    for path, folder in zip(paths, folders, strict=True):
        detection = find(path, opened.encoder, queries, fps=fps, rule=rule, stream=stream, track=track)
        written, notes = _write(detection, folder, annotate, opened.notes, track)
        files = {kind: encodable(str(file)) for kind, file in written.items()}
        results.append({"video": encodable(str(path)), **summary(detection), "notes": list(notes), "files": files})
        if not json_output:
            _print(detection, notes, written)
    if json_output:
        show.as_json({"notes": list(opened.notes), "videos": results})
        return
    for note in opened.notes:
        show.line(note)


def _check_readable(name: str, stream: int | None) -> None:
    from vlmquant.video.sources import open_source

    with open_source(name, stream):
        pass


def _names(annotate: bool) -> list[str]:
    from vlmquant.video.write import FILES

    return [*FILES.values(), *([ANNOTATED] if annotate else []), PAGE]


def _check_writable(folder: Path, annotate: bool, inputs: list[Path]) -> None:
    from vlmquant.video.output import OutputFolder

    OutputFolder(folder).check(_names(annotate), inputs)


def _write(
    detection: "Detection", folder: Path, annotate: bool, notes: tuple[str, ...], track: "Track"
) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Write everything; return the files and what is to be said of them. A failed annotated copy costs only itself."""
    from vlmquant.report.detection import detection_page
    from vlmquant.report.page import write_page
    from vlmquant.video.output import OutputFolder, writing
    from vlmquant.video.write import write_detection
    from vlmquant.video.write_mp4 import write_mp4

    target = OutputFolder(folder)
    target.claim(_names(annotate))
    written = write_detection(detection, folder)
    own: tuple[str, ...] = ()
    if annotate:
        try:
            own = write_mp4(detection, folder / ANNOTATED, track=track)
            written["annotated"] = folder / ANNOTATED
        except (VideoError, MemoryError) as error:
            why = "there is not enough memory for it" if isinstance(error, MemoryError) else error
            own = (f"the annotated copy is left out: {why}",)
    written["page"] = folder / PAGE
    linked = {LINKED[kind]: path.name for kind, path in written.items() if kind in LINKED}
    with writing(written["page"]):
        write_page(written["page"], detection_page(detection, (*notes, *own), files=linked))
    target.settle()
    return written, own


def summary(detection: "Detection") -> dict[str, Any]:
    """Return what a machine wants to know of a run, as plain JSON values."""
    from vlmquant.video.write import event_rows

    p50, p95 = np.percentile(detection.latency_ms, [50, 95])
    return {
        "model": detection.model,
        "events": event_rows(detection),
        "frames": len(detection.pts_seconds),
        "video_seconds": detection.end_seconds,
        "seen_seconds": detection.seen_seconds,
        "gaps": [asdict(gap) for gap in detection.gaps],
        "wall_seconds": detection.wall_seconds,
        "speed": detection.speed,
        "latency_ms_p50": float(p50),
        "latency_ms_p95": float(p95),
        "latency_ms_max": float(detection.latency_ms.max()),
        "warnings": list(detection.warnings),
    }


def _print(detection: "Detection", notes: tuple[str, ...], written: dict[str, Path]) -> None:
    facts = summary(detection)
    rows = [
        (item.name, f"{item.start_seconds:.2f}", f"{item.end_seconds:.2f}", f"{item.peak_seconds:.2f}", item.peak_score)
        for item in detection.events
    ]
    title = f"{detection.info.path.name}: {counted(len(rows), 'event')} in {detection.seen_seconds:.1f} s of video"
    show.table(title, ("event", "start s", "end s", "peak s", "peak score"), rows)
    show.line(
        f"{counted(facts['frames'], 'frame')} in {facts['wall_seconds']:.1f} s ({facts['speed']:.1f} x real time); "
        f"per frame p50 {facts['latency_ms_p50']:.1f} ms, p95 {facts['latency_ms_p95']:.1f} ms; {detection.model}"
    )
    for warning in detection.warnings:
        show.line(f"warning: {warning}")
    for note in notes:
        show.line(f"note: {note}")
    show.line(f"page: {written['page']}")
