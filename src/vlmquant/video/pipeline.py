"""Frames to scores: decoding | preprocessing | inference overlap, joined by bounded queues.

Decoding and preprocessing run in a thread each; inference runs in the thread that asks for the next score. Both FFmpeg
and Pillow release the interpreter lock, so the three really run at the same time. Whatever ends the run (the last
frame, an exception in any stage, the caller closing the iterator) stops and joins both threads first.
"""

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from vlmquant.models.preprocess import preprocess
from vlmquant.models.spec import FloatArray, ImageSpec
from vlmquant.progress import Track, silent
from vlmquant.video.sources.source import Frame

_POLL_SECONDS = 0.05
"""How often a stage that waits looks whether the run was ended."""

T = TypeVar("T")


class PixelEncoder(Protocol):
    """The part of `DualEncoder` that scoring frames needs."""

    @property
    def image_spec(self) -> ImageSpec:
        """How a picture becomes the tower's input."""
        ...

    def encode_pixels(self, pixels: FloatArray) -> FloatArray:
        """Return (n, d) float32 unit rows for preprocessed (n, 3, height, width) pixels."""
        ...


@dataclass(frozen=True, eq=False)
class FrameScore:
    """The embedding and the scores of one frame.

    `scores` is (events,) float32, `embedding` (d,) float32 of unit length. `latency_ms` is the work spent
    on this frame: its preprocessing, plus its batch's inference and scoring divided by the frames in the batch;
    decoding and waiting in queues are not in it. `frame` is the picture itself, for thumbnails; let go of it soon, as a
    1080p frame takes 6 MB.
    """

    frame: Frame
    scores: FloatArray
    latency_ms: float
    embedding: FloatArray

    @property
    def pts_seconds(self) -> float:
        """When the frame is shown."""
        return self.frame.pts_seconds


@dataclass(frozen=True, eq=False)
class _Prepared:
    frame: Frame
    pixels: FloatArray
    preprocess_ms: float


def score_video(
    frames: Iterable[Frame],
    encoder: PixelEncoder,
    scores: Callable[[FloatArray], FloatArray],
    *,
    batch_size: int = 4,
    queue_size: int = 8,
    total: int | None = None,
    track: Track = silent,
) -> Generator[FrameScore, None, None]:
    """Yield one `FrameScore` per frame, in order.

    `scores` maps (n, d) embeddings to (n, events). Batches hold exactly `batch_size` frames except the last, so results
    do not depend on timing. At most about `2 * queue_size + batch_size` frames are in memory. `total` is the expected
    number of frames, for `track` only. An exception of `frames`, of the preprocessing, of `encoder` or of `scores` is
    raised here unchanged. Raises ValueError at the first step when a size is below 1.
    """
    if min(batch_size, queue_size) < 1:
        raise ValueError(f"batch_size and queue_size must be at least 1, got {batch_size} and {queue_size}")
    with closing(_scored(frames, encoder, scores, batch_size, queue_size)) as scored:
        yield from track(scored, "scoring frames", total)


def _scored(
    frames: Iterable[Frame],
    encoder: PixelEncoder,
    scores: Callable[[FloatArray], FloatArray],
    batch_size: int,
    queue_size: int,
) -> Generator[FrameScore, None, None]:
    stop = threading.Event()
    decoded: _Channel[Frame] = _Channel(queue_size, stop)
    prepared: _Channel[_Prepared] = _Channel(queue_size, stop)
    threads = [
        threading.Thread(target=decoded.fill, args=(frames,), daemon=True),
        threading.Thread(target=prepared.fill, args=(_prepare(decoded, encoder.image_spec),), daemon=True),
    ]
    try:
        for thread in threads:
            thread.start()
        for batch in _batches(prepared, batch_size):
            yield from _score(batch, encoder, scores)
    finally:
        stop.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()


def _prepare(frames: Iterable[Frame], spec: ImageSpec) -> Iterator[_Prepared]:
    for frame in frames:
        start = time.perf_counter()
        pixels = preprocess(frame.pixels, spec)
        yield _Prepared(frame, pixels, _milliseconds_since(start))


def _score(
    batch: list[_Prepared], encoder: PixelEncoder, scores: Callable[[FloatArray], FloatArray]
) -> Iterator[FrameScore]:
    start = time.perf_counter()
    embeddings = encoder.encode_pixels(np.stack([item.pixels for item in batch]))
    rows = np.asarray(scores(embeddings), dtype=np.float32)
    share_ms = _milliseconds_since(start) / len(batch)
    if rows.ndim != 2 or len(rows) != len(batch):
        raise ValueError(f"scores must give ({len(batch)}, events), got {rows.shape}")
    for item, row, embedding in zip(batch, rows, embeddings, strict=True):
        yield FrameScore(item.frame, row, item.preprocess_ms + share_ms, embedding)


def _milliseconds_since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


@dataclass(frozen=True)
class _Ending:
    """The last thing in a channel: the end of the items or the exception that ended them."""

    error: BaseException | None


class _Stopped(Exception):
    """The run was ended while a stage waited."""


class _Channel(Generic[T]):
    """A bounded queue between two threads that carries items, then an ending, and never outlives the run."""

    def __init__(self, size: int, stop: threading.Event) -> None:
        self._queue: queue.Queue[T | _Ending] = queue.Queue(maxsize=size)
        self._stop = stop

    def fill(self, items: Iterable[T]) -> None:
        """Put every item and then the ending; runs in the thread of the stage that makes the items."""
        with suppress(_Stopped):
            try:
                for item in items:
                    self._put(item)
            except _Stopped:
                raise
            except BaseException as error:  # whatever it is, it belongs to the caller's thread
                self._put(_Ending(error))
            else:
                self._put(_Ending(None))

    def __iter__(self) -> Iterator[T]:
        """Yield the items in the receiving thread; raise there what ended them."""
        while True:
            item = self._get()
            if not isinstance(item, _Ending):
                yield item
            elif item.error is not None:
                raise item.error
            else:
                return

    def _put(self, item: T | _Ending) -> None:
        while not self._stop.is_set():
            try:
                return self._queue.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
        raise _Stopped

    def _get(self) -> T | _Ending:
        while not self._stop.is_set():
            try:
                return self._queue.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
        raise _Stopped
