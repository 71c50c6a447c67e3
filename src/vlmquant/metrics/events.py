"""How well found intervals agree with true ones. Pure functions on arrays; raw counts are kept, rates are properties.

Intervals are (n, 2) arrays of `[start, end)` in seconds. A rate whose denominator is 0 is NaN, as in sed_eval
(Mesaros et al. 2016, "Metrics for Polyphonic Sound Event Detection"), except average precision, which is 0 for a class
without truth, as in ActivityNet (Heilbron et al. 2015).
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Intervals = NDArray[np.float64]

TIOU_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
"""The temporal IoU thresholds of the THUMOS14 protocol."""


class EventSpan(Protocol):
    """Something with a name that happens during `[start_seconds, end_seconds)`."""

    @property
    def name(self) -> str:
        """What happens."""
        ...

    @property
    def start_seconds(self) -> float:
        """When it begins."""
        ...

    @property
    def end_seconds(self) -> float:
        """When it is over."""
        ...


@dataclass(frozen=True)
class EventCounts:
    """Counts of a one-to-one matching between found and true events."""

    matched: int = 0
    found: int = 0
    true: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.matched <= min(self.found, self.true):
            raise ValueError(f"{self.matched} matches between {self.found} found and {self.true} true events")

    def __add__(self, other: "EventCounts") -> "EventCounts":
        return EventCounts(self.matched + other.matched, self.found + other.found, self.true + other.true)

    @property
    def precision(self) -> float:
        """Matched over found."""
        return _ratio(self.matched, self.found)

    @property
    def recall(self) -> float:
        """Matched over true."""
        return _ratio(self.matched, self.true)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall: 2 matched / (found + true)."""
        return _ratio(2 * self.matched, self.found + self.true)


@dataclass(frozen=True)
class FalseAlarms:
    """Found events that overlap no true event, within `hours` of video."""

    count: int
    hours: float

    def __add__(self, other: "FalseAlarms") -> "FalseAlarms":
        return FalseAlarms(self.count + other.count, self.hours + other.hours)

    @property
    def per_hour(self) -> float:
        """Alarms per hour of video."""
        return _ratio(self.count, self.hours)


@dataclass(frozen=True)
class Delays:
    """Seconds from the start of each noticed true event to the first found one; `missed` events have none."""

    seconds: tuple[float, ...] = ()
    missed: int = 0

    def __add__(self, other: "Delays") -> "Delays":
        return Delays(self.seconds + other.seconds, self.missed + other.missed)

    @property
    def median(self) -> float:
        """Median over the noticed events."""
        return float(np.median(self.seconds)) if self.seconds else math.nan

    @property
    def p95(self) -> float:
        """95th percentile over the noticed events, linearly interpolated."""
        return float(np.percentile(self.seconds, 95)) if self.seconds else math.nan


@dataclass(frozen=True, eq=False)
class ScoredIntervals:
    """One event class in one video: found intervals (n, 2) with scores (n,), and true intervals (m, 2).

    Raises ValueError when shapes differ, an interval is empty or reversed, or a number is not finite.
    """

    found: Intervals
    scores: NDArray[np.float64]
    true: Intervals

    def __post_init__(self) -> None:
        object.__setattr__(self, "found", intervals(self.found))
        object.__setattr__(self, "true", intervals(self.true))
        object.__setattr__(self, "scores", np.asarray(self.scores, dtype=np.float64))
        if self.scores.shape != (len(self.found),) or not np.isfinite(self.scores).all():
            raise ValueError(f"expected {len(self.found)} finite scores, one per found event, got {self.scores}")


def intervals(pairs: ArrayLike) -> Intervals:
    """Return `pairs` as (n, 2) float64; an empty list is (0, 2). Raises ValueError unless start < end everywhere."""
    array = np.asarray(pairs, dtype=np.float64)
    array = array.reshape(0, 2) if array.size == 0 else array
    if array.ndim != 2 or array.shape[1] != 2 or not np.isfinite(array).all():
        raise ValueError(f"intervals must be finite (n, 2), got shape {array.shape}")
    empty = array[array[:, 0] >= array[:, 1]]
    if len(empty):
        raise ValueError(f"an interval must end after it starts, got {empty[0].tolist()}")
    return array


def temporal_iou(found: ArrayLike, true: ArrayLike) -> NDArray[np.float64]:
    """Return (n, m) intersection over union of (n, 2) and (m, 2) intervals, 0 to 1."""
    a, b = intervals(found), intervals(true)
    overlap = np.minimum(a[:, None, 1], b[None, :, 1]) - np.maximum(a[:, None, 0], b[None, :, 0])
    overlap = overlap.clip(min=0)
    union = np.diff(a) + np.diff(b).T - overlap
    return np.asarray(overlap / union)


def count_by_iou(found: ArrayLike, true: ArrayLike, tiou: float = 0.5) -> EventCounts:
    """Match one to one the pairs with temporal IoU >= `tiou`, as many as possible."""
    return _count(temporal_iou(found, true) >= tiou)


def count_by_tolerance(
    found: ArrayLike, true: ArrayLike, *, tolerance_seconds: float, end_fraction: float = 0.5
) -> EventCounts:
    """Match one to one, as many as possible, the pairs whose starts and ends agree.

    sed_eval's event-based rule: starts differ by at most `tolerance_seconds`, ends by at most the larger of that and
    `end_fraction` of the true event's duration.
    """
    a, b = intervals(found), intervals(true)
    difference = np.abs(a[:, None, :] - b[None, :, :])
    end_tolerance = np.maximum(tolerance_seconds, end_fraction * np.diff(b)[:, 0])
    return _count((difference[..., 0] <= tolerance_seconds) & (difference[..., 1] <= end_tolerance))


