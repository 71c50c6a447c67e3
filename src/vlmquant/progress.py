"""Progress bars as a value: long-running functions take a `Track` and default to `silent`."""

import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

T = TypeVar("T")


class Track(Protocol):
    """Wraps an iterable so that passing through it shows how far the work is."""

    def __call__(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield every item of `items`; `total` is their number when `len(items)` does not tell."""
        ...


def silent(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items and show nothing."""
    del description, total
    yield from items


def bar(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items behind a progress bar on standard error."""
    from rich.console import Console
    from rich.progress import track

    yield from track(items, description=description, total=total, console=Console(stderr=True), transient=True)


def say(track: Track, text: str) -> None:
    """Write one line on standard error, nothing where `track` is `silent`."""
    if track is not silent:
        print(text, file=sys.stderr, flush=True)


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
