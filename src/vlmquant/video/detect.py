"""One call from a video file to its events."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from vlmquant.errors import DataError
from vlmquant.models.spec import ByteArray, Encoder, FloatArray
from vlmquant.progress import Track, silent
from vlmquant.video.events import Event, EventDetector, EventRule
from vlmquant.video.pipeline import FrameScore, PixelEncoder, score_video
from vlmquant.video.prompts import TEMPLATES
from vlmquant.video.sampling import SampleClock
from vlmquant.video.score import EventQuery, Scorer
from vlmquant.video.sources import open_source
from vlmquant.video.sources.source import Gap, Source, VideoInfo

THUMBNAIL_PIXELS = 320
"""The longest edge of a thumbnail."""


class VideoEncoder(Encoder, PixelEncoder, Protocol):
    """What detection needs of an encoder; `DualEncoder` has it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Detection:
    """Everything found in one video, and how.

    `events` are in order of start time. `thumbnails` holds for each of them the frame at its peak: uint8 RGB
    (height, width, 3), at most `THUMBNAIL_PIXELS` wide and high. The n scored frames have presentation times
    `pts_seconds` (n,) float64, probabilities `scores` (n, events asked for) float32 before smoothing, columns as in
    `names`, and `latency_ms` (n,) float64, the work on each frame without decoding. `end_seconds` is where the picture
    ends; `wall_seconds` covers decoding, scoring and everything between. `warnings` says what was damaged or
    missing, `gaps` where nothing is known.
    """

    info: VideoInfo
    model: str
    queries: tuple[EventQuery, ...]
    rule: EventRule
    fps: float
    events: tuple[Event, ...]
    thumbnails: tuple[ByteArray, ...]
    pts_seconds: NDArray[np.float64]
    scores: FloatArray
    latency_ms: NDArray[np.float64]
    end_seconds: float
    wall_seconds: float
    warnings: tuple[str, ...]
    gaps: tuple[Gap, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The events asked for, in the order of the columns of `scores`."""
        return tuple(query.name for query in self.queries)

    @property
    def frames_per_second(self) -> float:
        """Frames decoded, scored and searched per second of wall time."""
        return len(self.pts_seconds) / self.wall_seconds

    @property
    def speed(self) -> float:
        """Seconds of video, gaps not counted, per second of wall time."""
        return self.seen_seconds / self.wall_seconds

    @property
    def seen_seconds(self) -> float:
        """How long the video is without its gaps."""
        return self.end_seconds - sum(gap.seconds for gap in self.gaps)

    @property
    def config(self) -> dict[str, Any]:
        """What, besides the video, decides the result; plain JSON values."""
        return {
            "model": self.model,
            "fps": self.fps,
            "rule": asdict(self.rule),
            "templates": list(TEMPLATES),
            "events": [
                {"name": query.name, "prompts": list(query.prompts), "contrast": list(query.contrast)}
                for query in self.queries
            ],
        }

    @property
    def config_sha256(self) -> str:
        """Digest of `config`: equal for two runs that asked the same in the same way."""
        return hashlib.sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest()


def detect(
    video: str | Path,
    encoder: VideoEncoder,
    events: Sequence[str | EventQuery],
    *,
    fps: float = 5.0,
    rule: EventRule | None = None,
    negatives: Sequence[str] = (),
    batch_size: int = 4,
    on_frame: Callable[[FrameScore], None] | None = None,
    stream: int | None = None,
    track: Track = silent,
) -> Detection:
    """Find events in a video file.

    `events` are phrases or `EventQuery` values; `negatives` are added to every event given as a phrase. `fps` frames
    per second are looked at. `rule` None means `EventRule()`. `on_frame` is called with every scored frame, in order.
    `stream` is the number of the picture's stream in the file, None for the best. No event goes on over a gap in the
    video; a file that breaks off gives what was found before. Both are among the warnings.

    Raises:
        VideoError: the file cannot be opened or holds no picture.
        DataError: no event, or an event without words.
        ValueError: the encoder gave a score that is not a number; the message names the time.
    """
    if isinstance(events, str):
        raise DataError(f"events must be a list of phrases, got the single text {events!r}; put it into a list")
    queries = [event if isinstance(event, EventQuery) else EventQuery.from_text(event, negatives) for event in events]
    step_seconds = SampleClock(fps).step_seconds
    start = time.perf_counter()
    scorer = Scorer(encoder, queries)
    with open_source(video, stream) as source:
        search = _Search(scorer.names, rule or EventRule(), step_seconds)
        frames = score_video(
            source.frames(fps), encoder, scorer.scores, batch_size=batch_size, total=_expected(source, fps), track=track
        )
        with closing(frames):
            for frame in frames:
                search.push(frame)
                if on_frame is not None:
                    on_frame(frame)
        end_seconds = search.finish(source.end_seconds)
    return Detection(
        info=source.info,
        model=encoder.name,
        queries=scorer.queries,
        rule=search.rule,
        fps=fps,
        events=tuple(event for event, _ in search.found),
        thumbnails=tuple(thumbnail for _, thumbnail in search.found),
        pts_seconds=np.array(search.pts, dtype=np.float64),
        scores=np.stack(search.scores),
        latency_ms=np.array(search.latency_ms, dtype=np.float64),
        end_seconds=end_seconds,
        wall_seconds=time.perf_counter() - start,
        gaps=tuple(search.gaps),
        warnings=tuple(source.warnings),
    )


def _expected(source: Source, fps: float) -> int | None:
    seconds = source.info.duration_seconds
    return None if seconds is None else max(1, round(seconds * min(fps, source.info.average_fps or fps)))


class _Search:
    """One detector per event over the same frames, with the pictures that may turn out to be a peak."""

    def __init__(self, names: Sequence[str], rule: EventRule, step_seconds: float) -> None:
        self.rule = rule
        self.gaps: list[Gap] = []
        self._step_seconds = step_seconds
        self.found: list[tuple[Event, ByteArray]] = []
        self.pts: list[float] = []
        self.scores: list[FloatArray] = []
        self.latency_ms: list[float] = []
        self._order = {name: column for column, name in enumerate(names)}
        self._detectors = [EventDetector(name, rule) for name in names]
        self._pictures: list[dict[float, ByteArray]] = [{} for _ in names]

    def push(self, frame: FrameScore) -> None:
        pts = frame.pts_seconds
        if frame.frame.gap is not None:
            self._close(frame.frame.gap)
        self.pts.append(pts)
        self.scores.append(frame.scores)
        self.latency_ms.append(frame.latency_ms)
        thumbnail: ByteArray | None = None
        for column, detector in enumerate(self._detectors):
            self._keep(detector.push(pts, float(frame.scores[column])), column)
            wanted = detector.possible_peaks
            kept = {time: picture for time, picture in self._pictures[column].items() if time in wanted}
            if pts in wanted:
                thumbnail = _thumbnail(frame.frame.pixels) if thumbnail is None else thumbnail
                kept[pts] = thumbnail
            self._pictures[column] = kept

    def finish(self, end_seconds: float) -> float:
        """Close all events where the picture ends and return that time."""
        end_seconds = self._after_last(end_seconds)
        self._end_events(end_seconds)
        self.found.sort(key=lambda item: (item[0].start_seconds, self._order[item[0].name]))
        return end_seconds

    def _close(self, gap: Gap) -> None:
        """Close all events where a gap begins, and begin afresh behind it."""
        self.gaps.append(gap)
        self._end_events(min(self._after_last(gap.start_seconds), gap.end_seconds))
        self._detectors = [EventDetector(name, self.rule) for name in self._order]
        self._pictures = [{} for _ in self._order]

    def _after_last(self, end_seconds: float) -> float:
        """A file may claim that a frame is shown for no time at all; it is then taken to last one sampling step."""
        return self.pts[-1] + self._step_seconds if self.pts and end_seconds <= self.pts[-1] else end_seconds

    def _end_events(self, end_seconds: float) -> None:
        for column, detector in enumerate(self._detectors):
            self._keep(detector.finish(end_seconds), column)

    def _keep(self, events: Sequence[Event], column: int) -> None:
        self.found += [(event, self._pictures[column][event.peak_seconds]) for event in events]


def _thumbnail(pixels: ByteArray) -> ByteArray:
    picture = PillowImage.fromarray(pixels)
    picture.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS), PillowImage.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(picture)