def average_precision(videos: Sequence[ScoredIntervals], tiou: float) -> float:
    """Return the interpolated average precision of one event class over many videos, 0 to 1.

    ActivityNet's rule: found events in order of falling score (ties: as given) each take the free true event of their
    video with the highest temporal IoU >= `tiou`, or count as false, as all do in a video without truth. Precision at
    a recall is the best precision at that or a higher recall. Without any true event the result is 0.
    """
    positives = sum(len(video.true) for video in videos)
    hits = _hits_by_falling_score(videos, tiou)
    if positives == 0 or len(hits) == 0:
        return 0.0
    matched = np.cumsum(hits)
    precision = matched / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[hits].sum() / positives)


def mean_average_precision(classes: Sequence[Sequence[ScoredIntervals]], tiou: float) -> float:
    """Return the mean over event classes of `average_precision`; NaN without classes."""
    return float(np.mean([average_precision(videos, tiou) for videos in classes])) if classes else math.nan


def frame_labels(pts_seconds: ArrayLike, true: ArrayLike) -> NDArray[np.bool_]:
    """Say for each of (n,) times whether it lies in one of the (m, 2) intervals `[start, end)`."""
    pts, pairs = np.asarray(pts_seconds, dtype=np.float64), intervals(true)
    inside = (pts[:, None] >= pairs[None, :, 0]) & (pts[:, None] < pairs[None, :, 1])
    return np.asarray(inside.any(axis=1))


def frame_average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Return the average precision of (n,) scores for (n,) labels; NaN without a positive label.

    The sum over thresholds of (recall step) x precision without interpolation, equal scores taken together:
    scikit-learn's `average_precision_score`. Raises ValueError when shapes differ or a score is not finite.
    """
    values, positive = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    if values.shape != positive.shape or values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"expected finite (n,) scores and (n,) labels, got {values.shape} and {positive.shape}")
    if not positive.any():
        return math.nan
    order = np.argsort(-values, kind="stable")
    last_of_ties = np.append(np.diff(values[order]) != 0, True)
    matched = np.cumsum(positive[order])[last_of_ties]
    precision = matched / (np.flatnonzero(last_of_ties) + 1)
    return float((np.diff(matched, prepend=0) * precision).sum() / positive.sum())


def false_alarms(found: ArrayLike, true: ArrayLike, duration_seconds: float) -> FalseAlarms:
    """Count the found events that overlap no true event of the same class, in a video of this length.

    A second alarm during one true event is not counted here; it costs precision.
    """
    overlaps = temporal_iou(found, true) > 0
    return FalseAlarms(int((~overlaps.any(axis=1)).sum()), duration_seconds / 3600)


def detection_delays(found: ArrayLike, true: ArrayLike) -> Delays:
    """Return for each true event how long after its start the first found event that overlaps it starts, at least 0.

    This is about where the interval begins; a live alert comes later, once the event is long enough to be certain.
    """
    a, b = intervals(found), intervals(true)
    overlaps = temporal_iou(a, b) > 0
    noticed = overlaps.any(axis=0)
    firsts = np.where(overlaps, a[:, :1], np.inf).min(axis=0, initial=np.inf)
    seconds = np.maximum(firsts[noticed] - b[noticed, 0], 0.0)
    return Delays(tuple(seconds.tolist()), int((~noticed).sum()))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _count(allowed: NDArray[np.bool_]) -> EventCounts:
    found, true = allowed.shape
    return EventCounts(_largest_matching(allowed), found, true)


def _largest_matching(allowed: NDArray[np.bool_]) -> int:
    """Return the size of a maximum bipartite matching: one augmenting path per row, searched breadth first."""
    columns_of = [np.flatnonzero(row).tolist() for row in allowed]
    row_of: dict[int, int] = {}
    column_of: dict[int, int] = {}
    for start in range(len(columns_of)):
        reached_from: dict[int, int] = {}
        rows = deque([start])
        free: int | None = None
        while rows and free is None:
            row = rows.popleft()
            for column in columns_of[row]:
                if column in reached_from:
                    continue
                reached_from[column] = row
                if column not in row_of:
                    free = column
                    break
                rows.append(row_of[column])
        while free is not None:
            row = reached_from[free]
            row_of[free] = row
            column_of[row], free = free, column_of.get(row)
    return len(row_of)


def _hits_by_falling_score(videos: Sequence[ScoredIntervals], tiou: float) -> NDArray[np.bool_]:
    ranked = sorted(
        ((-score, which, row) for which, video in enumerate(videos) for row, score in enumerate(video.scores)),
        key=lambda item: item[0],
    )
    overlaps = [temporal_iou(video.found, video.true) for video in videos]
    hits = []
    for _, which, row in ranked:
        free = overlaps[which][row]
        best = len(free) - 1 - int(free[::-1].argmax()) if free.size else -1  # of equals the last, as in ActivityNet
        hit = best >= 0 and free[best] >= tiou
        if hit:
            overlaps[which][:, best] = -1.0  # taken: never again the best
        hits.append(hit)
    return np.array(hits, dtype=bool)
