"""Which picture of a file is the video, and what its packets' times mean."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice, pairwise
from pathlib import Path

import av

from vlmquant.errors import VideoError
from vlmquant.video.sources.container import open_container

_PROBED_PACKETS = 500
"""How far a file with several pictures is looked into, to tell moving ones from stills."""


def picture_stream(path: Path, container: av.container.InputContainer, asked: int | None) -> av.VideoStream:
    """Return the stream with the number `asked`, or the best: moving before still, then the one with most pixels.

    Raises VideoError when the file has no such stream, or no picture but cover art.
    """
    streams = [stream for stream in container.streams.video if not is_cover_art(stream)]
    if asked is not None:
        pictures = {stream.index: stream for stream in container.streams.video}
        if asked not in pictures:
            listed = "; ".join(describe(stream) for stream in pictures.values()) or "none"
            raise VideoError(f"{path} has no picture in stream {asked}; its pictures: {listed}")
        return pictures[asked]
    if not streams:
        kinds = ", ".join(sorted({kind_of(stream) for stream in container.streams})) or "nothing"
        raise VideoError(f"{path} has no video stream (it holds {kinds}); pass a file with a moving picture")
    if len(streams) == 1:
        return streams[0]
    packets = Counter[int]() if all(stream.frames for stream in streams) else _packets_at_the_start(path)
    return max(streams, key=lambda stream: _merit(stream, packets))


def describe(stream: av.VideoStream) -> str:
    """Return a stream's number and what it holds, such as "stream 1 (h264, 160 x 120)"."""
    context = stream.codec_context
    return f"stream {stream.index} ({context.name}, {context.width} x {context.height})"


def is_cover_art(stream: av.VideoStream) -> bool:
    """Whether a stream is the picture of a sound file."""
    return stream.type == "video" and bool(stream.disposition & stream.disposition.__class__.attached_pic)


def kind_of(stream: av.stream.Stream) -> str:
    """Return what a user calls the kind of a stream."""
    return "cover art" if is_cover_art(stream) else str(stream.type)


def _merit(stream: av.VideoStream, packets: Counter[int]) -> tuple[bool, int, bool, int]:
    context = stream.codec_context
    default = bool(stream.disposition & stream.disposition.__class__.default)
    moving = (stream.frames or packets[stream.index]) > 1
    return moving, context.width * context.height, default, -stream.index


def _packets_at_the_start(path: Path) -> Counter[int]:
    """Count the packets of each stream, by its number, near the start of a file; few containers say how many."""
    with open_container(path) as container, suppress(av.FFmpegError):  # reading the file says what is wrong with it
        return Counter(packet.stream_index for packet in islice(container.demux(), _PROBED_PACKETS) if packet.size)
    return Counter()


def times_of_decoding(container: av.container.InputContainer, packets: Sequence[av.Packet]) -> bool:
    """Whether the times of the first `packets` are those of decoding although pictures are shown in another order.

    AVI and ASF hold no presentation times. FFmpeg derives them for some codecs; for others it gives none, or those of
    decoding moved by a packet, which never go back as presentation times do.
    """
    stamps = [packet.pts for packet in packets if packet.pts is not None]
    if container.format.name in ("avi", "asf"):
        return all(a <= b for a, b in pairwise(stamps))
    return not stamps and any(packet.dts is not None for packet in packets)
