"""The page of one video: what was found in it, when, and how fast."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from vlmquant.metrics.events import EventSpan
from vlmquant.report.page import (
    Block,
    Details,
    Facts,
    Gallery,
    Heading,
    KeyFigure,
    KeyFigures,
    Links,
    Notice,
    Page,
    Picture,
    Table,
    Text,
    Thumbnail,
)
from vlmquant.report.plots import latency_png
from vlmquant.report.timeline import timeline_png
from vlmquant.text import printable
from vlmquant.video.detect import Detection
from vlmquant.video.events import EventRule
from vlmquant.video.write import THUMBNAILS

MOST_PICTURES = 48
"""Each is about 10 KiB in the page; with thousands a browser takes long to open it."""


def detection_page(
    detection: Detection,
    notes: Sequence[str] = (),
    *,
    facts: Mapping[str, Mapping[str, str]] | None = None,
    truth: Sequence[EventSpan] = (),
    files: Mapping[str, str] | None = None,
    timeline: bytes | None = None,
    footer: str = "",
) -> Page:
    """Return the whole page of a detection.

    `notes` are sentences about the run, such as where its model came from; they come first. `facts` are further
    groups of names and values, such as {"Model": ..., "Environment": ...}; `truth` adds the true events to the
    timeline. `files` are paths of what lies beside the page, by what it is; the page links to them. `timeline` is what
    `timeline_png` gave, where it was drawn before.
    """
    info = detection.info
    return Page(
        title=f"What happens in {printable(info.path.name)}",
        subtitle=f"{clock(detection.seen_seconds)} of video searched for {_listed(detection.names)}.",
        blocks=[
            *note_blocks(notes),
            *warning_blocks(detection),
            key_figures(detection),
            *event_blocks(detection, truth, timeline),
            *link_blocks(files or {}),
            *latency_blocks(detection),
            *fact_blocks({**run_facts(detection), **(facts or {})}),
        ],
        footer=footer,
    )


def note_blocks(notes: Sequence[str]) -> list[Block]:
    """What a reader must know about the run, if anything."""
    return [Notice("About this run", notes)] if notes else []


def warning_blocks(detection: Detection) -> list[Block]:
    """What was damaged, missing or chosen in the file, if anything."""
    return [Notice("About the file", detection.warnings)] if detection.warnings else []


def link_blocks(files: Mapping[str, str]) -> list[Block]:
    """Where the tables and the annotated copy lie, if anywhere."""
    return [Heading("Files"), Links(list(files.items()))] if files else []


def key_figures(detection: Detection) -> KeyFigures:
    """Events found, speed and latency in large numbers."""
    seen = {event.name for event in detection.events}
    frames = len(detection.pts_seconds)
    return KeyFigures(
        [
            KeyFigure("Events found", str(len(detection.events)), f"{len(seen)} of {len(detection.names)} kinds occur"),
            KeyFigure(
                "Speed",
                f"{detection.speed:.1f}x",
                f"real time: {detection.seen_seconds:.1f} s in {detection.wall_seconds:.1f} s",
            ),
            KeyFigure(
                "Frames searched",
                f"{frames:,}",
                f"{detection.fps:g} per second of video, searched at {_rate(detection)}",
            ),
            KeyFigure(
                "Latency per frame",
                f"{np.median(detection.latency_ms):.1f} ms",
                f"median; p95 {np.quantile(detection.latency_ms, 0.95):.1f} ms",
            ),
        ]
    )


def event_blocks(detection: Detection, truth: Sequence[EventSpan] = (), drawn: bytes | None = None) -> list[Block]:
    """The timeline, a thumbnail of each event at its peak, and the events as a table."""
    timeline = Picture(
        timeline_png(detection, truth) if drawn is None else drawn,
        alt=f"Probability over time of {_listed(detection.names)}, with the events found",
        caption="Probability of each event in every frame searched. Dashed: an event needs one frame above it; dotted: "
        "and goes on while it stays above. Bars below zero: what was found" + (" and what is true." if truth else "."),
    )
    if not detection.events:
        return [
            Heading("Timeline"),
            timeline,
            Heading("Events"),
            Text(
                "No event was found: nothing reached a probability of "
                f"{_by_rule(detection, lambda rule: f'{rule.on:g} and lasted {rule.min_duration_seconds:g} s')}. "
                f"The highest were {_listed(_highest(detection))}."
            ),
        ]
    return [
        Heading("Timeline"),
        timeline,
        Heading("Events"),
        *_gallery(detection),
        event_table(detection),
    ]


def _gallery(detection: Detection) -> list[Block]:
    """The pictures of all events, or of the likeliest where a page of all would be too large to open."""
    number = len(detection.events)
    if number <= MOST_PICTURES:
        return [Gallery(event_thumbnails(detection, range(number)))]
    likeliest = sorted(range(number), key=lambda index: -detection.events[index].peak_score)[:MOST_PICTURES]
    said = f"The {MOST_PICTURES} likeliest of {number:,} events; the folder {THUMBNAILS} has the pictures of all."
    return [Text(said), Gallery(event_thumbnails(detection, sorted(likeliest)))]


def event_thumbnails(detection: Detection, indices: Iterable[int]) -> list[Thumbnail]:
    """Those events' frames at their peaks, with their times."""
    return [
        Thumbnail(
            Picture(thumbnail, alt=f"The frame at {clock(event.peak_seconds)}: {printable(event.name)}"),
            printable(event.name),
            (
                f"{clock(event.start_seconds)} to {clock(event.end_seconds)}",
                f"peak {event.peak_score:.2f} at {clock(event.peak_seconds)}",
            ),
        )
        for event, thumbnail in ((detection.events[index], detection.thumbnails[index]) for index in indices)
    ]


