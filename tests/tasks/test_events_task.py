import math
from dataclasses import dataclass

import numpy as np
import pytest

from vlmquant.errors import DataError
from vlmquant.metrics.events import EventCounts
from vlmquant.tasks.events import score_events


@dataclass(frozen=True)
class Timed:
    name: str
    start_seconds: float
    end_seconds: float
    mean_score: float = 0.8


class SearchedVideo:
    """Ten seconds at one frame per second; a frame scores 0.9 inside a found event and 0.1 outside."""

    names: tuple[str, ...] = ("walk", "stop")
    end_seconds = 10.0
    pts_seconds = np.arange(10.0)

    def __init__(self, *events: Timed) -> None:
        self.events = events

    @property
    def scores(self) -> np.ndarray:
        columns = [
            [
                max((0.9 for e in self.events if e.name == name and e.start_seconds <= t < e.end_seconds), default=0.1)
                for t in self.pts_seconds
            ]
            for name in self.names
        ]
        return np.array(columns, np.float32).T


def test_scores_by_hand() -> None:
    videos = [
        SearchedVideo(Timed("walk", 1, 5), Timed("walk", 7, 8), Timed("stop", 3, 4)),
        SearchedVideo(Timed("walk", 2, 6)),
    ]
    truth = [[Timed("walk", 1, 5), Timed("unasked", 0, 9)], [Timed("walk", 3, 6), Timed("stop", 0, 1)]]
    scores = score_events(videos, truth)
    walk, stop = scores.events
    assert walk.by_iou == EventCounts(matched=2, found=3, true=2)  # (2, 6) against (3, 6): 3/4
    assert walk.by_tolerance == EventCounts(matched=1, found=3, true=2)  # begins a second early
    assert stop.by_iou == EventCounts(matched=0, found=1, true=1)
    assert scores.micro == EventCounts(2, 4, 3)
    assert scores.macro_f1 == pytest.approx((2 * 2 / 5 + 0) / 2)
    assert (walk.false_alarms.count, stop.false_alarms.count) == (1, 1)
    assert scores.false_alarms_per_hour == pytest.approx(2 / (20 / 3600))
    assert walk.delays.seconds == (0, 0)
    assert (stop.delays.seconds, stop.delays.missed) == ((), 1)
    # all scores are equal, so the order is as found: hit, false, hit -> 1/2 * 1 + 1/2 * 2/3
    assert dict(walk.average_precisions)[0.5] == pytest.approx(0.5 + 1 / 3)
    assert walk.mean_ap == pytest.approx(0.5 + 1 / 3)
    assert scores.mean_average_precision == pytest.approx((0.5 + 1 / 3) / 2)
    # nine frames above the threshold, seven of them right, all seven that are: precision 7/9 at recall 1
    assert walk.frame_ap == pytest.approx(7 / 9)
    assert scores["stop"] is stop
    assert scores.videos == 2


def test_an_event_that_never_happens_has_no_frame_ap_and_no_f1() -> None:
    scores = score_events([SearchedVideo(Timed("walk", 1, 5))], [[Timed("walk", 1, 5)]])
    assert math.isnan(scores["stop"].by_iou.f1)
    assert math.isnan(scores["stop"].frame_ap)
    assert scores.macro_f1 == 1
    assert scores.macro_frame_ap == 1
    assert scores.micro.f1 == 1


def test_thresholds_are_asked_for() -> None:
    videos, truth = [SearchedVideo(Timed("walk", 2, 6))], [[Timed("walk", 3, 6)]]
    assert score_events(videos, truth, tiou=0.8)["walk"].by_iou.matched == 0
    assert score_events(videos, truth, tolerance_seconds=1.0)["walk"].by_tolerance.matched == 1
    assert score_events(videos, truth, tious=(0.9,))["walk"].average_precisions == ((0.9, 0.0),)


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(DataError, match="got 0 videos"):
        score_events([], [])
    with pytest.raises(DataError, match="got 1 videos and 2 lists"):
        score_events([SearchedVideo()], [[], []])
    other = SearchedVideo()
    other.names = ("walk",)
    with pytest.raises(DataError, match="same events"):
        score_events([SearchedVideo(), other], [[], []])
