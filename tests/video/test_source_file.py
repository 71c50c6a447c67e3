import errno
import gc
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from videos_made import (
    BLUE,
    GREEN,
    RED,
    WHITE,
    blank_packets,
    cut,
    four_corners,
    grey_ramp,
    level,
    set_display_matrix,
    set_edit_start,
    write_clip,
)

from vlmquant.errors import VideoError
from vlmquant.video.sources import container, decode, file
from vlmquant.video.sources.file import VideoFile, open_video
from vlmquant.video.sources.source import Frame

EVERY_KEYFRAME = {"g": "1"}
FASTSTART = {"movflags": "faststart"}


@pytest.fixture(scope="module")
def noise():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(10)]


def read(path, fps=None):
    with open_video(path) as video:
        return list(video.frames(fps)), video


def times(frames):
    return [round(frame.pts_seconds, 6) for frame in frames]


def levels(frames):
    return [level(frame.pixels) for frame in frames]


TENTHS = [0.0, 0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(
    ("name", "arguments", "codec"),
    [
        ("h264.mp4", {}, "h264"),
        ("b-frames.mp4", {"options": {"bf": "2", "b_strategy": "0"}}, "h264"),
        ("fragmented.mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov"}}, "h264"),
        ("h264.mkv", {"audio_seconds": 0.5}, "h264"),
        ("h264.mov", {}, "h264"),
        ("h264.ts", {"container_options": {"output_ts_offset": "1.4"}}, "h264"),
        ("h264.flv", {}, "h264"),
        ("vp9.webm", {"codec": "libvpx-vp9", "audio_seconds": 0.5}, "vp9"),
        ("mpeg4.avi", {"codec": "mpeg4"}, "mpeg4"),
        ("mjpeg.avi", {"codec": "mjpeg", "pixel_format": "yuvj420p"}, "mjpeg"),
        ("ten-bit.mp4", {"codec": "libx265", "pixel_format": "yuv420p10le", "options": {"x265-params": "log-level=0"}},
         "hevc"),
        ("grey.mkv", {"codec": "ffv1", "pixel_format": "gray"}, "ffv1"),
        ("palette.gif", {"codec": "gif", "pixel_format": "gray"}, "gif"),
    ],
)  # fmt: skip
def test_reads_common_files_frame_for_frame(tmp_path, name, arguments, codec):
    frames, video = read(write_clip(tmp_path / name, grey_ramp(5), **arguments))
    assert times(frames) == TENTHS
    assert levels(frames) == [0, 1, 2, 3, 4]
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert {frame.pixels.shape for frame in frames} == {(48, 64, 3)}
    assert all(frame.pixels.flags.c_contiguous for frame in frames)
    assert (video.info.codec, video.info.width, video.info.height) == (codec, 64, 48)
    assert (video.info.rotation_degrees, video.warnings) == (0, [])


@pytest.mark.parametrize("name", ["a.avi", "a.asf"])
@pytest.mark.parametrize("reordered", ["0", "1", "3"])
def test_pictures_without_presentation_times_come_once_in_order_and_regularly(tmp_path, noise, name, reordered):
    pictures = [np.full_like(picture, 10 * (k % 25)) for k, picture in enumerate(noise * 3)]
    options = {"bf": reordered, "b_strategy": "0"}
    frames, video = read(write_clip(tmp_path / name, pictures, codec="libx264", options=options))
    np.testing.assert_allclose(times(frames), np.arange(30) / 10, atol=2e-3)
    assert levels(frames) == [k % 25 for k in range(30)]
    assert video.warnings == []


def test_info_gives_the_headers_claims_and_the_end_is_measured(tmp_path):
    _, video = read(write_clip(tmp_path / "a.mp4", grey_ramp(5)))
    assert video.info.duration_seconds == pytest.approx(0.5)
    assert video.info.average_fps == pytest.approx(10)
    assert video.end_seconds == pytest.approx(0.5)


