"""A source looked at as it comes: one observation a frame, in memory that does not grow with its length."""

import math
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from PIL import Image as PillowImage

from vlmquant.models.spec import ByteArray, Encoder, FloatArray
from vlmquant.progress import Track, silent
from vlmquant.video.events import Event, EventDetector, EventRule
from vlmquant.video.pipeline import FrameScore, PixelEncoder, score_video
from vlmquant.video.sampling import SampleClock
from vlmquant.video.score import EventQuery, Scorer
from vlmquant.video.sources.source import Gap, Source

THUMBNAIL_PIXELS = 320
"""The longest edge of a thumbnail."""


class VideoEncoder(Encoder, PixelEncoder, Protocol):
    """What looking at video needs of an encoder; `DualEncoder` has it."""


@dataclass(frozen=True)
class OpenedEvent:
    """An event that has begun for certain: it will be reported, from `start_seconds` on, whatever follows."""

    name: str
    start_seconds: float


@dataclass(frozen=True, eq=False)
class ClosedEvent:
    """An event that is over, and its picture at the peak.

    `thumbnail` is uint8 RGB (height, width, 3), at most `THUMBNAIL_PIXELS` wide and high.
    """

    event: Event
    thumbnail: ByteArray


@dataclass(frozen=True, eq=False)
class Observation:
    """What one frame told.

    `embedding` is (d,) float32 of unit length, `scores` (events,) float32 probabilities before smoothing, in the order
    of the queries. `latency_ms` is the work on this frame without decoding. `opened` and `closed` are the events that
    became certain to have begun and to be over; smoothing and joined gaps delay both. `gap` is the one before this
    frame, None where there is none.
    """

    pts_seconds: float
    embedding: FloatArray
    scores: FloatArray
    latency_ms: float
    opened: tuple[OpenedEvent, ...] = ()
    closed: tuple[ClosedEvent, ...] = ()
    gap: Gap | None = None


def watch(
    source: Source,
    encoder: VideoEncoder,
    queries: Sequence[EventQuery],
    *,
    fps: float = 5.0,
    rule: EventRule | None = None,
    batch_size: int = 4,
    track: Track = silent,
) -> Generator[Observation, None, None]:
    """Look at `fps` frames per second of an open source and yield what each told, in order.

    A query without a rule of its own takes `rule`, None for `EventRule()`. An observation comes when the next frame has
    been looked at, so that the last one holds the events that end with the source. No event goes on over a gap.

    Raises:
        VideoError: `fps` is out of range; what the source raises.
        DataError: no event, or two of one name.
        ValueError: the encoder gave a score that is not a number; the message names the time.
    """
    step_seconds = SampleClock(fps).step_seconds
    scorer = Scorer(encoder, queries)
    common = rule or EventRule()
    search = _Search([(query.name, query.rule or common) for query in scorer.queries], step_seconds)
    frames = score_video(
        source.frames(fps), encoder, scorer.scores, batch_size=batch_size, total=_expected(source, fps), track=track
    )
    return _observed(source, frames, search)


def _observed(
    source: Source, frames: Generator[FrameScore, None, None], search: "_Search"
) -> Generator[Observation, None, None]:
    held: Observation | None = None
    with closing(frames):
        for frame in frames:
            seen = search.push(frame)
            if held is not None:
                yield held
            held = seen
    if held is not None:
        closed = sorted(search.finish(source.end_seconds), key=lambda found: found.event.start_seconds)
        yield replace(held, closed=(*held.closed, *closed))


def _expected(source: Source, fps: float) -> int | None:
    seconds = source.info.duration_seconds
    return None if seconds is None else max(1, round(seconds * min(fps, source.info.average_fps or fps)))


class _Search:
    """One event detector a query over the same frames, with the pictures that may turn out to be a peak."""

    def __init__(self, rules: Sequence[tuple[str, EventRule]], step_seconds: float) -> None:
        self._rules = rules
        self._step_seconds = step_seconds
        self._last_pts = -math.inf
        self._begin()

    def push(self, frame: FrameScore) -> Observation:
        gap = frame.frame.gap
        closed = [] if gap is None else self._close(gap)
        opened = []
        self._last_pts = pts = frame.pts_seconds
        thumbnail: ByteArray | None = None
        for column, detector in enumerate(self._detectors):
            before = detector.open_since
            closed += self._found(detector.push(pts, float(frame.scores[column])), column)
            if detector.open_since is not None and detector.open_since != before:
                opened.append(OpenedEvent(detector.name, detector.open_since))
            wanted = detector.possible_peaks
            kept = {time: picture for time, picture in self._pictures[column].items() if time in wanted}
            if pts in wanted:
                thumbnail = _thumbnail(frame.frame.pixels) if thumbnail is None else thumbnail
                kept[pts] = thumbnail
            self._pictures[column] = kept
        return Observation(pts, frame.embedding, frame.scores, frame.latency_ms, tuple(opened), tuple(closed), gap)

    def finish(self, end_seconds: float) -> list[ClosedEvent]:
        """Close all events where the picture ends."""
        end_seconds = after_last(self._last_pts, end_seconds, self._step_seconds)
        found = [self._found(detector.finish(end_seconds), column) for column, detector in enumerate(self._detectors)]
        return [closed for each in found for closed in each]

    def _begin(self) -> None:
        self._detectors = [EventDetector(name, rule) for name, rule in self._rules]
        self._pictures: list[dict[float, ByteArray]] = [{} for _ in self._rules]

    def _close(self, gap: Gap) -> list[ClosedEvent]:
        """Close all events where a gap begins, and begin afresh behind it."""
        if self._last_pts == -math.inf:
            return []
        end = after_last(self._last_pts, gap.start_seconds, self._step_seconds)
        closed = self.finish(min(end, gap.end_seconds))
        self._begin()
        return closed

    def _found(self, events: Sequence[Event], column: int) -> list[ClosedEvent]:
        return [ClosedEvent(event, self._pictures[column][event.peak_seconds]) for event in events]


def after_last(last_pts: float, end_seconds: float, step_seconds: float) -> float:
    """Return when the last frame looked at stops being shown.

    A file may claim that a frame is shown for no time at all; it is then taken to last one sampling step.
    """
    return end_seconds if end_seconds > last_pts else last_pts + step_seconds


def _thumbnail(pixels: ByteArray) -> ByteArray:
    picture = PillowImage.fromarray(pixels)
    picture.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS), PillowImage.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(picture)
