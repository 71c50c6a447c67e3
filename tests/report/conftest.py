"""A small detection, made by hand; and makes `runs_made` importable: test folders are no packages."""

import sys
from pathlib import Path

import numpy as np
import pytest

from vlmquant.video.detect import Detection, jpeg
from vlmquant.video.events import Event, EventRule
from vlmquant.video.score import EventQuery
from vlmquant.video.sources.source import VideoInfo

sys.path.insert(0, str(Path(__file__).parent))

NAMES = ("a person walking", "a <bus> & a dog")


def make_detection(events=True, warnings=(), frames=40):
    times = np.arange(frames) / 5
    scores = np.stack([0.5 + 0.45 * np.sin(times), 0.2 + 0.1 * np.cos(times)], axis=1).astype(np.float32)
    found = (
        Event(name=NAMES[0], start_seconds=0.4, end_seconds=3.0, peak_seconds=1.6, peak_score=0.953, mean_score=0.81),
        Event(name=NAMES[1], start_seconds=5.0, end_seconds=7.3, peak_seconds=6.0, peak_score=0.71, mean_score=0.64),
    )
    rng = np.random.default_rng(0)
    return Detection(
        info=VideoInfo(
            path=Path("somewhere") / "street<1>.mp4",
            width=320,
            height=180,
            duration_seconds=8.0,
            average_fps=25.0,
            codec="h264",
            rotation_degrees=90,
        ),
        model="street CLIP, static-int8, openvino",
        queries=tuple(EventQuery.from_text(name) for name in NAMES),
        rule=EventRule(),
        fps=5.0,
        events=found if events else (),
        thumbnails=tuple(jpeg(rng.integers(0, 255, (90, 160, 3), dtype=np.uint8)) for _ in found) if events else (),
        pts_seconds=times,
        scores=scores,
        latency_ms=np.linspace(4.0, 8.0, frames),
        end_seconds=8.0,
        wall_seconds=0.5,
        warnings=tuple(warnings),
    )


@pytest.fixture
def detection():
    return make_detection()
