import io
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from vlmquant.errors import DataError, VideoError
from vlmquant.models.spec import ImageSpec
from vlmquant.video.detect import Detection, detect
from vlmquant.video.events import EventRule
from vlmquant.video.score import EventQuery
from vlmquant.video.watch import THUMBNAIL_PIXELS

FPS = 10
SHARP = EventRule(on=0.6, off=0.4, min_duration_seconds=0.3, merge_gap_seconds=0.5, smoothing_seconds=0.0)


class RedEncoder:
    """Knows how red or gray a picture is, and which of the two a text says; any other text is half way to both."""

    name = "red"
    logit_scale = 20.0
    image_spec = ImageSpec(
        shortest_edge=8,
        resize_height=None,
        resize_width=None,
        resample=2,
        crop_height=8,
        crop_width=8,
        rescale_factor=1 / 255,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )

    def __init__(self) -> None:
        self.texts: list[str] = []

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        self.texts += texts
        other = [0.5, 0.5, 0.5**0.5]
        return np.array(
            [[1, 0, 0] if "red" in text else [0, 1, 0] if "gray" in text else other for text in texts], np.float32
        )

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        red = np.clip(pixels[:, 0].mean(axis=(1, 2)) - pixels[:, 2].mean(axis=(1, 2)), 0, 1)
        rows = np.stack([red, 1 - red, 0 * red], axis=1).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        raise AssertionError("detection preprocesses in its own thread")