def event_table(detection: Detection) -> Table:
    """One row per event."""
    return Table(
        columns=("Event", "Start", "End", "Duration (s)", "Peak at", "Peak probability", "Mean probability"),
        rows=[
            (
                printable(event.name),
                clock(event.start_seconds),
                clock(event.end_seconds),
                f"{event.duration_seconds:.1f}",
                clock(event.peak_seconds),
                f"{event.peak_score:.2f}",
                f"{event.mean_score:.2f}",
            )
            for event in detection.events
        ],
        caption="Probabilities are averaged over "
        f"{_by_rule(detection, lambda rule: f'{rule.smoothing_seconds:g} s')} before events are cut out; an event ends "
        "before its end time.",
    )


def latency_blocks(detection: Detection) -> list[Block]:
    """Latency over the frames."""
    return [
        Heading("Latency"),
        Picture(
            latency_png(detection.pts_seconds, detection.latency_ms),
            alt="Latency of each frame over the time of the video",
            caption="Work on each frame, preprocessing and inference, without decoding; frames go through in batches, "
            "and decoding runs beside them.",
        ),
    ]


def run_facts(detection: Detection) -> dict[str, dict[str, str]]:
    """What was searched, for what and by which rule, as names and values."""
    info = detection.info
    turned = f", turned by {info.rotation_degrees} degrees" if info.rotation_degrees else ""
    average = f", {info.average_fps:.3g} frames per second on average" if info.average_fps else ""
    return {
        "Run": {
            "Video": f"{printable(info.path.name)}: {info.width} x {info.height}, {info.codec}{average}{turned}",
            "Model": printable(detection.model),
            "Sampling": f"{detection.fps:g} frames per second",
            "Thresholds": _by_rule(detection, lambda rule: f"begins at {rule.on:g}, ends below {rule.off:g}"),
            "Duration": _by_rule(
                detection,
                lambda rule: (
                    f"at least {rule.min_duration_seconds:g} s, gaps under {rule.merge_gap_seconds:g} s joined"
                ),
            ),
            "Smoothing": _by_rule(detection, lambda rule: f"{rule.smoothing_seconds:g} s"),
            "Settings digest": detection.config_sha256,
        },
        "Phrases": {printable(query.name): _phrases(query.prompts, query.contrast) for query in detection.queries},
    }


def fact_blocks(groups: Mapping[str, Mapping[str, str]]) -> list[Block]:
    """Each group of names and values behind its title."""
    details = [Details(title, [Facts(list(values.items()))]) for title, values in groups.items() if values]
    return [Heading("How this was found"), *details] if details else []


def clock(seconds: float) -> str:
    """Return a time as players show it, to the tenth: 75.04 -> "1:15.0", 3661 -> "1:01:01.0"."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    tail = f"{rest // 10:02d}.{rest % 10}"
    return f"{hours}:{minutes:02d}:{tail}" if hours else f"{minutes}:{tail}"


def _by_rule(detection: Detection, words: Callable[[EventRule], str]) -> str:
    """Say something of the rule of all events, or of each one's where they differ."""
    found = [words(rule) for rule in detection.rules]
    if len(set(found)) == 1:
        return found[0]
    return "; ".join(f"{said} ({printable(name)})" for name, said in zip(detection.names, found, strict=True))


def _rate(detection: Detection) -> str:
    return f"{detection.frames_per_second:.0f} per second"


def _highest(detection: Detection) -> list[str]:
    peaks = detection.scores.max(axis=0)
    return [f"{name} ({peak:.2f})" for name, peak in zip(detection.names, peaks, strict=True)]


def _phrases(prompts: Sequence[str], contrast: Sequence[str]) -> str:
    return printable(f"{'; '.join(prompts)} | against: {'; '.join(contrast)}")


def _listed(names: Sequence[str]) -> str:
    words = [printable(name) for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
