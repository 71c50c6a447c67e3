import errno
import itertools

import av
import numpy as np
import pytest
from videos_made import RED, grey_ramp, level, set_display_matrix, write_clip

from vlmquant.errors import VideoError
from vlmquant.video.detect import Detection
from vlmquant.video.events import Event, EventRule
from vlmquant.video.score import EventQuery
from vlmquant.video.sources.file import open_video
from vlmquant.video.write_mp4 import write_mp4

VFR_MS = [0, 100, 150, 400, 410, 1000, 1100, 1200, 3000, 3100]


def detection(path, *, events=(), scores=None, pts_seconds=None, names=("a person walking",)):
    """What a run over `path` that looked at every frame and scored 0.25 everywhere would have returned."""
    with open_video(path) as source:
        info, frames = source.info, list(source.frames())
    pts = np.array([frame.pts_seconds for frame in frames]) if pts_seconds is None else np.array(pts_seconds)
    return Detection(
        info=info,
        model="none",
        queries=tuple(EventQuery.from_text(name) for name in names),
        rule=EventRule(on=0.6, off=0.4),
        fps=5.0,
        events=tuple(events),
        thumbnails=(),
        pts_seconds=pts,
        scores=np.full((len(pts), len(names)), 0.25, np.float32) if scores is None else np.array(scores, np.float32),
        latency_ms=np.zeros(len(pts)),
        end_seconds=float(pts[-1]),
        wall_seconds=1.0,
        warnings=(),
    )


def read(path):
    with open_video(path) as video:
        return list(video.frames()), video


def times(frames):
    return [round(frame.pts_seconds, 4) for frame in frames]


def event(start, end, name="a person walking"):
    return Event(
        name=name, start_seconds=start, end_seconds=end, peak_seconds=start, peak_score=0.9, mean_score=0.8
    )  # fmt: skip


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "in.mp4", grey_ramp(10, 320, 240))


def test_every_frame_comes_back_at_its_time_with_the_picture_under_the_rows(clip, tmp_path):
    notes = write_mp4(detection(clip), tmp_path / "out.mp4")
    frames, video = read(tmp_path / "out.mp4")
    assert notes == ()
    assert times(frames) == [k / 10 for k in range(10)]
    assert [level(frame.pixels[120:]) for frame in frames] == list(range(10))
    assert (video.info.width, video.info.height) == (320, 240)
    assert video.info.codec == "h264"
    assert np.abs(frames[9].pixels[:16, :16].astype(int) - 90).max() > 20  # something is drawn at the top left
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_variable_frame_rate_is_kept(tmp_path):
    clip = write_clip(tmp_path / "vfr.mkv", grey_ramp(10, 320, 240), VFR_MS, options={"bf": "2"})
    write_mp4(detection(clip), tmp_path / "out.mp4")
    frames, _ = read(tmp_path / "out.mp4")
    assert times(frames) == [ms / 1000 for ms in VFR_MS]
    assert [level(frame.pixels[120:]) for frame in frames] == list(range(10))


def test_an_odd_size_grows_by_one(tmp_path):
    clip = write_clip(tmp_path / "odd.mp4", grey_ramp(3, 63, 47), pixel_format="yuv444p")
    write_mp4(detection(clip), tmp_path / "out.mp4")
    frames, _ = read(tmp_path / "out.mp4")
    assert frames[0].pixels.shape == (48, 64, 3)


def test_a_turned_video_is_written_upright(tmp_path):
    clip = write_clip(tmp_path / "turned.mp4", grey_ramp(3, 320, 240))
    set_display_matrix(clip, 0, 1, -1, 0)
    write_mp4(detection(clip), tmp_path / "out.mp4")
    frames, video = read(tmp_path / "out.mp4")
    assert frames[0].pixels.shape == (320, 240, 3)
    assert video.info.rotation_degrees == 0


def test_colours_survive(tmp_path):
    red = np.full((240, 320, 3), RED, np.uint8)
    write_mp4(detection(write_clip(tmp_path / "red.mp4", [red] * 3)), tmp_path / "out.mp4")
    frames, _ = read(tmp_path / "out.mp4")
    np.testing.assert_allclose(frames[1].pixels[200, 160], RED, atol=8)


class TestSound:
    def packets(self, path):
        with av.open(str(path)) as container:
            audio = container.streams.audio[0]
            return [bytes(packet) for packet in container.demux(audio) if packet.dts is not None], audio.start_time

    def test_is_copied_bit_for_bit(self, tmp_path):
        clip = write_clip(tmp_path / "in.mp4", grey_ramp(10, 320, 240), audio_seconds=1)
        assert write_mp4(detection(clip), tmp_path / "out.mp4") == ()
        packets, start = self.packets(tmp_path / "out.mp4")
        assert (packets, start) == self.packets(clip)
        assert len(packets) > 40

    def test_stays_in_step_with_a_late_picture(self, tmp_path):
        clip = write_clip(
            tmp_path / "in.ts",
            grey_ramp(5, 320, 240),
            range(500, 1000, 100),
            audio_seconds=1,
            container_options={"output_ts_offset": "1.4"},
        )
        write_mp4(detection(clip), tmp_path / "out.mp4")
        before, after = (read(path)[0] for path in (clip, tmp_path / "out.mp4"))
        assert 0.5 <= before[0].pts_seconds < 0.53
        np.testing.assert_allclose(times(after), times(before), atol=2e-3)  # MP4 delays a track in whole milliseconds
        with av.open(str(tmp_path / "out.mp4")) as container:
            audio = container.streams.audio[0]
            assert float(audio.start_time * audio.time_base) == pytest.approx(0, abs=2e-3)

    def test_that_mp4_cannot_hold_is_left_out_and_said(self, tmp_path):
        clip = write_clip(tmp_path / "in.avi", grey_ramp(3, 320, 240), codec="mpeg4", audio_codec="pcm_u8",
                          audio_seconds=0.3)  # fmt: skip
        assert write_mp4(detection(clip), tmp_path / "out.mp4") == ("the sound is left out: MP4 cannot hold pcm_u8",)
        assert len(read(tmp_path / "out.mp4")[0]) == 3


