"""Video files to RGB frames with exact presentation times.

Time is the container's own: presentation time stamp x time base, as a fraction, made a float only in `Frame`. Second 0
is when a player starts the file, that is, at the earliest start of its audio and video streams: a picture that begins
half a second after the sound has its first frame at 0.5, and the constant offset of transport streams is gone. Edit
lists have been applied by FFmpeg: frames that they cut are not shown here either.

Files are untrusted: only the `file` protocol and self-contained container formats are open, so nothing that a file
says can make the decoder read another file or reach a host.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from vlmquant.errors import VideoError
from vlmquant.models.spec import ByteArray
from vlmquant.video.sampling import SampleClock

MAX_PIXELS = 8192 * 4320
"""The largest picture that is decoded: 8K cinema, in any orientation."""

MAX_CONSECUTIVE_FAILURES = 50
"""Undecodable packets in a row (two seconds at 25 fps) after which the rest of a file is given up."""

_RESTART_SECONDS = 1
"""A time this much before the last one is a clock set back (recordings put end to end), not a misplaced frame."""

_FORMATS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,h264,hevc,obu,ivf,m4v,flv,ogg,asf,mxf,nut,gif,dv,wtv,yuv4mpegpipe"
)
_DECODER_OPTIONS = {"max_pixels": str(MAX_PIXELS)}
_INPUT_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS} | _DECODER_OPTIONS


@dataclass(frozen=True, eq=False)
class Frame:
    """One shown picture.

    `pixels` is (height, width, 3) uint8 RGB, upright (display rotation applied), C order. `pts_seconds` >= 0 is when
    it is shown, and grows from frame to frame. `index` counts the shown frames of the video from 0, sampled or not.
    """

    pixels: ByteArray
    pts_seconds: float
    index: int

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3 or self.pixels.shape[2] != 3 or self.pixels.dtype != np.uint8:
            raise ValueError(f"pixels must be (height, width, 3) uint8, got {self.pixels.shape} {self.pixels.dtype}")


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a file says about its picture before it is decoded.

    `width` and `height` are those of the upright frames in pixels; `rotation_degrees` (0, 90, 180, 270; clockwise) has
    been applied to them. `duration_seconds` and `average_fps` are the header's claims, None where it makes none.
    """

    path: Path
    width: int
    height: int
    duration_seconds: float | None
    average_fps: float | None
    codec: str
    rotation_degrees: int


