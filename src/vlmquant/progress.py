"""Progress as a value: long-running functions take a `Track` and default to `silent`."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager, suppress
from typing import IO, Protocol, TypeVar

from vlmquant.text import printable

T = TypeVar("T")


class Track(Protocol):
    """Wraps an iterable so that passing through it shows how far the work is."""

    def __call__(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield every item of `items`; `total` is their number when `len(items)` does not say."""
        ...


def silent(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items and show nothing."""
    del description, total
    yield from items


def bar(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items behind a progress bar on standard error."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import track

    title = escape(printable(description))
    yield from track(items, description=title, total=total, console=Console(stderr=True), transient=True)


class PlainLines:
    """A `Track` for files and pipes: a line every ten seconds, also within an item that takes long."""

    def __init__(
        self, stream: IO[str], every_seconds: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Write to `stream`; the first line comes after `every_seconds`, so short work shows none."""
        self._stream, self._every_seconds, self._clock = stream, every_seconds, clock
        self._last = clock()

    def __call__(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield every item of `items`; a thread writes the lines meanwhile."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        begun, done, done_seconds, ended = self._clock(), 0, 0.0, threading.Event()

        def write_lines() -> None:
            while not ended.wait(max(0.0, self._last + self._every_seconds - self._clock())):
                self._last = self._clock()
                line = progress_line(description, done, total, self._last - begun, done_seconds)
                with suppress(OSError, ValueError):  # nobody reads any more
                    print(line, file=self._stream, flush=True)

        writer = threading.Thread(target=write_lines, daemon=True)
        writer.start()
        try:
            for item in items:
                yield item
                done, done_seconds = done + 1, self._clock() - begun
        finally:
            ended.set()
            writer.join()


def progress_line(description: str, done: int, total: int | None, seconds: float, done_seconds: float) -> str:
    """Return how far the work is after so many `seconds`, and how long the rest takes where that can be told.

    The last item that is done was so after `done_seconds`.
    """
    counted = f"{done}" if total is None else f"{done} of {total}"
    line = f"{printable(description)}: {counted} after {duration(seconds)}"
    left = 0.0 if total is None or not done else done_seconds * total / done - seconds
    return f"{line}, about {duration(left)} left" if left >= 1 else line


def duration(seconds: float) -> str:
    """Return a length of time as people say it: 42 s, 3 min, 2 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def say(track: Track, text: str) -> None:
    """Write one line on standard error, nothing where `track` is `silent`."""
    if track is not silent:
        with suppress(OSError, ValueError):  # nobody reads any more
            print(printable(text), file=sys.stderr, flush=True)


@contextmanager
def said_if_slow(track: Track, text: str, after_seconds: float = 2.0) -> Iterator[None]:
    """Say `text` once if what is done inside takes longer than `after_seconds`."""
    timer = threading.Timer(after_seconds, say, (track, text))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
