"""A kind of source in a file of its own, as a contributor would write one: a lamp that goes on and off."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from vlmquant.video.sampling import SampleClock
from vlmquant.video.sources.source import Frame, VideoInfo

COUNT, FRAMES_PER_SECOND = 20, 10


class Flashes:
    """Two seconds of light and dark in turns."""

    def __init__(self, name: str) -> None:
        self.warnings: list[str] = []
        self.info = VideoInfo(
            path=Path(name),
            width=48,
            height=48,
            duration_seconds=None,
            average_fps=None,
            codec="none",
            rotation_degrees=0,
        )

    @property
    def end_seconds(self) -> float:
        return COUNT / FRAMES_PER_SECOND

    def frames(self, fps: float | None = None) -> Iterator[Frame]:
        clock = None if fps is None else SampleClock(fps)
        for index in range(COUNT):
            seconds = index / FRAMES_PER_SECOND
            if clock is None or clock.keep(seconds):
                pixels = np.full((48, 48, 3), 255 * (index // 5 % 2), np.uint8)
                yield Frame(pixels, seconds, index, 1 / FRAMES_PER_SECOND)

    def close(self) -> None: ...

    def __enter__(self) -> "Flashes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_flashes(name: str, stream: int | None) -> Flashes:
    del stream
    return Flashes(name)
