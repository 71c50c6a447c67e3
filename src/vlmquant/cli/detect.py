"""`vlmquant detect`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from vlmquant.cli import show
from vlmquant.cli.groups import made_of
from vlmquant.cli.options import AllowPickle, Engine, Json, Probe, Threads
from vlmquant.errors import DataError, EngineError
from vlmquant.opening import AUTO, TORCH, RunsOn, open_named
from vlmquant.opening.first_use import calibration_from_videos
from vlmquant.text import counted, encodable
from vlmquant.video.events import EventRule

if TYPE_CHECKING:
    from vlmquant.report.searched import Search, Searched
    from vlmquant.video.detect import Detection
    from vlmquant.video.score import EventQuery


_USUAL = EventRule()


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What to look for, in the user's words."""

    event: Annotated[
        list[str] | None, typer.Option("--event", "-e", help="An event in plain words; may be repeated.")
    ] = None
    events_file: Annotated[
        Path | None, typer.Option(help="TOML file of events with their own prompts, negatives and rules.")
    ] = None
    negative: Annotated[list[str] | None, typer.Option("--not", help="What the events are not; may be repeated.")] = (
        None
    )

    def queries(self, rule: EventRule) -> "list[EventQuery]":
        """Return every event; one of the file that has no rule of its own goes by `rule`."""
        from vlmquant.video.events_file import read_events
        from vlmquant.video.score import EventQuery

        negatives = tuple(self.negative or ())
        typed = [EventQuery.from_text(text, negatives) for text in self.event or ()]
        return typed if self.events_file is None else typed + read_events(self.events_file, rule, negatives)


def event_rule(
    on: Annotated[
        float | None,
        typer.Option(help=f"Probability that an event reaches; {_USUAL.on:g}, or --off where that is more."),
    ] = None,
    off: Annotated[
        float | None,
        typer.Option(
            help=f"Probability above which it lasts, from start to end; {_USUAL.off:g}, or --on where that is less."
        ),
    ] = None,
    min_duration: Annotated[
        float | None, typer.Option(help=f"Shortest event, in seconds; {_USUAL.min_duration_seconds:g} when left out.")
    ] = None,
    merge_gap: Annotated[
        float | None, typer.Option(help=f"Gaps up to this many seconds are closed; {_USUAL.merge_gap_seconds:g}.")
    ] = None,
) -> EventRule:
    """Make what says how scores become events."""
    chosen = {"on": on, "off": off, "min_duration_seconds": min_duration, "merge_gap_seconds": merge_gap}
    try:
        return _USUAL.changed(**{name: value for name, value in chosen.items() if value is not None})
    except ValueError as error:
        raise DataError(str(error)) from error


def runs_on_frames(
    engine: Engine = "auto",
    threads: Threads = None,
    probe: Probe = True,
    allow_pickle: AllowPickle = False,
    as_float: Annotated[bool, typer.Option("--float", help="Run a checkpoint unquantized, in torch.")] = False,
) -> RunsOn:
    """Make what says where the model runs; a checkpoint is quantized first, but for `--float`."""
    if as_float and engine != AUTO:
        raise EngineError(f"--float runs in torch and --engine {engine} does not; name one of the two")
    return RunsOn(engine=TORCH if as_float else engine, threads=threads, probe=probe, allow_pickle=allow_pickle)


@made_of(asked=Asked, where=runs_on_frames, rule=event_rule)
def detect(
    videos: Annotated[list[str], typer.Argument(help="Video files.")],
    *,
    asked: Asked,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Bundle, checkpoint folder or hub id; the street demo otherwise."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for events, scores, pictures and page.")
    ] = Path("out"),
    fps: Annotated[float, typer.Option(help="Frames looked at per second of video.")] = 5.0,
    where: RunsOn,
    rule: EventRule,
    stream: Annotated[
        int | None, typer.Option(help="Number of the picture's stream in the file; the best when left out.")
    ] = None,
    keep_embeddings: Annotated[
        bool, typer.Option("--keep-embeddings", help="Write the embedding of every frame as float16.")
    ] = False,
    annotate: Annotated[bool, typer.Option(help="Write a copy of the video with scores and events drawn in.")] = True,
    json_output: Json = False,
) -> None:
    """Find events named in plain words in video files."""
    from vlmquant.report.searched import Search, search_video

    search = Search(
        queries=asked.queries(rule),
        rule=rule,
        fps=fps,
        stream=stream,
        annotate=annotate,
        keep_embeddings=keep_embeddings,
    )
    folders = _checked(videos, output, search)
    track = show.tracker(json_output)
    opened = open_named(
        model,
        head="dual-encoder",
        runs_on=where,
        calibrate=lambda: calibration_from_videos(videos, track),
        track=track,
    )
    results = []
    for name, folder in zip(videos, folders, strict=True):
        searched = search_video(
            name, folder, opened.encoder, search, model_sha256=opened.facts["weights"], notes=opened.notes, track=track
        )
        files = {kind: encodable(str(file)) for kind, file in searched.files.items()}
        facts = {"video": encodable(name), **summary(searched.detection), "notes": list(searched.notes)}
        results.append({**facts, "files": files})
        if not json_output:
            _print(searched)
    if json_output:
        show.as_json({"notes": list(opened.notes), "videos": results})
        return
    for note in opened.notes:
        show.line(note)


def _checked(videos: Sequence[str], output: Path, search: "Search") -> list[Path]:
    """See, before any work, that all can be read, searched and written; return the folder of each video."""
    from vlmquant.output import OutputFolder
    from vlmquant.video.folders import result_folders
    from vlmquant.video.sampling import SampleClock
    from vlmquant.video.score import check_names
    from vlmquant.video.sources import open_source
    from vlmquant.video.write import VERB

    check_names(search.queries)
    SampleClock(search.fps)
    for name in videos:
        with open_source(name, search.stream):
            pass
    paths = [Path(name) for name in videos]
    folders = result_folders(paths, output)
    for folder in folders:
        OutputFolder(folder, VERB).check(search.outputs, paths)
    return folders


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


def _print(searched: "Searched") -> None:
    detection = searched.detection
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
    for note in searched.notes:
        show.line(f"note: {note}")
    if "page" in searched.files:
        show.line(f"page: {searched.files['page']}")
