"""One call from a video file to its events."""

import hashlib
import io
import json
import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from vlmquant.errors import DataError, VideoError
from vlmquant.models.spec import ByteArray, FloatArray
from vlmquant.progress import Track, silent
from vlmquant.video.events import Event, EventRule
from vlmquant.video.prompts import TEMPLATES
from vlmquant.video.sampling import SampleClock
from vlmquant.video.score import EventQuery
from vlmquant.video.sources import open_source
from vlmquant.video.sources.source import Gap, VideoInfo
from vlmquant.video.watch import Observation, VideoEncoder, after_last, watch


@dataclass(frozen=True, kw_only=True, eq=False)
class Detection:
    """Everything found in one video, and how.

    `events` are in order of start time. `thumbnails` holds for each of them the frame at its peak as a JPEG file, at
    most `THUMBNAIL_PIXELS` wide and high. The n scored frames have presentation times
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
    thumbnails: tuple[bytes, ...]
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
    def rules(self) -> tuple[EventRule, ...]:
        """How scores became events, for each in the order of `names`."""
        return tuple(query.rule or self.rule for query in self.queries)

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
                {
                    "name": query.name,
                    "prompts": list(query.prompts),
                    "contrast": list(query.contrast),
                    **({} if query.rule is None else {"rule": asdict(query.rule)}),
                }
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
    on_frame: Callable[[Observation], None] | None = None,
    stream: int | None = None,
    track: Track = silent,
) -> Detection:
    """Find events in a video file.

    `events` are phrases or `EventQuery` values; `negatives` are added to every event given as a phrase. `fps` frames
    per second are looked at. `rule` is that of events without one of their own, None for `EventRule()`. `on_frame` is
    called with every observation, in order.
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
    common = rule or EventRule()
    start = time.perf_counter()
    collected = _Collected()
    with open_source(video, stream) as source:
        seen = watch(source, encoder, queries, fps=fps, rule=common, batch_size=batch_size, track=track)
        with closing(seen):
            for observation in seen:
                collected.add(observation)
                if on_frame is not None:
                    on_frame(observation)
        if not collected.pts:
            raise VideoError(f"{video} gave no picture")
        end_seconds = after_last(collected.pts[-1], source.end_seconds, step_seconds)
    order = {query.name: column for column, query in enumerate(queries)}
    collected.found.sort(key=lambda found: (found[0].start_seconds, order[found[0].name]))
    return Detection(
        info=source.info,
        model=encoder.name,
        queries=tuple(queries),
        rule=common,
        fps=fps,
        events=tuple(event for event, _ in collected.found),
        thumbnails=tuple(thumbnail for _, thumbnail in collected.found),
        pts_seconds=np.array(collected.pts, dtype=np.float64),
        scores=np.array(collected.scores, dtype=np.float32).reshape(-1, len(queries)),
        latency_ms=np.array(collected.latency_ms, dtype=np.float64),
        end_seconds=end_seconds,
        wall_seconds=time.perf_counter() - start,
        gaps=tuple(collected.gaps),
        warnings=tuple(source.warnings),
    )


class _Collected:
    """The numbers of a run, 16 bytes a frame and 4 an event, and each event with its thumbnail as a JPEG file."""

    def __init__(self) -> None:
        self.pts, self.latency_ms, self.scores = array("d"), array("d"), array("f")
        self.found: list[tuple[Event, bytes]] = []
        self.gaps: list[Gap] = []

    def add(self, observation: Observation) -> None:
        self.pts.append(observation.pts_seconds)
        self.latency_ms.append(observation.latency_ms)
        self.scores.extend(observation.scores)
        self.found += [(closed.event, jpeg(closed.thumbnail)) for closed in observation.closed]
        if observation.gap is not None:
            self.gaps.append(observation.gap)


def jpeg(pixels: ByteArray) -> bytes:
    """Return uint8 RGB (height, width, 3) as a JPEG file."""
    data = io.BytesIO()
    PillowImage.fromarray(pixels).save(data, format="JPEG", quality=85)
    return data.getvalue()