def test_odd_sizes(tmp_path):
    frames, video = read(write_clip(tmp_path / "odd.mp4", grey_ramp(3, 63, 47), pixel_format="yuv444p"))
    assert frames[2].pixels.shape == (47, 63, 3)
    assert (video.info.width, video.info.height) == (63, 47)


def test_one_frame(tmp_path):
    frames, _ = read(write_clip(tmp_path / "one.mp4", grey_ramp(1)))
    assert times(frames) == [0.0]


def test_variable_frame_rate_keeps_the_containers_times(tmp_path):
    shown_ms = [0, 100, 150, 400, 410, 1000, 1100, 1200, 3000, 3100]
    frames, _ = read(write_clip(tmp_path / "vfr.mp4", grey_ramp(10), shown_ms, options={"bf": "2"}))
    assert times(frames) == [ms / 1000 for ms in shown_ms]
    assert levels(frames) == list(range(10))


def test_sampling_converts_only_the_samples_and_keeps_their_index(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mp4", grey_ramp(10))
    converted = []
    convert = file.upright_rgb
    monkeypatch.setattr(file, "upright_rgb", lambda *args: converted.append(args[0].pts) or convert(*args))
    frames, _ = read(path, fps=2)
    assert times(frames) == [0.0, 0.5]
    assert [frame.index for frame in frames] == [0, 5]
    assert levels(frames) == [0, 5]
    assert len(converted) == 2


def test_decoded_frames_need_no_garbage_collection(tmp_path):
    path = write_clip(tmp_path / "a.mp4", grey_ramp(2) * 50)
    gc.collect()
    gc.disable()
    try:
        with open_video(path) as video:
            assert sum(1 for _ in video.frames()) == 100
        assert gc.collect() < 50
    finally:
        gc.enable()


class TestStart:
    def test_a_late_picture_stays_late_against_its_sound(self, tmp_path):
        path = write_clip(tmp_path / "late.mp4", grey_ramp(5), range(500, 1000, 100), audio_seconds=1)
        frames, video = read(path)
        assert times(frames) == [0.5, 0.6, 0.7, 0.8, 0.9]
        assert video.end_seconds == pytest.approx(1.0)

    def test_a_late_picture_without_sound_starts_at_zero(self, tmp_path):
        frames, _ = read(write_clip(tmp_path / "late.mp4", grey_ramp(5), range(500, 1000, 100)))
        assert times(frames) == TENTHS

    def test_an_edit_list_cuts_frames_and_moves_zero(self, tmp_path):
        path = write_clip(tmp_path / "edit.mp4", grey_ramp(8), options={"bf": "0"})
        with av.open(str(path)) as container:
            units_per_second = 1 / container.streams.video[0].time_base
        set_edit_start(path, int(units_per_second * 3 // 10))
        frames, _ = read(path)
        assert levels(frames) == [3, 4, 5, 6, 7]
        assert times(frames) == TENTHS


class TestRotation:
    @pytest.mark.parametrize(
        ("matrix", "degrees", "top", "bottom"),
        [
            ((0, 1, -1, 0), 90, (BLUE, RED), (WHITE, GREEN)),
            ((-1, 0, 0, -1), 180, (WHITE, BLUE), (GREEN, RED)),
            ((0, -1, 1, 0), 270, (GREEN, WHITE), (RED, BLUE)),
            ((-1, 0, 0, 1), 180, (GREEN, RED), (WHITE, BLUE)),  # mirrored, as front cameras do
        ],
    )
    def test_the_display_matrix_turns_the_pixels(self, tmp_path, matrix, degrees, top, bottom):
        path = write_clip(tmp_path / "turned.mp4", [four_corners()] * 3)
        set_display_matrix(path, *matrix)
        frames, video = read(path)
        size = (64, 48, 3) if matrix[0] == 0 else (48, 64, 3)
        assert video.info.rotation_degrees == degrees
        assert (video.info.height, video.info.width, 3) == size
        for frame in frames:
            assert frame.pixels.shape == size
            assert frame.pixels.flags.c_contiguous
            corners = [frame.pixels[y, x] for y in (4, -5) for x in (4, -5)]
            np.testing.assert_allclose(corners, [*top, *bottom], atol=8)

    def test_a_slanted_matrix_is_said(self, tmp_path):
        path = write_clip(tmp_path / "slanted.mp4", [four_corners()] * 2)
        set_display_matrix(path, 2, 1, -1, 2)
        frames, video = read(path)
        np.testing.assert_allclose(frames[0].pixels[4, 4], RED, atol=8)
        assert "not a quarter turn" in video.warnings[0]


class TestStreams:
    def test_the_first_of_two_pictures_is_read(self, tmp_path):
        path = write_clip(tmp_path / "two.mp4", grey_ramp(5), more_pictures=[four_corners()] * 5)
        assert levels(read(path)[0]) == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize("name", ["two.mp4", "two.mkv"])
    @pytest.mark.parametrize("still_size", [32, 256])
    def test_a_moving_picture_comes_before_a_still_one_and_the_choice_is_said(self, tmp_path, name, still_size):
        still = four_corners(still_size, still_size)
        path = write_clip(tmp_path / name, [still], more_pictures=grey_ramp(5))
        frames, video = read(path)
        assert (levels(frames), video.info.stream) == ([0, 1, 2, 3, 4], 1)
        assert "stream 1 (h264, 64 x 48) is searched, not stream 0" in video.warnings[0]

    def test_of_moving_pictures_the_larger_is_read_unless_one_is_asked_for(self, tmp_path):
        path = write_clip(tmp_path / "two.mp4", [four_corners()] * 5, more_pictures=grey_ramp(5, 128, 96))
        assert read(path)[1].info.width == 128
        with open_video(path, stream=0) as video:
            assert (video.info.width, video.info.stream, video.warnings) == (64, 0, [])
        with pytest.raises(VideoError, match=r"no picture in stream 2; its pictures: stream 0 .*; stream 1"):
            open_video(path, stream=2)

    def test_cover_art_is_not_the_video(self, tmp_path):
        frames, video = read(write_clip(tmp_path / "cover.mp4", grey_ramp(5), cover=four_corners(128, 96)))
        assert levels(frames) == [0, 1, 2, 3, 4]
        assert video.info.codec == "h264"

    @pytest.mark.parametrize("cover", [None, four_corners()])
    def test_sound_alone_is_refused(self, tmp_path, cover):
        path = write_clip(tmp_path / "sound.mp4", [], audio_seconds=0.2, cover=cover)
        with pytest.raises(VideoError, match="no video stream"):
            open_video(path)


class TestBroken:
    def test_a_cut_file_with_its_index_in_front_yields_what_is_there(self, tmp_path, noise):
        path = write_clip(tmp_path / "a.mp4", noise, options=EVERY_KEYFRAME, container_options=FASTSTART)
        frames, video = read(cut(path, 0.6))
        assert 3 <= len(frames) <= 7
        assert times(frames) == [k / 10 for k in range(len(frames))]
        assert any("may be cut" in warning for warning in video.warnings)

    @pytest.mark.parametrize("name", ["a.mkv", "a.flv", "a.webm"])
    def test_a_cut_file_with_sound_says_so(self, tmp_path, noise, name):
        codec = "libvpx-vp9" if name == "a.webm" else "libx264"
        path = write_clip(tmp_path / name, noise * 3, codec=codec, audio_seconds=3, audio_rate=44100)
        whole = read(path)[1].warnings
        frames, video = read(cut(path, 0.6))
        assert len(frames) < 25
        assert any("may be cut" in warning for warning in video.warnings)
        assert whole == []

    @pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.webm"])
    def test_a_cut_stream_yields_what_is_there(self, tmp_path, noise, name):
        codec = "libvpx-vp9" if name == "a.webm" else "libx264"
        frames, _ = read(cut(write_clip(tmp_path / name, noise, codec=codec), 0.6))
        assert 2 <= len(frames) <= 8
        assert times(frames) == [k / 10 for k in range(len(frames))]

    def test_a_cut_file_with_its_index_at_the_end_cannot_be_opened(self, tmp_path, noise):
        with pytest.raises(VideoError, match="complete file"):
            open_video(cut(write_clip(tmp_path / "a.mp4", noise), 0.6))

    def test_damage_in_the_middle_is_passed_over_and_said(self, tmp_path, noise):
        path = write_clip(tmp_path / "a.mp4", noise, options=EVERY_KEYFRAME, container_options=FASTSTART)
        data = bytearray(path.read_bytes())
        middle = len(data) * 6 // 10
        data[middle : middle + len(data) // 5] = bytes(len(data) // 5)
        path.write_bytes(data)
        frames, video = read(path)
        assert {0.0, 0.1, 0.2, 0.9} <= set(times(frames))
        assert len(video.warnings) >= 1

    def test_a_read_error_keeps_the_frames_before_it(self, tmp_path):
        path = write_clip(tmp_path / "a.mp4", grey_ramp(10), options={"bf": "2"})
        with VideoFile(path, BreaksAfter(av.open(str(path)), packets=6)) as video:
            # in coding order frame 6 comes before frame 5, which leans on it and is lost
            assert levels(video.frames()) == [0, 1, 2, 3, 4, 6]
        assert "breaks off" in video.warnings[0]
        assert "disk" in video.warnings[0]

    @pytest.mark.parametrize(
        ("name", "options"), [("a.mp4", {"g": "10", "bf": "0"}), ("b.mp4", {"g": "10", "bf": "2"})]
    )
    def test_decoding_goes_on_behind_packets_that_do_not_decode(self, tmp_path, name, options):
        path = blank_packets(write_clip(tmp_path / name, grey_ramp(20) * 6, options=options), 2.0, 9.0)
        frames, video = read(path)
        (gap,) = video.gaps
        assert times(frames)[:20] == [k / 10 for k in range(20)]
        assert times(frames)[-1] == 11.9
        assert gap.start_seconds == pytest.approx(2.0, abs=0.31)
        assert gap.end_seconds == pytest.approx(9.0, abs=0.31)
        assert [frame.gap for frame in frames if frame.gap] == [gap]
        assert "packets could not be decoded" in gap.why
        assert any(f"nothing is known of the {gap.seconds:.3f} s" in warning for warning in video.warnings)
        assert [frame.gap for frame in read(path, fps=0.2)[0] if frame.gap] == [gap]  # sampled whatever the rate

    def test_a_recording_that_starts_within_a_group_of_pictures_begins_at_the_next(self, tmp_path, noise):
        options = {"g": "60", "bf": "0", "sc_threshold": "0"}
        path = write_clip(tmp_path / "a.ts", noise * 13, options=options)
        data = path.read_bytes()
        path.write_bytes(data[188 * 60 :])  # the key frame is gone, 59 pictures lean on it
        frames, video = read(path)
        assert len(frames) == 70
        np.testing.assert_allclose(np.diff(times(frames)), 0.1, atol=1e-3)
        assert 5 < frames[0].pts_seconds < 6
        assert "starts within a group of pictures" in video.warnings[0]

    def test_a_wild_stamp_is_mended(self, tmp_path):
        path = write_clip(tmp_path / "a.mkv", grey_ramp(10), codec="ffv1", pixel_format="gray")
        with VideoFile(path, Stamps(av.open(str(path)), {4: 999_000})) as video:
            frames = list(video.frames())
        assert times(frames) == [k / 10 for k in range(10)]
        assert levels(frames) == list(range(10))
        assert any(warning.startswith("1 frame with a time far from") for warning in video.warnings)

    def test_memory_that_ends_is_not_blamed_on_the_video(self, tmp_path, monkeypatch):
        path = write_clip(tmp_path / "a.mp4", grey_ramp(3))

        def no_memory(*_, **__):
            raise av.error.MemoryError(errno.ENOMEM, "Cannot allocate memory")

        broken = NoMemory(av.open(str(path)))
        with pytest.raises(MemoryError):
            VideoFile(path, broken)
        monkeypatch.setattr(av, "open", no_memory)
        with pytest.raises(MemoryError):
            open_video(path)

    def test_frames_that_are_not_later_than_the_one_before_are_skipped(self, tmp_path):
        original = write_clip(tmp_path / "a.mkv", grey_ramp(5), codec="ffv1", pixel_format="gray")
        repeated = tmp_path / "b.mkv"
        with av.open(str(original)) as source_file, av.open(str(repeated), "w") as target:
            stream = target.add_stream_from_template(source_file.streams.video[0])
            for packet, milliseconds in zip(source_file.demux(), [0, 100, 100, 200, 300], strict=False):
                packet.pts = packet.dts = milliseconds
                packet.stream = stream
                target.mux(packet)
        frames, video = read(repeated)
        assert times(frames) == [0.0, 0.1, 0.2, 0.3]
        assert levels(frames) == [0, 1, 3, 4]
        assert video.warnings[0].startswith("1 frame skipped")

    def test_recordings_put_end_to_end_count_on(self, tmp_path):
        path = write_clip(tmp_path / "a.ts", grey_ramp(20))
        path.write_bytes(path.read_bytes() * 2)
        frames, video = read(path)
        assert times(frames) == [k / 10 for k in range(40)]
        assert levels(frames) == [*range(20), *range(20)]
        assert video.warnings == [
            "at 2.000 s the clock is set back, as where recordings were joined: counted on; events end there"
        ]

    def test_a_raw_stream_takes_its_nominal_rate_and_says_so(self, tmp_path):
        frames, video = read(write_clip(tmp_path / "a.h264", grey_ramp(5), container_format="h264"))
        assert levels(frames) == [0, 1, 2, 3, 4]
        assert times(frames) == [0.0, 0.04, 0.08, 0.12, 0.16]
        assert "without a time stamp" in video.warnings[0]


class Stamps:
    """A container with other presentation times (in its time base) for the packets of these numbers."""

    def __init__(self, container, stamps):
        self._container, self._stamps = container, stamps

    def __getattr__(self, name):
        return getattr(self._container, name)

    def demux(self):
        for number, packet in enumerate(self._container.demux()):
            packet.pts = self._stamps.get(number, packet.pts)
            yield packet


class NoMemory:
    """A container whose third packet finds no memory."""

    def __init__(self, container):
        self._container = container

    def __getattr__(self, name):
        return getattr(self._container, name)

    def demux(self):
        for number, packet in enumerate(self._container.demux()):
            if number == 2:
                raise av.error.MemoryError(errno.ENOMEM, "Cannot allocate memory")
            yield packet


class BreaksAfter:
    """A container whose reading fails after some packets, as on a broken disk."""

    def __init__(self, container, packets):
        self._container, self._packets = container, packets

    def __getattr__(self, name):
        return getattr(self._container, name)

    def demux(self):
        for number, packet in enumerate(self._container.demux()):
            if number == self._packets:
                raise av.error.OSError(5, "the disk is broken")
            yield packet


class TestRefused:
    def test_missing(self, tmp_path):
        with pytest.raises(VideoError, match=r"none\.mp4 is not a file"):
            open_video(tmp_path / "none.mp4")

    def test_a_name_that_is_too_long_or_impossible(self):
        for name in ("a" * 300 + ".mp4", "a\0.mp4"):
            with pytest.raises(VideoError, match="check the path"):
                open_video(name)

    def test_folder(self, tmp_path):
        with pytest.raises(VideoError, match="is a folder"):
            open_video(tmp_path)

    def test_empty(self, tmp_path):
        (tmp_path / "empty.mp4").touch()
        with pytest.raises(VideoError, match="0 bytes"):
            open_video(tmp_path / "empty.mp4")

    @pytest.mark.parametrize(
        "address",
        [
            "https://example.org/a.mp4",
            "rtsp://camera/1",
            "file:///etc/hostname",
            "data:video/mp4;base64,AAAA",
            "pipe:0",
            Path("http://127.0.0.1/a.mp4"),  # it makes one slash of two
        ],
    )
    def test_addresses(self, address):
        with pytest.raises(VideoError, match="is an address"):
            open_video(address)

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("text.mp4", "not a video\n" * 100),
            ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{video}\n#EXT-X-ENDLIST\n"),
            ("list.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{video}\n#EXT-X-ENDLIST\n"),
            ("list.ffconcat", "ffconcat version 1.0\nfile {video}\n"),
            ("session.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"),
        ],
    )
    def test_text_and_playlists(self, tmp_path, name, content):
        video = write_clip(tmp_path / "real.ts", grey_ramp(3))
        path = tmp_path / name
        path.write_text(content.format(video=video.name))
        with pytest.raises(VideoError, match="cannot be opened as a video"):
            open_video(path)

    def test_a_playlist_would_open_without_the_format_list(self, tmp_path, monkeypatch):
        # shows that the test above can fail: FFmpeg alone follows the list to the other file
        video = write_clip(tmp_path / "real.ts", grey_ramp(3))
        (tmp_path / "list.ffconcat").write_text(f"ffconcat version 1.0\nfile {video.name}\n")
        monkeypatch.setattr(container, "_INPUT_OPTIONS", {})
        assert len(read(tmp_path / "list.ffconcat")[0]) == 3

    def test_a_still_image(self, tmp_path):
        from PIL import Image

        Image.fromarray(four_corners()).save(tmp_path / "photo.png")
        with pytest.raises(VideoError, match="still image"):
            open_video(tmp_path / "photo.png")

    def test_a_picture_above_the_limit(self, tmp_path, monkeypatch):
        monkeypatch.setattr(decode, "DECODER_OPTIONS", {"max_pixels": "1000"})
        with pytest.raises(VideoError, match="35,389,440 pixels"):
            open_video(write_clip(tmp_path / "large.mp4", grey_ramp(2)))

    def test_a_picture_above_the_limit_that_its_header_hides(self, tmp_path, monkeypatch):
        path = write_clip(tmp_path / "hides.avi", grey_ramp(2), codec="mjpeg", pixel_format="yuvj420p")
        data = bytearray(path.read_bytes())
        struct.pack_into("<2i", data, data.index(b"strf") + 12, 16, 16)
        path.write_bytes(data)
        assert read(path)[1].info.width == 64
        monkeypatch.setattr(decode, "DECODER_OPTIONS", {"max_pixels": "1000"})
        with pytest.raises(VideoError, match="35,389,440 pixels"):
            open_video(path)

    def test_a_second_pass(self, tmp_path):
        with open_video(write_clip(tmp_path / "a.mp4", grey_ramp(3))) as video:
            assert len(list(video.frames())) == 3
            with pytest.raises(VideoError, match="open it again"):
                video.frames()

    def test_an_impossible_rate(self, tmp_path):
        with open_video(write_clip(tmp_path / "a.mp4", grey_ramp(3))) as video:
            with pytest.raises(VideoError, match="above 0"):
                video.frames(fps=0)
            assert len(list(video.frames())) == 3


@pytest.mark.parametrize("pixels", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_a_frame_is_rgb_bytes(pixels):
    with pytest.raises(ValueError, match="height, width, 3"):
        Frame(pixels, 0.0, 0)


@pytest.mark.parametrize(
    ("name", "count", "end_seconds"),
    [
        ("vtest.avi", 795, 79.5),
        ("car-detection.mp4", 377, 30.16),
        ("flipping_a_pancake.mkv", 310, 10.333),
    ],
)
def test_real_clips(shared_data, name, count, end_seconds):
    with open_video(shared_data / "videos" / name) as video:
        frames = list(video.frames(fps=1))
        assert frames[-1].index < count
        assert len(frames) == int(end_seconds - 1e-3) + 1
        assert video.end_seconds == pytest.approx(end_seconds, abs=1e-3)
        assert video.warnings == []
