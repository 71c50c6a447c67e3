"""What every source gives: frames in order, each with its time, and what is known of the gaps between them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from vlmquant.models.spec import ByteArray


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A stretch of which nothing is known: no event goes on over it.

    `why` is a clause such as "50 packets do not decode". A clock that was set back leaves a gap of unknown length, for
    which both times, in seconds, are equal. Raises ValueError when it ends before it starts.
    """

    start_seconds: float
    end_seconds: float
    why: str

    def __post_init__(self) -> None:
        if not self.start_seconds <= self.end_seconds:
            raise ValueError(f"a gap cannot end before it starts, got {self.start_seconds} to {self.end_seconds} s")

    @property
    def seconds(self) -> float:
        """How long it is; 0 where nobody knows."""
        return self.end_seconds - self.start_seconds


@dataclass(frozen=True, eq=False)
class Frame:
    """One shown picture.

    `pixels` is (height, width, 3) uint8 RGB, upright (display rotation applied), C order. `pts_seconds` >= 0 is when
    it is shown, and grows from frame to frame. `index` counts the shown frames of the video from 0, sampled or not.
    `duration_seconds` is how long it is shown, None where the source does not say. `gap` is the one
    between the frame before and this one, which is yielded whatever is sampled.
    """

    pixels: ByteArray
    pts_seconds: float
    index: int
    duration_seconds: float | None = None
    gap: Gap | None = None

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3 or self.pixels.shape[2] != 3 or self.pixels.dtype != np.uint8:
            raise ValueError(f"pixels must be (height, width, 3) uint8, got {self.pixels.shape} {self.pixels.dtype}")


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a source says about its picture before it is decoded.

    `width` and `height` are those of the upright frames in pixels; `rotation_degrees` (0, 90, 180, 270; clockwise) has
    been applied to them. `duration_seconds` and `average_fps` are the header's claims, None where it makes none.
    `stream` is the number of the picture's stream in the file.
    """

    path: Path
    width: int
    height: int
    duration_seconds: float | None
    average_fps: float | None
    codec: str
    rotation_degrees: int
    stream: int = 0


class Source(Protocol):
    """An open video, for one pass over its frames; use it in a `with`.

    `warnings` grows while frames are read: what was damaged, mended or missing, one sentence each.
    """

    warnings: list[str]

    @property
    def info(self) -> VideoInfo:
        """What is known before decoding."""
        ...

    @property
    def end_seconds(self) -> float:
        """When the last frame read so far stops being shown."""
        ...

    def frames(self, fps: float | None = None) -> Iterator[Frame]:
        """Yield the frames in order of presentation: all, or `fps` per second as `SampleClock` chooses them."""
        ...

    def close(self) -> None:
        """Let go of it; frames already taken stay valid."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
