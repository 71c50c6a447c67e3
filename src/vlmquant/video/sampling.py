"""Which frames to look at: those that reach the next tick of a fixed grid over presentation time."""

import math
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from vlmquant.errors import VideoError

FASTEST_FPS, SLOWEST_FPS = 1000.0, 1e-4
"""No video has more frames in a second, and no event can be found in less than one frame in hours."""

_ROUNDING_SECONDS = 1e-3
"""Containers round times (Matroska to milliseconds): a frame this much before its tick is still on it."""


class Timed(Protocol):
    """Anything with a presentation time."""

    @property
    def pts_seconds(self) -> float:
        """When it is shown, in seconds."""
        ...


T = TypeVar("T", bound=Timed)


class SampleClock:
    """Decides frame by frame, from presentation times alone, whether to keep a frame.

    The ticks are k / fps, k = 0, 1, 2, ... A frame is kept when it is the first one at or after a tick that no kept
    frame has reached. So the rate never drifts, frame numbers and nominal frame rates play no part, a gap in the video
    is followed by one frame and not by a burst, and a video slower than `fps` keeps each of its frames once.

    Raises:
        VideoError: `fps` is not between `SLOWEST_FPS` and `FASTEST_FPS`.
    """

    def __init__(self, fps: float) -> None:
        if not SLOWEST_FPS <= fps <= FASTEST_FPS:
            raise VideoError(
                f"frames per second must be a number above 0, from {SLOWEST_FPS:g} to {FASTEST_FPS:g}, got {fps:g}; "
                "5 suits most events"
            )
        self._fps = fps
        self._forgiven_seconds = min(_ROUNDING_SECONDS, 0.25 / fps)
        self._last_tick = -1

    @property
    def step_seconds(self) -> float:
        """The time from tick to tick."""
        return 1 / self._fps

    def keep(self, pts_seconds: float) -> bool:
        """Say whether the frame at this time is a sample; call once per frame, in order of time."""
        tick = math.floor((pts_seconds + self._forgiven_seconds) * self._fps)
        if tick <= self._last_tick:
            return False
        self._last_tick = tick
        return True


def sample(frames: Iterable[T], fps: float) -> Iterator[T]:
    """Yield `fps` frames per second of presentation time, as `SampleClock` chooses them.

    `VideoSource.frames(fps=...)` chooses the same frames of a file without converting the others to RGB.
    Raises VideoError at once when `fps` is out of range.
    """
    clock = SampleClock(fps)
    return (frame for frame in frames if clock.keep(frame.pts_seconds))
