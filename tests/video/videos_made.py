"""Small video files for tests, made with PyAV, and the edits that PyAV cannot make, by hand on the bytes."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

MILLISECOND = Fraction(1, 1000)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def grey_ramp(count, width=64, height=48):
    """`count` flat pictures whose grey level 10 * k tells their number k."""
    return [np.full((height, width, 3), 10 * k, np.uint8) for k in range(count)]


def level(pixels):
    """The number of a picture of `grey_ramp`, after lossy coding."""
    return round(float(pixels.mean()) / 10)


def four_corners(width=64, height=48):
    """Red, green / blue, white: no quarter turn or mirroring leaves it as it is."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2], picture[: height // 2, width // 2 :] = RED, GREEN
    picture[height // 2 :, : width // 2], picture[height // 2 :, width // 2 :] = BLUE, WHITE
    return picture


def write_clip(
    path: Path,
    pictures: Sequence[np.ndarray],
    times_ms: Sequence[int] | None = None,
    *,
    codec="libx264",
    pixel_format="yuv420p",
    options=None,
    container_options=None,
    container_format=None,
    audio_seconds=0.0,
    audio_codec=None,
    audio_rate=48000,
    more_pictures=(),
    cover=None,
):
    """Write a file; frame k is shown at times_ms[k] (default every 100 ms). Returns `path`."""
    if times_ms is None:
        times_ms = range(0, 100 * max(len(pictures), len(more_pictures)), 100)
    with av.open(str(path), "w", format=container_format, options=container_options or {}) as container:
        videos = [_add_video(container, pictures, codec, pixel_format, options)] if len(pictures) else []
        if len(more_pictures):
            videos.append(_add_video(container, more_pictures, codec, pixel_format, options))
        audio = _add_audio(container, audio_codec, audio_rate) if audio_seconds else None
        if cover is not None:
            art = container.add_stream("mjpeg", rate=1)
            art.width, art.height, art.pix_fmt = cover.shape[1], cover.shape[0], "yuvj420p"
            art.disposition = av.stream.Disposition.attached_pic
            container.mux(art.encode(av.VideoFrame.from_ndarray(cover)))
            container.mux(art.encode())
        if audio is not None:
            _encode_silence(container, audio, audio_seconds)
        for stream, shown in zip(videos, (pictures, more_pictures), strict=False):
            for picture, time_ms in zip(shown, times_ms, strict=False):
                frame = av.VideoFrame.from_ndarray(picture)
                frame.pts, frame.time_base = time_ms, MILLISECOND
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return path


def _add_video(container, pictures, codec, pixel_format, options):
    stream = container.add_stream(codec, rate=10, options=options or {})
    stream.height, stream.width = pictures[0].shape[:2]
    stream.pix_fmt = pixel_format
    stream.codec_context.time_base = stream.time_base = MILLISECOND
    return stream


def _add_audio(container, codec, rate):
    codec = codec or ("libopus" if "webm" in container.format.name else "aac")
    return container.add_stream(codec, rate=48000 if codec == "libopus" else rate, layout="mono")


def _encode_silence(container, stream, seconds):
    rate = stream.rate
    for start in range(0, int(seconds * rate), 960):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def set_display_matrix(path, a, b, c, d):
    """Make an MP4's picture be shown at (a x + c y, b x + d y), as phones do: the matrix of the `tkhd` box."""
    data = bytearray(path.read_bytes())
    box = data.index(b"tkhd") + 4
    matrix = box + (52 if data[box] == 1 else 40)  # version 1 has 64-bit times
    one, unit = 1 << 16, 1 << 30
    struct.pack_into(">9i", data, matrix, a * one, b * one, 0, c * one, d * one, 0, 0, 0, unit)
    path.write_bytes(data)


def set_edit_start(path, media_time):
    """Make an MP4's edit list begin at `media_time` (track time units)."""
    data = bytearray(path.read_bytes())
    box = data.index(b"elst") + 4
    version, count = data[box], struct.unpack_from(">I", data, box + 4)[0]
    assert (version, count) == (0, 1), "expected one plain edit"
    struct.pack_into(">i", data, box + 12, media_time)
    path.write_bytes(data)


def cut(path, share):
    """Keep the first `share` of a file's bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def blank_packets(path, start, end):
    """Overwrite with zeros the packets of the picture that are shown from `start` to before `end` seconds."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            if packet.pts is not None and start <= float(packet.pts * packet.time_base) < end:
                data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(data)
    return path
