"""From a stream of scores to events `[start, end)`. Streaming is the only implementation.

Hysteresis with two thresholds, as in Canny's edge linking (Canny 1986, "A Computational Approach to Edge Detection",
section VII) and the "double threshold" of sound event detection (Dinkel et al. 2021, arXiv 2101.03229): a candidate
is a longest run of frames with score >= `off` that holds at least one frame with score >= `on`. Candidates with a gap
shorter than `merge_gap_seconds` between them are joined first; what is then shorter than `min_duration_seconds` is
dropped. A frame at time t stands for the interval from t to the next frame's time.
"""

import math
from collections import deque
from dataclasses import dataclass, replace

_ROUNDING_SECONDS = 1e-6
"""Times such as 0.2 * 3 are off by a few units in the last place; thresholds on durations forgive that much."""


@dataclass(frozen=True, kw_only=True)
class EventRule:
    """How scores become events; all defaults live here.

    `on` and `off` are probabilities, 0 <= off <= on <= 1. `smoothing_seconds` is the full width of a centred moving
    average over the scores (0 = none); it delays decisions by half of it. Raises ValueError when out of range. The
    thresholds were chosen on the dev videos of street world, see benchmarks/events_street.py.
    """

    on: float = 0.8
    off: float = 0.6
    min_duration_seconds: float = 0.4
    merge_gap_seconds: float = 1.0
    smoothing_seconds: float = 0.6

    def __post_init__(self) -> None:
        if not 0 <= self.off <= self.on <= 1:
            raise ValueError(f"thresholds must satisfy 0 <= off <= on <= 1, got off={self.off}, on={self.on}")
        for field in ("min_duration_seconds", "merge_gap_seconds", "smoothing_seconds"):
            seconds = getattr(self, field)
            if not (math.isfinite(seconds) and seconds >= 0):
                raise ValueError(f"{field} must be a finite number of seconds >= 0, got {seconds}")

    def changed(self, **given: float) -> "EventRule":
        """Return this rule with the given values in place of its own.

        Where only one of `on` and `off` is given, the other follows it rather than contradict it.
        """
        if "on" in given and "off" not in given:
            given["off"] = min(self.off, given["on"])
        elif "off" in given and "on" not in given:
            given["on"] = max(self.on, given["off"])
        return replace(self, **given)


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something seen during `[start_seconds, end_seconds)`.

    Scores are probabilities after smoothing; `mean_score` is over every frame inside, joined gaps included;
    `peak_seconds` is the presentation time of the first frame with the highest score.
    """

    name: str
    start_seconds: float
    end_seconds: float
    peak_seconds: float
    peak_score: float
    mean_score: float

    @property
    def duration_seconds(self) -> float:
        """End minus start."""
        return self.end_seconds - self.start_seconds


@dataclass(frozen=True)
class _Span:
    """Consecutive frames, summed up so that an event of any length takes constant memory."""

    start: float
    end: float
    peak_seconds: float
    peak_score: float
    total: float
    frames: int

    def then(self, later: "_Span") -> "_Span":
        best = self if self.peak_score >= later.peak_score else later
        return _Span(
            self.start,
            later.end,
            best.peak_seconds,
            best.peak_score,
            self.total + later.total,
            self.frames + later.frames,
        )


class EventDetector:
    """Finds the events of one name in scores pushed frame by frame.

    An event is returned by the call that makes it certain: once the gap after it can no longer be joined, or by
    `finish`. What is returned does not depend on anything but the frames and their order.
    """

    def __init__(self, name: str, rule: EventRule) -> None:
        self.name = name
        self.rule = rule
        self._smoother = _MovingAverage(rule.smoothing_seconds)
        self._last_pts: float | None = None
        self._finished = False
        self._frame: _Span | None = None  # newest smoothed frame, whose end is not known yet
        self._run: _Span | None = None  # frames >= off without interruption, up to now
        self._held: _Span | None = None  # a finished candidate that may still be joined with what comes
        self._gap: _Span | None = None  # the frames after `_held` that belong to no candidate

    @property
    def open_since(self) -> float | None:
        """When the event began, in seconds, that will be reported whatever follows; None while there is none."""
        span = self._held
        if self._run is not None and self._run.peak_score >= self.rule.on:
            span = self._run if span is None or self._gap is None else span.then(self._gap).then(self._run)
        if span is None or span.end - span.start < self.rule.min_duration_seconds - _ROUNDING_SECONDS:
            return None
        return span.start

    @property
    def possible_peaks(self) -> frozenset[float]:
        """Presentation times, in seconds, of the frames pushed so far that can become the peak of a coming event."""
        spans = [span for span in (self._frame, self._run, self._held) if span is not None]
        return frozenset([span.peak_seconds for span in spans] + self._smoother.pending)

    def push(self, pts_seconds: float, score: float) -> list[Event]:
        """Take the next frame and return the events that became certain, oldest first.

        Raises ValueError when the time does not increase or the score is not a probability (NaN included), and after
        `finish`.
        """
        if self._finished:
            raise ValueError(f"{self.name!r}: frame at {pts_seconds} s pushed after finish(); use a new EventDetector")
        if not math.isfinite(pts_seconds) or (self._last_pts is not None and pts_seconds <= self._last_pts):
            raise ValueError(
                f"{self.name!r}: presentation times must increase, got {pts_seconds} s after {self._last_pts} s"
            )
        if not 0 <= score <= 1:
            raise ValueError(f"{self.name!r}: score at {pts_seconds} s is {score}; expected a probability, 0 to 1")
        self._last_pts = float(pts_seconds)
        ready = self._smoother.push(self._last_pts, float(score))
        return [event for pts, smooth in ready for event in self._advance(pts, smooth)]

    def finish(self, end_seconds: float) -> list[Event]:
        """End the stream at the end of the last frame's interval and return the events still open.

        Raises ValueError when `end_seconds` is not after the last frame, and when called twice.
        """
        if self._finished:
            raise ValueError(f"{self.name!r}: finish() called twice")
        if self._last_pts is not None and not end_seconds > self._last_pts:
            raise ValueError(
                f"{self.name!r}: the end {end_seconds} s must come after the last frame, {self._last_pts} s"
            )
        self._finished = True
        events = [event for pts, smooth in self._smoother.finish() for event in self._advance(pts, smooth)]
        self._place_frame(end_seconds)
        self._end_run()
        return events + self._release()

    def _advance(self, pts: float, score: float) -> list[Event]:
        self._place_frame(pts)
        if score < self.rule.off:
            self._end_run()
        next_start = self._run.start if self._run else pts
        expired = self._held is not None and self._gap_is_too_long(self._held.end, next_start)
        self._frame = _Span(pts, pts, pts, score, score, 1)
        return self._release() if expired else []

    def _place_frame(self, end: float) -> None:
        """Add the frame whose interval ends now to the run or to the gap."""
        if self._frame is None:
            return
        frame = _Span(self._frame.start, end, self._frame.peak_seconds, self._frame.peak_score, self._frame.total, 1)
        self._frame = None
        if frame.peak_score < self.rule.off:
            self._gap = frame if self._gap is None else self._gap.then(frame)
        else:
            self._run = frame if self._run is None else self._run.then(frame)

    def _end_run(self) -> None:
        """Turn the run into a candidate, joined to the held one, or into a part of the gap."""
        run, self._run = self._run, None
        if run is None:
            return
        if run.peak_score < self.rule.on:
            self._gap = run if self._gap is None else self._gap.then(run)
        else:
            self._held = run if self._held is None or self._gap is None else self._held.then(self._gap).then(run)
            self._gap = None

    def _gap_is_too_long(self, end: float, next_start: float) -> bool:
        return next_start - end >= self.rule.merge_gap_seconds - _ROUNDING_SECONDS

    def _release(self) -> list[Event]:
        held, self._held, self._gap = self._held, None, None
        if held is None or held.end - held.start < self.rule.min_duration_seconds - _ROUNDING_SECONDS:
            return []
        return [
            Event(
                name=self.name,
                start_seconds=held.start,
                end_seconds=held.end,
                peak_seconds=held.peak_seconds,
                peak_score=held.peak_score,
                mean_score=held.total / held.frames,
            )
        ]


class _MovingAverage:
    """Mean score within half a window around each frame; a frame comes out once its window is full."""

    def __init__(self, window_seconds: float) -> None:
        self._half = window_seconds / 2 + _ROUNDING_SECONDS
        self._window: deque[tuple[float, float]] = deque()
        self._done = 0  # frames at the front of the window that have come out already

    @property
    def pending(self) -> list[float]:
        return [pts for pts, _ in list(self._window)[self._done :]]

    def push(self, pts: float, score: float) -> list[tuple[float, float]]:
        ready = self._take_before(pts - self._half)
        self._window.append((pts, score))
        return ready + (self._take_before(math.inf) if self._half <= _ROUNDING_SECONDS else [])

    def finish(self) -> list[tuple[float, float]]:
        return self._take_before(math.inf)

    def _take_before(self, limit: float) -> list[tuple[float, float]]:
        ready = []
        while self._done < len(self._window) and self._window[self._done][0] < limit:
            center = self._window[self._done][0]
            while self._window[0][0] < center - self._half:
                self._window.popleft()
                self._done -= 1
            near = [score for pts, score in self._window if pts <= center + self._half]
            ready.append((center, math.fsum(near) / len(near)))
            self._done += 1
        return ready