class VideoSource:
    """An open video file; `open_video` makes one. Use it in a `with`; one pass over its frames.

    `warnings` grows while frames are read: what was damaged, skipped or missing, one sentence each.
    """

    def __init__(self, path: Path, container: av.container.InputContainer) -> None:
        self.warnings: list[str] = []
        self._container = container
        self._stream = _picture_stream(path, container)
        self._end = Fraction(0)
        self._begun = False
        frames = self._decoded()
        first = next(frames, None)
        if first is None:
            raise VideoError(
                f"{path} holds no picture that can be decoded{self._why()}; it is damaged, or larger than the "
                f"{MAX_PIXELS:,} pixels that are decoded: copy it again or scale it down"
            )
        self._ahead: Iterator[av.VideoFrame] = chain([first], frames)
        self._first = _stamp(first) or Fraction(0)
        self._zero = self._file_start(self._first)
        self._matrix = _display_matrix(first)
        self.info = self._describe(path, first)

    def __enter__(self) -> "VideoSource":
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

        Every frame is decoded, but only those yielded are converted to RGB. A file that breaks off yields what came
        before and says so in `warnings`.

        Raises:
            VideoError: `fps` is not above zero; the frames were read before; no time can be given to a frame.
        """
        if self._begun:
            raise VideoError(f"the frames of {self.info.path} were already read; open it again for a second pass")
        clock = None if fps is None else SampleClock(fps)
        self._begun = True
        return self._frames(clock)

    def _frames(self, clock: SampleClock | None) -> Iterator[Frame]:
        for index, (picture, pts_seconds) in enumerate(self._timed()):
            if clock is None or clock.keep(pts_seconds):
                yield Frame(_upright_rgb(picture, self._matrix), pts_seconds, index)

    def _timed(self) -> Iterator[tuple[av.VideoFrame, float]]:
        """Pair every shown frame with its time, dropping those whose time does not grow."""
        nominal = self._nominal_step()
        last: Fraction | None = None
        lag = Fraction(0)  # by how much the container's clock was set back on the way
        damaged = untimed = backward = restarts = 0
        for picture in self._ahead:
            damaged += picture.is_corrupt
            stamp = _stamp(picture)
            untimed += stamp is None
            time = self._guess(last, nominal) if stamp is None else stamp + lag
            if last is not None and last - time > _RESTART_SECONDS:
                restarts += 1
                lag += self._guess(last, nominal) - time
                time = self._guess(last, nominal)
            elif last is not None and time <= last:
                backward += 1
                continue
            last = time
            shown = picture.duration * picture.time_base if picture.duration else nominal or Fraction(0)
            self._end = time - self._zero + shown
            yield picture, float(time - self._zero)
        self._warn(damaged, "decoded with damage and kept")
        self._warn(untimed, "without a time stamp took the nominal frame rate")
        self._warn(backward, "skipped: shown no later than the frame before")
        self._warn(restarts, "at which the clock was set back: counted on from the frame before")
        self._check_end(self._end + self._zero - self._first, nominal)

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Yield what can be decoded; a broken packet costs itself, a broken end costs the end."""
        packets = self._container.demux(self._stream)
        failures = lost = 0
        while failures < MAX_CONSECUTIVE_FAILURES:
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                self.warnings.append(f"the file breaks off after {self.end_seconds:.3f} s: {error.strerror}")
                packet, packets = _flush_packet(self._stream), iter(())
            if packet is None:
                break
            try:
                pictures = packet.decode()
            except av.FFmpegError:
                failures += 1
                lost += 1
                continue
            failures = 0
            yield from pictures
        else:
            self.warnings.append(f"gave up after {self.end_seconds:.3f} s: {failures} packets in a row do not decode")
        if lost:
            self.warnings.append(f"{lost} packets could not be decoded")

    def _file_start(self, first: Fraction) -> Fraction:
        starts = [
            stream.start_time * stream.time_base
            for stream in (*self._container.streams.audio, *self._container.streams.video)
            if stream.start_time is not None and not _is_cover_art(stream)
        ]
        # Audio priming starts before 0 and is not heard; a picture before 0 is seen.
        return min(first, max(Fraction(0), min(starts, default=first)))

    def _nominal_step(self) -> Fraction | None:
        rate = self._stream.average_rate or self._stream.guessed_rate
        return 1 / Fraction(rate) if rate else None

    def _guess(self, last: Fraction | None, nominal: Fraction | None) -> Fraction:
        if last is None:
            return self._first
        if nominal is None:
            raise VideoError(f"{self.info.path} has neither time stamps nor a frame rate; put it into an MP4 or MKV")
        return last + nominal

    def _warn(self, frames: int, what: str) -> None:
        if frames:
            self.warnings.append(f"{frames} frame{'s' if frames > 1 else ''} {what}")

    def _check_end(self, shown: Fraction, nominal: Fraction | None) -> None:
        """Notice a file that was cut without an error: its picture is shorter than its header says."""
        promised = self.info.duration_seconds
        tolerance = max(0.1, 2 * float(nominal or 0))
        single = "matroska" in self._container.format.name and len(self._container.streams) == 1
        about_picture = bool(self._stream.duration) or single  # not about sound that goes on for longer
        if about_picture and promised is not None and promised - float(shown) > tolerance:
            self.warnings.append(f"the picture lasts {float(shown):.3f} s, not {promised:.3f} s: the file may be cut")

    def _why(self) -> str:
        return f" ({'; '.join(self.warnings)})" if self.warnings else ""

    def _describe(self, path: Path, first: av.VideoFrame) -> VideoInfo:
        stream = self._stream
        duration = stream.duration * stream.time_base if stream.duration else None
        if duration is None and self._container.duration:
            duration = Fraction(self._container.duration, av.time_base)
        matrix = self._matrix
        width, height = first.width, first.height
        if matrix is not None and _swaps_axes(matrix):
            width, height = height, width
        if matrix is not None and not _is_right_angle(matrix):
            self.warnings.append("the display matrix is no quarter turn; its nearest one is applied")
        return VideoInfo(
            path=path,
            width=width,
            height=height,
            duration_seconds=None if duration is None else float(duration),
            average_fps=float(stream.average_rate) if stream.average_rate else None,
            codec=str(stream.codec_context.name),
            rotation_degrees=0 if matrix is None else _clockwise_degrees(matrix),
        )