class TestRows:
    """Rows are looked at in the decoded result; row height and bar geometry are not fixed here."""

    ROWS = slice(0, 60), slice(0, 320)

    def lit(self, pixels):
        """Count the pixels in the colour of an active event."""
        red, green, blue = (pixels[self.ROWS][..., channel].astype(int) for channel in range(3))
        return int(((red > 180) & (green > 110) & (blue < 90)).sum())

    def test_a_row_is_lit_from_start_to_before_end(self, clip, tmp_path):
        write_mp4(detection(clip, events=[event(0.3, 0.6)]), tmp_path / "out.mp4")
        frames, _ = read(tmp_path / "out.mp4")
        assert [self.lit(frame.pixels) > 20 for frame in frames] == [0.3 <= k / 10 < 0.6 for k in range(10)]

    def test_the_bar_grows_with_the_score_of_the_last_frame_looked_at(self, clip, tmp_path):
        scored = detection(clip, events=[event(0, 1)], pts_seconds=[0.0, 0.5], scores=[[0.1], [0.9]])
        write_mp4(scored, tmp_path / "out.mp4")
        lit = [self.lit(frame.pixels) for frame in read(tmp_path / "out.mp4")[0]]
        assert max(lit[:5]) < min(lit[5:])

    def test_names_outside_ascii_and_many_rows_on_a_tiny_picture(self, tmp_path):
        clip = write_clip(tmp_path / "tiny.mp4", grey_ramp(2, 16, 16))
        names = tuple(f"événement {k}" for k in range(9))
        write_mp4(detection(clip, names=names), tmp_path / "out.mp4")
        assert len(read(tmp_path / "out.mp4")[0]) == 2


def test_a_source_that_went_away_is_named_and_nothing_is_left(clip, tmp_path):
    found = detection(clip)
    clip.unlink()
    with pytest.raises(VideoError, match=r"in\.mp4 is not a file"):
        write_mp4(found, tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(clip, tmp_path):
    with pytest.raises(VideoError, match=r"cannot be written"):
        write_mp4(detection(clip), tmp_path / "none" / "out.mp4")


def test_a_failure_half_way_leaves_the_old_file(tmp_path):
    clip = write_clip(tmp_path / "in.mp4", grey_ramp(10, 320, 240), audio_seconds=1)
    target = tmp_path / "out.mp4"
    target.write_text("old")

    def track(items, description, total=None):
        yield from itertools.islice(items, 5)
        assert (tmp_path / ".out.mp4.unfinished").stat().st_size > 0
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_mp4(detection(clip), target, track=track)
    assert target.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"in.mp4", "out.mp4"}


class TestJumps:
    """Recordings put end to end, with sound, as cameras leave them."""

    def joined(self, tmp_path, offset):
        parts = [
            write_clip(tmp_path / f"{k}.ts", grey_ramp(20, 320, 240), audio_seconds=2,
                       container_options={"output_ts_offset": str(k * offset)} if offset else {})
            for k in range(2)
        ]  # fmt: skip
        path = tmp_path / "joined.ts"
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
        return path

    @pytest.mark.parametrize("offset", [0, 5, 50_000])
    def test_every_picture_is_there_and_the_sound_ends_with_a_word(self, tmp_path, offset):
        notes = write_mp4(detection(self.joined(tmp_path, offset)), tmp_path / "out.mp4")
        frames, video = read(tmp_path / "out.mp4")
        assert [level(frame.pixels[120:]) for frame in frames] == [*range(20), *range(20)]
        assert video.end_seconds < 10
        assert any("sound of the annotated copy ends at 2.0 s" in note for note in notes)
        assert any("leaves out the" in note for note in notes) == (offset > 10)


def test_what_the_encoder_refuses_is_not_blamed_on_the_folder(clip, tmp_path, monkeypatch):
    def refuse(*_):
        raise av.error.ArgumentError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("vlmquant.video.write_mp4._to_video_frame", refuse)
    with pytest.raises(VideoError, match=r"FFmpeg cannot encode this video \(Invalid argument\)"):
        write_mp4(detection(clip), tmp_path / "out.mp4")


def test_hostile_and_long_names_are_drawn(clip, tmp_path):
    names = ("a\nb\x1b[2J $x^$", "word " * 500)
    assert write_mp4(detection(clip, names=names), tmp_path / "out.mp4") == ()
