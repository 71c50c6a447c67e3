"""Video files to RGB frames with exact presentation times.

Time is the container's own: presentation time stamp x time base, as a fraction, made a float only in `Frame`. Second 0
is when a player starts the file, that is, at the earliest start of its audio and video streams: a picture that begins
half a second after the sound has its first frame at 0.5, and the constant offset of transport streams is gone. Edit
lists have been applied by FFmpeg: frames that they cut are not shown here either. Stamps that cannot be right are
mended by `Clock`.
"""

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType

import av

from vlmquant.errors import VideoError
from vlmquant.models.spec import ByteArray
from vlmquant.text import counted
from vlmquant.video.clock import SET_AHEAD, SET_BACK, Clock, TimedPicture
from vlmquant.video.picture import clockwise_degrees, display_matrix, is_right_angle, swaps_axes, upright_rgb
from vlmquant.video.sampling import SampleClock
from vlmquant.video.sources.container import MAX_PIXELS, open_container, raise_when_out_of_memory
from vlmquant.video.sources.decode import Decoder
from vlmquant.video.sources.source import Frame, Gap, VideoInfo
from vlmquant.video.sources.streams import describe, is_cover_art, picture_stream

_LATE_SECONDS = 0.5
"""A first picture this much behind the start of its own stream means that the ones before it cannot be decoded."""

_TOLD_GAPS = 3
"""Gaps that get a sentence each; of more, the number is told."""

_DECLARES_LENGTH = ("mov", "matroska", "avi", "asf", "flv", "mxf")
"""Formats whose header says how long they are; for others FFmpeg derives it from what is there."""


