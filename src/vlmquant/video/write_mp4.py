"""The annotated video: the source's pictures at their own times, with score bars drawn on, and its sound."""

import errno
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from vlmquant.errors import VideoError
from vlmquant.models.spec import ByteArray
from vlmquant.progress import Track, silent
from vlmquant.text import printable
from vlmquant.video.clock import SET_AHEAD, SET_BACK
from vlmquant.video.detect import Detection
from vlmquant.video.sources.container import open_container, raise_when_out_of_memory
from vlmquant.video.sources.file import VideoFile, open_video
from vlmquant.video.sources.source import Gap

_TIME_BASE = Fraction(1, 60_000)
"""Exact for 24, 25, 30, 50, 60 and 29.97 frames/s, and within MPEG-4's limit of 65,535."""

LONGEST_GAP_SECONDS = 10
"""A gap up to this long shows the last picture for so long; a longer one is left out."""

_FAULTS_OF_THE_FOLDER = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EFBIG}
)

_BT709 = 1
_LIMITED_RANGE = 1
_ACTIVE, _IDLE, _TEXT, _TROUGH = (255, 176, 0, 255), (130, 170, 200, 255), (255, 255, 255, 255), (80, 80, 80, 200)
_LONGEST_NAME = 48
_BACKGROUND, _ACTIVE_BACKGROUND = (0, 0, 0, 180), (110, 60, 0, 210)