def open_video(path: str | Path) -> VideoSource:
    """Open the first video stream of a file that is no cover art, and decode its first frame.

    Raises:
        VideoError: no such file, a folder, a URL, an empty file, a playlist or still image, no picture (audio only),
            a damaged header (an MP4 cut before its index), or frames above `MAX_PIXELS`.
    """
    container = open_container(path)
    try:
        return VideoSource(Path(path), container)
    except BaseException:
        container.close()
        raise


def open_container(path: str | Path) -> av.container.InputContainer:
    """Open a media file for reading, restricted as the top of this module says. Raises VideoError as `open_video`."""
    file = _checked_file(path)
    try:
        return av.open(str(file.absolute()), options=_INPUT_OPTIONS, metadata_errors="replace")
    except av.FFmpegError as error:
        raise VideoError(
            f"{path} cannot be opened as a video: {error.strerror}; expected a complete file in a common container "
            "(MP4, MKV, WebM, AVI, TS, ...), neither a playlist nor a still image"
        ) from error


def _checked_file(path: str | Path) -> Path:
    if "://" in str(path) or str(path).startswith(("data:", "concat:", "pipe:")):
        raise VideoError(f"{path} is an address, not a file; record or download it, then pass the file")
    file = Path(path)
    if file.is_dir():
        raise VideoError(f"{path} is a folder; pass one of the video files in it")
    if not file.is_file():
        raise VideoError(f"{path} is not a file; check the path")
    if file.stat().st_size == 0:
        raise VideoError(f"{path} is empty (0 bytes); copy it again")
    return file


def _picture_stream(path: Path, container: av.container.InputContainer) -> av.VideoStream:
    streams = [stream for stream in container.streams.video if not _is_cover_art(stream)]
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise VideoError(f"{path} has no video stream (it holds {kinds}); pass a file with a moving picture")
    stream = streams[0]
    stream.thread_type = "AUTO"
    stream.codec_context.options = _DECODER_OPTIONS  # the pictures may be larger than the header says
    return stream


def _is_cover_art(stream: av.VideoStream) -> bool:
    return stream.type == "video" and bool(stream.disposition & stream.disposition.__class__.attached_pic)


def _flush_packet(stream: av.VideoStream) -> av.Packet:
    """Return the empty packet that asks a decoder for the frames that it still holds."""
    packet = av.Packet()
    packet.stream, packet.time_base = stream, stream.time_base
    return packet


def _stamp(picture: av.VideoFrame) -> Fraction | None:
    ticks = picture.pts if picture.pts is not None else picture.dts
    return None if ticks is None else ticks * Fraction(picture.time_base)


def _display_matrix(picture: av.VideoFrame) -> tuple[int, int, int, int] | None:
    """Return (a, b, c, d): the pixel (x, y) is to be shown at (a x + c y, b x + d y), y pointing down.

    Asked of the first frame only: in PyAV a frame whose side data was looked at is part of a reference cycle, and
    hundreds of them pile up until the garbage collector comes by.
    """
    data = picture.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    a, b, _, c, d = struct.unpack("=5i", bytes(data)[:20])
    return a, b, c, d


def _swaps_axes(matrix: tuple[int, int, int, int]) -> bool:
    a, b, c, d = matrix
    return abs(b) + abs(c) > abs(a) + abs(d)


def _is_right_angle(matrix: tuple[int, int, int, int]) -> bool:
    a, b, c, d = matrix
    return (a == d == 0) if _swaps_axes(matrix) else (b == c == 0)


def _clockwise_degrees(matrix: tuple[int, int, int, int]) -> int:
    a, b, _, _ = matrix
    if _swaps_axes(matrix):
        return 90 if b > 0 else 270
    return 0 if a > 0 else 180


def _upright_rgb(picture: av.VideoFrame, matrix: tuple[int, int, int, int] | None) -> ByteArray:
    """Convert to RGB and apply the display matrix: any of the eight quarter turns and mirrorings."""
    pixels = picture.to_ndarray(format="rgb24")
    if matrix is not None:
        a, b, c, d = matrix
        x_scale, y_scale = a, d
        if _swaps_axes(matrix):
            pixels = pixels.transpose(1, 0, 2)
            x_scale, y_scale = c, b
        pixels = pixels[:: -1 if y_scale < 0 else 1, :: -1 if x_scale < 0 else 1]
    return np.ascontiguousarray(pixels)