class VideoFile:
    """An open video file, a `Source`; `open_video` makes one."""

    def __init__(self, path: Path, container: av.container.InputContainer, stream: int | None = None) -> None:
        self.warnings: list[str] = []
        self.gaps: list[Gap] = []
        self._path = path
        self._container = container
        self._stream = picture_stream(path, container, stream)
        self._tell_choice(stream)
        self._begun = False
        self._decoder = Decoder(container, self._stream)
        self._nominal = self._nominal_step()
        pictures = self._decoder.pictures()
        first = next(pictures, None)
        if first is None:
            raise VideoError(
                f"{path} holds no picture that can be decoded{self._why()}; it is damaged, or larger than the "
                f"{MAX_PIXELS:,} pixels that are decoded: copy it again or scale it down"
            )
        self._matrix = display_matrix(first.picture)
        self.info = self._describe(first.picture)
        self._clock = Clock[av.VideoFrame](self._nominal, first.stamp or Fraction(0))
        timed = self._clock.run(chain([first], pictures))
        shown = next(timed)
        self._first = shown.time
        self._zero = self._file_start(shown.time)
        self._end = shown.end - self._zero
        self._ahead: Iterator[TimedPicture[av.VideoFrame]] = chain([shown], timed)

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; frames already taken stay valid."""
        self._ahead = iter(())  # lets go of the decoder and its frames now, not at the next garbage collection
        self._container.close()

    @property
    def end_seconds(self) -> float:
        """When the last frame read so far stops being shown."""
        return float(self._end)

    @property
    def zero(self) -> Fraction:
        """The container's own time, in seconds, of second 0."""
        return self._zero

    def frames(self, fps: float | None = None) -> Iterator[Frame]:
        """Yield the frames in order of presentation: all, or `fps` per second as `SampleClock` chooses them.

        The first frame behind a gap is always among them. Every frame is decoded, but only those yielded are converted
        to RGB. What cannot be decoded is passed over, and a file that breaks off yields what came before; both are said
        in `warnings`.

        Raises:
            VideoError: `fps` is out of range; the frames were read before; no time can be given to a frame.
            MemoryError: there is not enough memory.
        """
        if self._begun:
            raise VideoError(f"the frames of {self._path} were already read; open it again for a second pass")
        clock = None if fps is None else SampleClock(fps)
        self._begun = True
        return self._frames(clock)

    def _frames(self, clock: SampleClock | None) -> Iterator[Frame]:
        for index, timed in enumerate(self._ahead):
            gap = None
            if timed.gap is not None:
                start, end = min(self._end, timed.time - self._zero), timed.time - self._zero
                gap = Gap(start_seconds=float(start), end_seconds=float(end), why=timed.gap)
                self.gaps.append(gap)
            self._end = timed.end - self._zero
            pts_seconds = float(timed.time - self._zero)
            if clock is None or clock.keep(pts_seconds) or gap is not None:
                yield Frame(self._pixels(timed.picture), pts_seconds, index, float(timed.end - timed.time), gap)
        self._tell_faults()

    def _pixels(self, picture: av.VideoFrame) -> ByteArray:
        try:
            return upright_rgb(picture, self._matrix)
        except av.FFmpegError as error:
            raise_when_out_of_memory(error)
            raise VideoError(f"a picture of {self._path} cannot be made RGB: {error.strerror}") from error

    def _file_start(self, first: Fraction) -> Fraction:
        starts = [
            stream.start_time * stream.time_base
            for stream in (*self._container.streams.audio, *self._container.streams.video)
            if stream.start_time is not None and not is_cover_art(stream)
        ]
        # Audio priming starts before 0 and is not heard; a picture before 0 is seen.
        return min(first, max(Fraction(0), min(starts, default=first)))

    def _stream_start(self) -> Fraction:
        start = self._stream.start_time
        return self._first if start is None else start * Fraction(self._stream.time_base)

    def _nominal_step(self) -> Fraction | None:
        rate = self._stream.average_rate or self._stream.guessed_rate
        return 1 / Fraction(rate) if rate else None

    def _tell_choice(self, asked: int | None) -> None:
        others = [stream for stream in self._container.streams.video if stream.index != self._stream.index]
        others = [stream for stream in others if not is_cover_art(stream)]
        if others and asked is None:
            self.warnings.append(
                f"the file has {len(others) + 1} pictures; {describe(self._stream)} is searched, not "
                f"{', '.join(describe(stream) for stream in others)}: --stream chooses another"
            )

    def _tell_faults(self) -> None:
        """Say, when all was read, what was damaged, mended and missing."""
        clock = self._clock
        if self._decoder.lost_at_start or self._first - self._stream_start() > _LATE_SECONDS:
            self.warnings.append(
                f"nothing can be decoded before {float(self._first - self._zero):.3f} s: the recording starts within a "
                "group of pictures"
            )
        if self._decoder.lost > self._decoder.lost_at_start:
            self.warnings.append(
                f"{counted(self._decoder.lost - self._decoder.lost_at_start, 'packet')} could not be decoded"
            )
        for gap in self.gaps[:_TOLD_GAPS]:
            self.warnings.append(_gap_sentence(gap))
        if len(self.gaps) > _TOLD_GAPS:
            self.warnings.append(f"{len(self.gaps) - _TOLD_GAPS} more such gaps")
        for count, what in (
            (self._decoder.damaged, "decoded with damage and kept"),
            (clock.untimed, "without a time stamp took the nominal frame rate"),
            (clock.misplaced, "skipped: shown no later than the frame before"),
            (clock.mended, "with a time far from that of the neighbours took one between them"),
        ):
            if count:
                self.warnings.append(f"{counted(count, 'frame')} {what}")
        if self._decoder.broken:
            self.warnings.append(f"the file breaks off after {self.end_seconds:.3f} s: {self._decoder.broken}")
        self._check_end()

    def _check_end(self) -> None:
        """Notice a file that was cut without an error: it is shorter than its header says."""
        if not self._container.format.name.startswith(_DECLARES_LENGTH):
            return
        tolerance = max(0.1, 3 * float(self._nominal or 0))
        stream, shown = self._stream, float(self._end + self._zero - self._first)
        picture = float(stream.duration * stream.time_base) if stream.duration else None
        whole = self._container.duration / av.time_base if self._container.duration else None
        found = float(
            max(self._decoder.heard, self._end + self._zero)
        )  # some formats count from 0, some from their start
        if picture is not None and picture - shown > tolerance:
            self.warnings.append(f"the picture lasts {shown:.3f} s, not {picture:.3f} s: the file may be cut")
        elif whole is not None and whole - found > tolerance:
            self.warnings.append(f"the file lasts {found:.3f} s, not {whole:.3f} s: it may be cut")

    def _why(self) -> str:
        found = [
            *self.warnings,
            *([f"{counted(self._decoder.lost, 'packet')} could not be decoded"] if self._decoder.lost else []),
        ]
        found += [f"the file breaks off: {self._decoder.broken}"] if self._decoder.broken else []
        return f" ({'; '.join(found)})" if found else ""

    def _describe(self, first: av.VideoFrame) -> VideoInfo:
        stream = self._stream
        duration = stream.duration * stream.time_base if stream.duration else None
        if duration is None and self._container.duration:
            duration = Fraction(self._container.duration, av.time_base)
        matrix = self._matrix
        width, height = first.width, first.height
        if matrix is not None and swaps_axes(matrix):
            width, height = height, width
        if matrix is not None and not is_right_angle(matrix):
            self.warnings.append("the display matrix is not a quarter turn; the nearest one is applied")
        return VideoInfo(
            path=self._path,
            width=width,
            height=height,
            duration_seconds=None if duration is None else float(duration),
            average_fps=float(stream.average_rate) if stream.average_rate else None,
            codec=str(stream.codec_context.name),
            rotation_degrees=0 if matrix is None else clockwise_degrees(matrix),
            stream=stream.index,
        )


def open_video(path: str | Path, stream: int | None = None) -> VideoFile:
    """Open a video file and decode its first frame; use it in a `with`.

    `stream` is the number of the picture's stream in the file. None takes the best that is not cover art: one that
    moves before one that stands still, then the one with most pixels.

    Raises:
        VideoError: as `open_container`; no picture (audio only), no such stream, or frames above `MAX_PIXELS`.
        MemoryError: there is not enough memory.
    """
    container = open_container(path)
    try:
        return VideoFile(Path(path), container, stream)
    except BaseException:
        container.close()
        raise


def _gap_sentence(gap: Gap) -> str:
    if gap.why == SET_BACK:
        return f"at {gap.start_seconds:.3f} s {SET_BACK}, as where recordings were joined: counted on; events end there"
    if gap.why == SET_AHEAD:
        return f"at {gap.start_seconds:.3f} s {SET_AHEAD} by {gap.seconds:.3f} s: events end there"
    return (
        f"nothing is known of the {gap.seconds:.3f} s from {gap.start_seconds:.3f} s to {gap.end_seconds:.3f} s "
        f"({gap.why}): events end there"
    )