def make_video(path: Path, colors: Sequence[str], size: tuple[int, int] = (64, 48), offset_seconds: float = 0) -> Path:
    rgb = {"red": (250, 5, 5), "gray": (120, 120, 120), "dark red": (200, 5, 5)}
    options = {"output_ts_offset": str(offset_seconds)} if offset_seconds else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.gop_size = 5
        for color in colors:
            picture = np.full((size[1], size[0], 3), rgb[color], np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def red_second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds; the middle one is red."""
    folder = tmp_path_factory.mktemp("detect")
    return make_video(folder / "red.mp4", ["gray"] * 10 + ["dark red"] * 4 + ["red"] * 6 + ["gray"] * 10)


def bounds(detection: Detection) -> list[tuple[str, float, float]]:
    return [
        (event.name, pytest.approx(event.start_seconds), pytest.approx(event.end_seconds)) for event in detection.events
    ]


def test_a_red_second_is_found_where_it_is(red_second: Path) -> None:
    detection = detect(red_second, RedEncoder(), ["a red picture"], fps=FPS, rule=SHARP)
    (event,) = detection.events
    assert (event.start_seconds, event.end_seconds) == (pytest.approx(1.0), pytest.approx(2.0))
    assert event.peak_seconds == pytest.approx(1.4, abs=0.61)
    assert event.peak_score > 0.99
    assert detection.names == ("a red picture",)
    assert detection.scores.shape == (30, 1)
    assert detection.scores.dtype == np.float32
    assert detection.latency_ms.shape == detection.pts_seconds.shape == (30,)
    np.testing.assert_allclose(detection.pts_seconds, np.arange(30) / FPS, atol=1e-6)
    assert detection.end_seconds == pytest.approx(3.0)
    assert detection.model == "red"
    assert detection.warnings == ()
    assert detection.frames_per_second == pytest.approx(30 / detection.wall_seconds)
    assert detection.speed == pytest.approx(3.0 / detection.wall_seconds)


def test_sampling_keeps_the_boundaries_within_one_step(red_second: Path) -> None:
    detection = detect(red_second, RedEncoder(), ["a red picture"], fps=5, rule=SHARP)
    assert len(detection.pts_seconds) == 15
    (event,) = detection.events
    assert event.start_seconds == pytest.approx(1.0, abs=0.2)
    assert event.end_seconds == pytest.approx(2.0, abs=0.2)


def pixels_of(thumbnail: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(thumbnail)))


def test_the_thumbnail_is_the_frame_at_the_peak(red_second: Path) -> None:
    detection = detect(red_second, RedEncoder(), ["a red picture"], fps=FPS, rule=SHARP)
    (thumbnail,) = map(pixels_of, detection.thumbnails)
    assert thumbnail.shape == (48, 64, 3)
    red, _, blue = thumbnail.mean(axis=(0, 1))
    assert red > 230  # of the brightest frames, not of the dark red ones that began the event
    assert blue < 30


def test_thumbnails_are_small_and_keep_the_aspect_ratio(tmp_path: Path) -> None:
    video = make_video(tmp_path / "wide.mp4", ["red"] * 5, size=(640, 240))
    (thumbnail,) = map(pixels_of, detect(video, RedEncoder(), ["red"], rule=SHARP).thumbnails)
    assert thumbnail.shape == (120, THUMBNAIL_PIXELS, 3)


@pytest.mark.parametrize("smoothing", [0.0, 0.6])
def test_the_result_does_not_depend_on_batches(red_second: Path, smoothing: float) -> None:
    chosen = EventRule(smoothing_seconds=smoothing)
    first, *others = [
        detect(red_second, RedEncoder(), ["red", "gray"], rule=chosen, batch_size=size) for size in (1, 3, 64)
    ]
    assert len(first.events) > 1
    for other in others:
        np.testing.assert_array_equal(other.scores, first.scores)
        assert other.events == first.events
        assert other.thumbnails == first.thumbnails


def test_an_event_that_is_still_running_ends_with_the_video(tmp_path: Path) -> None:
    video = make_video(tmp_path / "open.mp4", ["gray"] * 10 + ["red"] * 10)
    (event,) = detect(video, RedEncoder(), ["red"], fps=FPS, rule=SHARP).events
    assert (event.start_seconds, event.end_seconds) == (pytest.approx(1.0), pytest.approx(2.0))


def test_several_events_come_in_order_of_time(red_second: Path) -> None:
    detection = detect(
        red_second, RedEncoder(), ["red", EventQuery("gray", ("a gray picture",)), "a dog"], fps=FPS, rule=SHARP
    )
    assert bounds(detection) == [("gray", 0.0, 1.0), ("red", 1.0, 2.0), ("gray", 2.0, 3.0)]
    assert [pixels_of(thumbnail).mean() > 100 for thumbnail in detection.thumbnails] == [True, False, True]


def test_nothing_found_is_a_result(tmp_path: Path) -> None:
    video = make_video(tmp_path / "gray.mp4", ["gray"] * 12)
    detection = detect(video, RedEncoder(), ["red"], rule=SHARP)
    assert detection.events == ()
    assert detection.thumbnails == ()
    assert detection.scores.max() < 0.01


def test_what_was_found_before_a_broken_end_is_kept(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "whole.avi", ["gray"] * 10 + ["red"] * 10 + ["gray"] * 40)
    cut = tmp_path / "cut.avi"
    cut.write_bytes(b"00dc".join(whole.read_bytes().split(b"00dc")[:46]))  # each chunk begins with this mark
    detection = detect(cut, RedEncoder(), ["red"], fps=FPS, rule=SHARP)
    assert bounds(detection) == [("red", 1.0, 2.0)]
    assert detection.end_seconds < 5.0
    assert detection.warnings


def test_no_event_goes_on_over_a_gap(tmp_path: Path) -> None:
    one = make_video(tmp_path / "one.ts", ["gray"] * 5 + ["red"] * 15)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(one.read_bytes() * 2)
    detection = detect(joined, RedEncoder(), ["red"], fps=FPS, rule=SHARP)
    assert bounds(detection) == [("red", 0.5, 2.0), ("red", 2.5, 4.0)]
    red_again = make_video(tmp_path / "red.ts", ["red"] * 20)
    joined.write_bytes(red_again.read_bytes() * 2)
    detection = detect(joined, RedEncoder(), ["red"], fps=FPS, rule=SHARP)
    assert bounds(detection) == [("red", 0.0, 2.0), ("red", 2.0, 4.0)]
    assert len(detection.thumbnails) == 2
    assert "set back" in detection.warnings[0]
    (gap,) = detection.gaps
    assert (gap.start_seconds, gap.seconds) == (pytest.approx(2.0), 0)


def test_a_gap_does_not_count_as_video(tmp_path: Path) -> None:
    early = make_video(tmp_path / "early.ts", ["red"] * 20)
    late = make_video(tmp_path / "late.ts", ["red"] * 20, offset_seconds=50_000)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(early.read_bytes() + late.read_bytes())
    for fps in (FPS, 0.1):  # the frame behind the gap is looked at in any case
        detection = detect(joined, RedEncoder(), ["red"], fps=fps, rule=SHARP)
        first, second = detection.events
        assert (first.end_seconds, second.start_seconds) == (pytest.approx(2.0), pytest.approx(50_000))
        assert detection.seen_seconds == pytest.approx(4.0)
        assert detection.speed == pytest.approx(4.0 / detection.wall_seconds)
        assert "jumps ahead" in detection.warnings[0]


def test_every_scored_frame_is_shown_to_the_caller_in_order(red_second: Path) -> None:
    seen: list[float] = []
    detection = detect(red_second, RedEncoder(), ["red"], on_frame=lambda frame: seen.append(frame.pts_seconds))
    np.testing.assert_array_equal(seen, detection.pts_seconds)


def test_texts_are_embedded_once_and_negatives_are_used(red_second: Path) -> None:
    encoder = RedEncoder()
    detection = detect(red_second, encoder, ["red"], negatives=["a fire engine"])
    assert len(encoder.texts) == len(set(encoder.texts))
    assert any("a fire engine" in text for text in encoder.texts)
    assert detection.queries[0].negatives == ("a fire engine",)


def test_the_config_digest_tells_questions_apart_and_not_runs(red_second: Path) -> None:
    first = detect(red_second, RedEncoder(), ["red"], rule=SHARP)
    again = detect(red_second, RedEncoder(), ["red"], rule=SHARP, batch_size=1)
    others = [
        detect(red_second, RedEncoder(), ["red"]),
        detect(red_second, RedEncoder(), ["red car"], rule=SHARP),
        detect(red_second, RedEncoder(), ["red"], rule=SHARP, fps=2),
        detect(red_second, RedEncoder(), ["red"], rule=SHARP, negatives=["a fire engine"]),
    ]
    assert first.config_sha256 == again.config_sha256
    assert len({first.config_sha256} | {other.config_sha256 for other in others}) == 5


class BrokenEncoder(RedEncoder):
    def __init__(self, breaking: Callable[[np.ndarray], np.ndarray]) -> None:
        super().__init__()
        self.breaking = breaking

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        return self.breaking(super().encode_pixels(pixels))


def test_a_score_that_is_not_a_number_ends_the_run_and_names_the_time(red_second: Path) -> None:
    with pytest.raises(ValueError, match=r"'red': score at 0\.0 s is nan"):
        detect(red_second, BrokenEncoder(lambda rows: rows * np.float32("nan")), ["red"])


def test_an_exception_of_the_encoder_reaches_the_caller(red_second: Path) -> None:
    def explode(rows: np.ndarray) -> np.ndarray:
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        detect(red_second, BrokenEncoder(explode), ["red"])


def test_bad_input_is_refused(red_second: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="put it into a list"):
        detect(red_second, RedEncoder(), "red")
    with pytest.raises(DataError, match="no event"):
        detect(red_second, RedEncoder(), [])
    with pytest.raises(VideoError, match="not a file"):
        detect(tmp_path / "missing.mp4", RedEncoder(), ["red"])
    with pytest.raises(VideoError, match="frames per second"):
        detect(red_second, RedEncoder(), ["red"], fps=0)