def write_mp4(detection: Detection, path: str | Path, *, track: Track = silent) -> tuple[str, ...]:
    """Decode the detection's video again and write it to `path`, every frame at its time, with the scores drawn on.

    H.264 (MPEG-4 part 2 where PyAV has no libx264), 8-bit, BT.709; an odd width or height grows by one pixel. Each
    event has a row: its name, a bar of the score of the last frame looked at, with a mark at the threshold of its rule,
    and the number; the row is lit while the event lasts. Sound is copied where MP4 can hold it. The file appears when
    it is complete. A long gap of the source, where nothing is shown, is left out. Returns notes on what differs from
    the source, usually none.

    Raises:
        VideoError: the source cannot be read any more, `path` cannot be written, or the video cannot be encoded.
        MemoryError: there is not enough memory.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with open_video(detection.info.path, detection.info.stream) as source:
            notes = _write(detection, source, unfinished, track)
        os.replace(unfinished, path)
    except (av.FFmpegError, OSError) as error:
        raise _why_not(path, error) from error
    finally:
        unfinished.unlink(missing_ok=True)
    return notes


def _why_not(path: Path, error: av.FFmpegError | OSError) -> VideoError:
    """Return the error that says whether the folder or the encoder is at fault."""
    if isinstance(error, av.FFmpegError):
        raise_when_out_of_memory(error)
    if error.errno in _FAULTS_OF_THE_FOLDER:
        return VideoError(f"{path} cannot be written: {error.strerror}; choose a folder with room and access")
    return VideoError(f"{path} cannot be made: FFmpeg cannot encode this video ({error.strerror})")


def _write(detection: Detection, source: VideoFile, path: Path, track: Track) -> tuple[str, ...]:
    overlay = _Overlay(detection)
    skipped = 0.0
    notes: list[str] = []
    with (
        open_container(detection.info.path) as sound_file,
        av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as target,
    ):
        picture = _add_picture(target, source)
        sound = _Sound(sound_file, target, source.zero)
        for frame in track(source.frames(), "writing the annotated video", _expected_frames(source)):
            if frame.gap is not None and _parts_from_sound(frame.gap):
                sound.end(frame.gap.start_seconds)
            if frame.gap is not None and frame.gap.seconds > LONGEST_GAP_SECONDS:
                skipped += frame.gap.seconds
                notes.append(f"the annotated copy leaves out the {_span(frame.gap)}, where there is no picture")
            sound.copy_until(frame.pts_seconds)
            drawn = overlay.draw(frame.pixels, frame.pts_seconds)
            target.mux(picture.encode(_to_video_frame(drawn, frame.pts_seconds - skipped)))
        target.mux(picture.encode())
        sound.copy_until(float("inf"))
    return (*notes, *sound.notes)


def _parts_from_sound(gap: Gap) -> bool:
    """Whether the times of sound, which are copied as they are, no longer fit those of the picture behind a gap."""
    return gap.why in (SET_BACK, SET_AHEAD) or gap.seconds > LONGEST_GAP_SECONDS


def _span(gap: Gap) -> str:
    return f"{gap.seconds:.1f} s from {gap.start_seconds:.1f} s"


def _expected_frames(source: VideoFile) -> int | None:
    seconds, fps = source.info.duration_seconds, source.info.average_fps
    return None if seconds is None or fps is None else max(1, round(seconds * fps))


def _add_picture(target: av.container.OutputContainer, source: VideoFile) -> av.VideoStream:
    h264 = "libx264" in av.codec.codecs_available
    fps = min(max(source.info.average_fps or 25, 1), 240)  # for rate control; times come with the frames
    rate = Fraction(fps).limit_denominator(1001)
    stream = target.add_stream(
        "libx264" if h264 else "mpeg4", rate=rate, options={"preset": "veryfast", "crf": "23"} if h264 else {"q": "4"}
    )
    stream.width, stream.height = (size + size % 2 for size in (source.info.width, source.info.height))
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.time_base = _TIME_BASE
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED_RANGE
    return stream


def _to_video_frame(pixels: ByteArray, pts_seconds: float) -> av.VideoFrame:
    height, width = pixels.shape[:2]
    even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    frame = av.VideoFrame.from_ndarray(even, format="rgb24").reformat(format="yuv420p", dst_colorspace=_BT709)
    frame.pts, frame.time_base = round(pts_seconds / _TIME_BASE), _TIME_BASE
    return frame


class _Sound:
    """Copies the packets of the first audio stream, in step with the picture."""

    def __init__(
        self, source: av.container.InputContainer, target: av.container.OutputContainer, zero: Fraction
    ) -> None:
        self.notes: list[str] = []
        self._target = target
        self._zero = zero
        self._packets: Iterator[av.Packet] = iter(())
        self._waiting: av.Packet | None = None
        self._last: Fraction | None = None  # the decoding time of the packet before, in seconds
        if not source.streams.audio:
            return
        stream = source.streams.audio[0]
        codec = stream.codec_context.name
        if codec not in target.supported_codecs:
            self.notes.append(f"the sound is left out: MP4 cannot hold {codec}")
            return
        self._stream = target.add_stream_from_template(stream)
        self._packets = source.demux(stream)

    def end(self, pts_seconds: float) -> None:
        """Copy no more than what is heard up to this time, and say so."""
        self.copy_until(pts_seconds)
        if self._waiting is None:  # there is no more
            return
        self._packets, self._waiting = iter(()), None
        self.notes.append(
            f"the sound of the annotated copy ends at {pts_seconds:.1f} s, where the recording's clock jumps"
        )

    def copy_until(self, pts_seconds: float) -> None:
        """Copy what is heard up to this time."""
        while (packet := self._next()) is not None:
            if float(packet.pts * packet.time_base) > pts_seconds:
                self._waiting = packet
                return
            packet.stream = self._stream
            self._target.mux(packet)

    def _next(self) -> av.Packet | None:
        """Return the next packet, its times counted from second 0 of the video; None at the end."""
        if self._waiting is not None:
            packet, self._waiting = self._waiting, None
            return packet
        try:
            packet = next((packet for packet in self._packets if packet.dts is not None), None)
        except av.FFmpegError as error:
            self.notes.append(f"the sound breaks off: {error.strerror}")
            self._packets = iter(())
            return None
        if packet is None:
            return None
        shift = round(self._zero / packet.time_base)
        packet.pts, packet.dts = (packet.dts if packet.pts is None else packet.pts) - shift, packet.dts - shift
        seconds = packet.dts * packet.time_base
        if self._last is not None and not 0 < seconds - self._last < LONGEST_GAP_SECONDS:
            self.notes.append(
                f"the sound of the annotated copy ends at {float(self._last):.1f} s, where its clock jumps"
            )
            self._packets = iter(())
            return None
        self._last = seconds
        return packet


class _Overlay:
    """Draws the rows of a detection; a row changes only with the sampled frames, so the last drawing is kept."""

    def __init__(self, detection: Detection) -> None:
        self._detection = detection
        height = min(detection.info.height, detection.info.width)
        self._font = ImageFont.load_default(size=max(10, height // 28))
        _, top, _, bottom = self._font.getbbox("Ag0")
        self._row = round(1.9 * (bottom - top))
        self._drawn: tuple[int, frozenset[str]] | None = None
        self._panel = PillowImage.new("RGBA", (1, 1))

    def draw(self, pixels: ByteArray, pts_seconds: float) -> ByteArray:
        """Return (height, width, 3) uint8 RGB with the rows at the top left."""
        detection = self._detection
        sample = max(0, int(np.searchsorted(detection.pts_seconds, pts_seconds, side="right")) - 1)
        active = frozenset(e.name for e in detection.events if e.start_seconds <= pts_seconds < e.end_seconds)
        if self._drawn != (sample, active):
            self._panel, self._drawn = self._draw_panel(sample, active), (sample, active)
        picture = PillowImage.fromarray(pixels)
        picture.paste(self._panel, (0, 0), self._panel)
        return np.asarray(picture)

    def _draw_panel(self, sample: int, active: frozenset[str]) -> PillowImage.Image:
        names = [_shortened(name) for name in self._detection.names]
        row, gap = self._row, self._row // 4
        bar_left = gap * 2 + max(round(self._font.getlength(name)) for name in names)
        bar_right = bar_left + self._row * 5
        width = bar_right + gap * 2 + round(self._font.getlength("0.00"))
        panel = PillowImage.new("RGBA", (width, row * len(names)), _BACKGROUND)
        pen = ImageDraw.Draw(panel)
        for line, name in enumerate(names):
            score, lit = float(self._detection.scores[sample, line]), self._detection.names[line] in active
            threshold = bar_left + round(self._detection.rules[line].on * (bar_right - bar_left))
            top, bottom, middle = line * row, (line + 1) * row - 1, line * row + row // 2
            if lit:
                pen.rectangle((0, top, width, bottom), fill=_ACTIVE_BACKGROUND)
            pen.text((gap, middle), name, fill=_ACTIVE if lit else _TEXT, font=self._font, anchor="lm")
            pen.rectangle((bar_left, top + gap, bar_right, bottom - gap), fill=_TROUGH)
            bar_end = bar_left + round(score * (bar_right - bar_left))
            pen.rectangle((bar_left, top + gap, bar_end, bottom - gap), fill=_ACTIVE if lit else _IDLE)
            pen.line((threshold, top + gap // 2, threshold, bottom - gap // 2), fill=_TEXT)
            pen.text((bar_right + gap, middle), f"{score:.2f}", fill=_TEXT, font=self._font, anchor="lm")
        return panel


def _shortened(name: str) -> str:
    """Return a name that fits beside its bar."""
    shown = printable(name)
    return shown if len(shown) <= _LONGEST_NAME else f"{shown[: _LONGEST_NAME - 3]}..."
