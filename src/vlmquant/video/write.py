"""Writes a `Detection` as files. Each appears whole or not at all; no event is a right result: tables have headers."""

import csv
import html
import io
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from vlmquant.errors import DataError, unknown
from vlmquant.files import write_whole
from vlmquant.models.spec import FloatArray
from vlmquant.output import OutputFolder, writing
from vlmquant.text import csv_cell, encodable, printable
from vlmquant.video.detect import Detection

VERB = "detect"
THUMBNAILS = "thumbnails/"
SCHEMA_VERSION = 1
"""Of the rows of events.jsonl and events.csv; grows when a column changes its meaning or goes away."""

COLUMNS = (
    "schema_version",
    "id",
    "video",
    "name",
    "start_seconds",
    "end_seconds",
    "peak_seconds",
    "peak_score",
    "mean_score",
    "prompts",
    "contrast",
    "model",
    "config_sha256",
)


def write_detection(
    detection: Detection, folder: str | Path, outputs: Collection[str] | None = None
) -> dict[str, Path]:
    """Write `outputs`, names from `WRITERS` (None: all), into `folder`, made when missing; return their paths.

    Thumbnails are written before the tables that name their events. Raises DataError for an unknown output, when a file
    would be replaced that this program did not make, and when one cannot be written.
    """
    chosen = list(WRITERS) if outputs is None else list(outputs)
    for name in chosen:
        if name not in WRITERS:
            raise unknown(DataError, "output", name, WRITERS)
    target = OutputFolder(folder, VERB)
    names = [FILES[name] for name in chosen]
    target.check(names, [detection.info.path])
    target.claim(names)
    paths = {}
    for name in WRITERS:
        if name in chosen:
            with writing(target.path / FILES[name]):
                paths[name] = WRITERS[name](detection, target.path)
    target.settle()
    return paths


def event_id(index: int) -> str:
    """Return the id of the event at `index` of `Detection.events`; its thumbnail is thumbnails/<id>.jpg."""
    return f"{index + 1:04d}"


def event_rows(detection: Detection) -> list[dict[str, Any]]:
    """Return one row per event, with the keys `COLUMNS`; plain JSON values, times in seconds to the microsecond."""
    queries = {query.name: query for query in detection.queries}
    rows = []
    for index, event in enumerate(detection.events):
        values = (
            SCHEMA_VERSION,
            event_id(index),
            encodable(detection.info.path.name),
            event.name,
            round(event.start_seconds, 6),
            round(event.end_seconds, 6),
            round(event.peak_seconds, 6),
            round(event.peak_score, 6),
            round(event.mean_score, 6),
            list(queries[event.name].prompts),
            list(queries[event.name].contrast),
            detection.model,
            detection.config_sha256,
        )
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def write_jsonl(detection: Detection, folder: Path) -> Path:
    """Write events.jsonl: one JSON object per event and line."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in event_rows(detection)]
    return write_whole(folder / "events.jsonl", "".join(lines).encode())


def write_csv(detection: Detection, folder: Path) -> Path:
    """Write events.csv: the rows of events.jsonl; prompts and contrast are joined by " | "."""
    rows = [[cell(value) for value in row.values()] for row in event_rows(detection)]
    return write_whole(folder / "events.csv", csv_bytes([COLUMNS, *rows]))


def write_scores(detection: Detection, folder: Path) -> Path:
    """Write scores.csv: per scored frame its time in seconds and the probability of every event, before smoothing."""
    rows = map(score_row, detection.pts_seconds, detection.scores)
    return write_whole(folder / "scores.csv", csv_bytes([score_columns(detection.names), *rows]))


def score_columns(names: Sequence[str]) -> list[object]:
    """Return the heading of scores.csv."""
    return ["pts_seconds", *map(cell, names)]


def score_row(pts_seconds: float, scores: FloatArray) -> list[str]:
    """Return the row of one frame in scores.csv."""
    return [f"{pts_seconds:.6f}", *(f"{score:.6f}" for score in scores)]


def write_vtt(detection: Detection, folder: Path) -> Path:
    """Write events.vtt: WebVTT with one cue per event, for players that show subtitles or chapters."""
    cues = ["WEBVTT\n"]
    for index, event in enumerate(detection.events):
        start = round(event.start_seconds * 1000)
        end = max(start + 1, round(event.end_seconds * 1000))
        text = html.escape(printable(event.name), quote=False)
        cues.append(f"{event_id(index)}\n{_timestamp(start)} --> {_timestamp(end)}\n{text} ({event.peak_score:.2f})\n")
    return write_whole(folder / "events.vtt", "\n".join(cues).encode())


def write_thumbnails(detection: Detection, folder: Path) -> Path:
    """Write thumbnails/<id>.jpg, the peak of each event; those of an earlier run go away."""
    target = folder / THUMBNAILS
    target.mkdir(exist_ok=True)
    earlier = OutputFolder(folder, VERB).own_pictures(THUMBNAILS)
    written = set()
    for index, thumbnail in enumerate(detection.thumbnails):
        written.add(write_whole(target / f"{event_id(index)}.jpg", thumbnail))
    for stale in set(earlier) - written:
        stale.unlink()
    return target


WRITERS: dict[str, Callable[[Detection, Path], Path]] = {
    "thumbnails": write_thumbnails,
    "jsonl": write_jsonl,
    "csv": write_csv,
    "scores": write_scores,
    "vtt": write_vtt,
}
"""Every output by its name, in the order in which they are written."""


FILES = {
    "thumbnails": THUMBNAILS,
    "jsonl": "events.jsonl",
    "csv": "events.csv",
    "scores": "scores.csv",
    "vtt": "events.vtt",
}
"""Where each output lies in the folder."""


def cell(value: Any) -> object:
    """Return a value as spreadsheets show it and do not run it; several are joined by bars."""
    return csv_cell(" | ".join(value) if isinstance(value, list) else value)


def csv_bytes(rows: Iterable[Iterable[Any]]) -> bytes:
    """Return rows as CSV in UTF-8."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _timestamp(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{rest:03d}"
