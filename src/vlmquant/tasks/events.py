"""Scores the events found in many videos against what really happened in them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Protocol

import numpy as np

from vlmquant.errors import DataError
from vlmquant.metrics.events import (
    TIOU_THRESHOLDS,
    Delays,
    EventCounts,
    EventSpan,
    FalseAlarms,
    Intervals,
    ScoredIntervals,
    average_precision,
    count_by_iou,
    count_by_tolerance,
    detection_delays,
    false_alarms,
    frame_average_precision,
    frame_labels,
    intervals,
)


class FoundEvent(EventSpan, Protocol):
    """A found event with the score it is ranked by."""

    @property
    def mean_score(self) -> float:
        """Mean probability over its frames; unlike the peak it does not saturate at 1."""
        ...


class Found(Protocol):
    """What a search of one video gave; `video.detect.Detection` is one."""

    @property
    def names(self) -> tuple[str, ...]:
        """The events that were looked for."""
        ...

    @property
    def events(self) -> Sequence[FoundEvent]:
        """The events that were found."""
        ...

    @property
    def pts_seconds(self) -> np.ndarray:
        """Times of the scored frames, (n,)."""
        ...

    @property
    def scores(self) -> np.ndarray:
        """Scores of the frames, (n, names)."""
        ...

    @property
    def end_seconds(self) -> float:
        """How long the video is."""
        ...


@dataclass(frozen=True, kw_only=True)
class EventScore:
    """How well one event is found over all videos.

    `by_iou` matches by temporal IoU, `by_tolerance` by start and end (sed_eval's rule). `average_precisions` are
    pairs (temporal IoU, AP). `frame_ap` judges the scores before any threshold, over the frames of all videos; it is
    NaN when the event never happens.
    """

    name: str
    by_iou: EventCounts
    by_tolerance: EventCounts
    average_precisions: tuple[tuple[float, float], ...]
    frame_ap: float
    false_alarms: FalseAlarms
    delays: Delays

    @property
    def mean_ap(self) -> float:
        """Mean of the average precisions over the temporal IoU thresholds."""
        return float(np.mean([ap for _, ap in self.average_precisions]))


@dataclass(frozen=True)
class EventScores:
    """Scores of every event, in the order in which they were asked for, and their summaries."""

    events: tuple[EventScore, ...]
    videos: int

    def __getitem__(self, name: str) -> EventScore:
        """Return the score of one event. Raises KeyError when it was not asked for."""
        return {event.name: event for event in self.events}[name]

    @property
    def micro(self) -> EventCounts:
        """Counts by temporal IoU summed over the events: frequent ones weigh more."""
        return reduce(add, (event.by_iou for event in self.events), EventCounts())

    @property
    def macro_f1(self) -> float:
        """Mean F1 by temporal IoU over the events that happen or are found at least once."""
        return _mean_of_numbers([event.by_iou.f1 for event in self.events])

    @property
    def mean_average_precision(self) -> float:
        """Mean over events and temporal IoU thresholds; an event that never happens counts 0."""
        return float(np.mean([event.mean_ap for event in self.events]))

    @property
    def macro_frame_ap(self) -> float:
        """Mean frame AP over the events that happen at least once."""
        return _mean_of_numbers([event.frame_ap for event in self.events])

    @property
    def false_alarms_per_hour(self) -> float:
        """False alarms of all events together per hour of video."""
        hours = self.events[0].false_alarms.hours
        return sum(event.false_alarms.count for event in self.events) / hours


def score_events(
    found: Sequence[Found],
    truth: Sequence[Sequence[EventSpan]],
    *,
    tiou: float = 0.5,
    tolerance_seconds: float = 0.5,
    tious: Sequence[float] = TIOU_THRESHOLDS,
) -> EventScores:
    """Score what was found in each video against its true events.

    `tiou` is the least temporal IoU of a match in `by_iou`, `tolerance_seconds` that of starts and ends in
    `by_tolerance`, `tious` are those of the average precisions. True events with names that were not looked for are
    left out.

    Raises:
        DataError: there is no video, the numbers of videos differ, or not all were searched for the same events.
    """
    if not found or len(found) != len(truth):
        raise DataError(f"expected one list of true events per video, got {len(found)} videos and {len(truth)} lists")
    names = found[0].names
    for video in found:
        if video.names != names:
            raise DataError(f"all videos must be searched for the same events, got {names} and {video.names}")

    scores = []
    for column, name in enumerate(names):
        pairs = [_pair(video, true, name) for video, true in zip(found, truth, strict=True)]
        delays = (detection_delays(pair.found, pair.true) for pair in pairs)
        alarms = (
            false_alarms(pair.found, pair.true, video.end_seconds) for video, pair in zip(found, pairs, strict=True)
        )
        scores.append(
            EventScore(
                name=name,
                by_iou=_total(count_by_iou(pair.found, pair.true, tiou) for pair in pairs),
                by_tolerance=_total(
                    count_by_tolerance(pair.found, pair.true, tolerance_seconds=tolerance_seconds) for pair in pairs
                ),
                average_precisions=tuple((threshold, average_precision(pairs, threshold)) for threshold in tious),
                frame_ap=_frame_ap(found, pairs, column),
                false_alarms=reduce(add, alarms),
                delays=reduce(add, delays),
            )
        )
    return EventScores(tuple(scores), len(found))


def _total(counts: Iterable[EventCounts]) -> EventCounts:
    return reduce(add, counts, EventCounts())


def _frame_ap(found: Sequence[Found], pairs: Sequence[ScoredIntervals], column: int) -> float:
    labels = [frame_labels(video.pts_seconds, pair.true) for video, pair in zip(found, pairs, strict=True)]
    return frame_average_precision(np.concatenate([video.scores[:, column] for video in found]), np.concatenate(labels))


def _pair(video: Found, truth: Sequence[EventSpan], name: str) -> ScoredIntervals:
    found = [event for event in video.events if event.name == name]
    return ScoredIntervals(
        _intervals(found),
        np.array([event.mean_score for event in found], dtype=np.float64),
        _intervals([event for event in truth if event.name == name]),
    )


def _intervals(events: Sequence[EventSpan]) -> Intervals:
    return intervals([(event.start_seconds, event.end_seconds) for event in events])


def _mean_of_numbers(values: Sequence[float]) -> float:
    numbers = [value for value in values if not math.isnan(value)]
    return float(np.mean(numbers)) if numbers else math.nan
