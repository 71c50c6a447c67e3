"""From the packets of one picture stream to pictures in the order in which they are shown."""

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import chain, islice

import av

from vlmquant.video.clock import Stamped
from vlmquant.video.sources.container import DECODER_OPTIONS, raise_when_out_of_memory
from vlmquant.video.sources.streams import times_of_decoding

MAX_LOST_AT_START = 10_000
"""Packets that are tried for the first picture: a camera's longest group of pictures is far shorter."""

_MAX_REORDERED = 16
"""Pictures that can stand between decoding and showing one; H.264 and H.265 allow no more."""

_ORDER_PACKETS = 64
"""Packets looked at, undecoded, to see whether their times are those of showing."""


class Decoder:
    """Decodes a stream of an open container, once.

    What happened on the way: `lost` packets that could not be decoded, `lost_at_start` of them before the first
    picture, `damaged` pictures, the error at which the file was `broken` off (empty: it was not), and the time in
    seconds of the container at which the last packet of any stream ends, `heard`.
    """

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream) -> None:
        self.lost = self.lost_at_start = self.damaged = 0
        self.broken = ""
        self.heard = Fraction(0)
        self._container = container
        self._stream = stream
        stream.thread_type = "AUTO"
        stream.codec_context.options = DECODER_OPTIONS  # the pictures may be larger than the header says

    def pictures(self) -> Iterator[Stamped[av.VideoFrame]]:
        """Yield what can be decoded, in the order in which it is shown."""
        packets = self._packets()
        first = list(islice(packets, _ORDER_PACKETS))
        rest = chain(first, packets)
        if not times_of_decoding(self._container, first):
            return self._decoded(rest)
        pictures = self._decoded(map(_shown_when_decoded, rest))
        return _in_shown_order(pictures) if self._stream.codec_context.has_b_frames else pictures

    def _packets(self) -> Iterator[av.Packet]:
        """Yield the packets of the picture, and at the end, or where the file breaks off, the one that flushes it."""
        packets = self._container.demux()
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                raise_when_out_of_memory(error)
                self.broken = str(error.strerror)
                packet = None
            if packet is None or (packet.dts is None and not packet.size):
                break
            if packet.pts is not None:
                self.heard = max(self.heard, (packet.pts + (packet.duration or 0)) * Fraction(packet.time_base))
            if packet.size and packet.stream_index == self._stream.index:  # an empty packet would end the decoding
                yield packet
        yield _flush_packet(self._stream)

    def _decoded(self, packets: Iterable[av.Packet]) -> Iterator[Stamped[av.VideoFrame]]:
        """Decode what can be decoded; a broken packet costs itself, a broken end costs the end."""
        lost = 0
        begun = False
        for packet in packets:
            try:
                pictures = packet.decode()
            except av.FFmpegError as error:
                raise_when_out_of_memory(error)
                lost += 1
                self.lost += 1
                if not begun and lost >= MAX_LOST_AT_START:
                    return
                continue
            for picture in pictures:
                if not begun:
                    begun, self.lost_at_start = True, lost
                self.damaged += picture.is_corrupt
                base = Fraction(picture.time_base)
                duration = picture.duration * base if picture.duration else None
                yield Stamped(picture, _stamp(picture), duration, lost)
                lost = 0


def _in_shown_order(pictures: Iterable[Stamped[av.VideoFrame]]) -> Iterator[Stamped[av.VideoFrame]]:
    """Give pictures, which come as they are shown, their times in that order as well."""
    waiting = deque[Stamped[av.VideoFrame]]()
    stamps: list[Fraction] = []
    for picture in pictures:
        waiting.append(picture)
        if picture.stamp is not None:
            heapq.heappush(stamps, picture.stamp)
        if len(waiting) > _MAX_REORDERED:
            yield replace(waiting.popleft(), stamp=heapq.heappop(stamps) if stamps else None)
    while waiting:
        yield replace(waiting.popleft(), stamp=heapq.heappop(stamps) if stamps else None)


def _shown_when_decoded(packet: av.Packet) -> av.Packet:
    packet.pts = packet.dts
    return packet


def _flush_packet(stream: av.VideoStream) -> av.Packet:
    """Return the empty packet that asks a decoder for the frames that it still holds."""
    packet = av.Packet()
    packet.stream, packet.time_base = stream, stream.time_base
    return packet


def _stamp(picture: av.VideoFrame) -> Fraction | None:
    ticks = picture.pts if picture.pts is not None else picture.dts
    return None if ticks is None else ticks * Fraction(picture.time_base)
