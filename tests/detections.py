"""Detections without a video: what a search found, made by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from vlmquant.video.detect import Detection, jpeg
from vlmquant.video.events import Event, EventRule
from vlmquant.video.score import EventQuery
from vlmquant.video.sources.source import VideoInfo


def found(name: str, start: float, end: float) -> Event:
    return Event(
        name=name,
        start_seconds=start,
        end_seconds=end,
        peak_seconds=start,
        peak_score=0.98765432,
        mean_score=0.75,
    )


def sample_detection() -> Detection:
    events = (
        found("a dog & <cat>", 0.5, 2.0),
        found("crowd, dense", 1.0, 1.0002),
        found("crowd, dense", 3723.4567, 3724),
    )
    return Detection(
        info=VideoInfo(
            path=Path("folder") / "street.mp4",
            width=64,
            height=48,
            duration_seconds=3725.0,
            average_fps=25.0,
            codec="h264",
            rotation_degrees=0,
        ),
        model="street-clip [openvino]",
        queries=(
            EventQuery("a dog & <cat>", ("a dog", "a cat")),
            EventQuery("crowd, dense", ("a crowd",), ("a café",)),
        ),
        rule=EventRule(),
        fps=5.0,
        events=events,
        thumbnails=tuple(jpeg(np.full((20, 30, 3), 40 * index, np.uint8)) for index in range(3)),
        pts_seconds=np.array([0.0, 0.2, 0.4, 3724.0]),
        scores=np.array([[0.1, 0.2], [0.9, 0.25], [1.0, 0.0], [0.5, 0.5]], np.float32),
        latency_ms=np.array([5.0, 6.0, 7.0, 8.0]),
        end_seconds=3725.0,
        wall_seconds=10.0,
        warnings=(),
    )


HOSTILE = "=cmd|'/c calc' $x^$ [red]a[/red] \x1b[2J\u202e"
SHOWN = "=cmd|'/c calc' $x^$ [red]a[/red] \\x1b[2J\\u202e"


def hostile_detection() -> Detection:
    """Names that spreadsheets, terminals and drawing libraries would act on."""
    detection = sample_detection()
    query = EventQuery(HOSTILE, ("@a dog", "-1"))
    info = replace(detection.info, path=Path("folder") / f"{HOSTILE.replace('/', ' ')}\udce9.mp4")
    return replace(detection, info=info, queries=(query,), events=(found(HOSTILE, 0.5, 2.0),),
                   thumbnails=detection.thumbnails[:1], scores=detection.scores[:, :1])  # fmt: skip
