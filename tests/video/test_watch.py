"""A source watched frame by frame; the source and the encoder are made up, so that hours take a second."""

import gc
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import vlmquant.video.watch as watching
from vlmquant.errors import DataError, VideoError
from vlmquant.models.spec import ImageSpec
from vlmquant.video import pipeline
from vlmquant.video.events import EventRule
from vlmquant.video.score import EventQuery
from vlmquant.video.sources.source import Frame, Gap, VideoInfo
from vlmquant.video.watch import Observation, watch
from vlmquant.video.write_stream import embedding_table, score_table

SHARP = EventRule(on=0.6, off=0.4, min_duration_seconds=0.3, merge_gap_seconds=0.5, smoothing_seconds=0.0)
RED = EventQuery("red", ("a red picture",))


class RedEncoder:
    """Knows how red a picture is, and which texts say so."""

    name = "red"
    logit_scale = 20.0
    image_spec = ImageSpec(
        shortest_edge=4,
        resize_height=None,
        resize_width=None,
        resample=0,
        crop_height=4,
        crop_width=4,
        rescale_factor=1 / 255,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([[1, 0] if "red" in text else [0, 1] for text in texts], np.float32)

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        red = pixels[:, 0].mean(axis=(1, 2))
        return np.stack([red, 1 - red], axis=1).astype(np.float32)

    def encode_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        raise AssertionError("watching preprocesses in its own thread")


class MadeUp:
    """A source of `count` frames a tenth of a second apart, red where `red` says so, with gaps before some."""

    def __init__(self, count: int, red: Callable[[int], bool], gaps: dict[int, Gap] | None = None) -> None:
        self.warnings: list[str] = []
        self.closed = False
        self._count, self._red, self._gaps = count, red, gaps or {}
        self.info = VideoInfo(
            path=Path("made-up"),
            width=4,
            height=4,
            duration_seconds=None,
            average_fps=None,
            codec="none",
            rotation_degrees=0,
        )

    @property
    def end_seconds(self) -> float:
        return self._count / 10

    def frames(self, fps: float | None = None) -> Iterator[Frame]:
        for index in range(self._count):
            pixels = np.zeros((4, 4, 3), np.uint8)
            pixels[..., 0] = 255 if self._red(index) else 0
            yield Frame(pixels, index / 10, index, 0.1, self._gaps.get(index))

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> "MadeUp":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def told(observations: Sequence[Observation]) -> list[tuple[float, str, float]]:
    """When what was told: (time of the frame, "opened" or "closed", start or end)."""
    found = []
    for seen in observations:
        found += [(seen.pts_seconds, "opened", opened.start_seconds) for opened in seen.opened]
        found += [(seen.pts_seconds, "closed", closed.event.end_seconds) for closed in seen.closed]
    return found


def test_each_frame_tells_its_time_embedding_scores_and_events() -> None:
    source = MadeUp(40, lambda index: 10 <= index < 20)
    seen = list(watch(source, RedEncoder(), [RED], fps=10, rule=SHARP))
    assert [one.pts_seconds for one in seen] == [index / 10 for index in range(40)]
    np.testing.assert_array_equal(seen[15].embedding, np.array([1, 0], np.float32))
    assert seen[15].scores.shape == (1,)
    assert [one.scores[0] > 0.5 for one in seen] == [10 <= index < 20 for index in range(40)]
    # certain after 0.3 s; over when the half second has passed in which it could be joined
    assert told(seen) == [(1.3, "opened", 1.0), (2.5, "closed", 2.0)]
    (closed,) = [closed for one in seen for closed in one.closed]
    assert closed.thumbnail.shape == (4, 4, 3)
    assert closed.thumbnail[0, 0].tolist() == [255, 0, 0]


def test_an_event_that_is_too_short_is_never_opened_and_a_joined_one_only_once() -> None:
    short = watch(MadeUp(40, lambda index: index in (10, 11)), RedEncoder(), [RED], fps=10, rule=SHARP)
    assert told(list(short)) == []
    joined = watch(
        MadeUp(60, lambda index: 10 <= index < 30 and index not in (20, 21)), RedEncoder(), [RED], fps=10, rule=SHARP
    )
    assert told(list(joined)) == [(1.3, "opened", 1.0), (3.5, "closed", 3.0)]


def test_the_last_observation_holds_what_ends_with_the_source() -> None:
    seen = list(watch(MadeUp(20, lambda index: index >= 10), RedEncoder(), [RED], fps=10, rule=SHARP))
    assert told(seen) == [(1.3, "opened", 1.0), (1.9, "closed", 2.0)]


def test_a_gap_closes_and_a_new_event_opens_behind_it() -> None:
    gap = Gap(start_seconds=1.0, end_seconds=1.0, why="the clock is set back")
    seen = list(watch(MadeUp(20, lambda _: True, {10: gap}), RedEncoder(), [RED], fps=10, rule=SHARP))
    assert told(seen) == [(0.3, "opened", 0.0), (1.0, "closed", 1.0), (1.3, "opened", 1.0), (1.9, "closed", 2.0)]
    assert [one.pts_seconds for one in seen if one.gap] == [1.0]


def test_every_query_follows_its_own_rule() -> None:
    patient = EventQuery("patient", ("a red picture",), rule=replace(SHARP, min_duration_seconds=2.0))
    source = MadeUp(60, lambda index: 10 <= index < 20 or index >= 30)
    seen = list(watch(source, RedEncoder(), [RED, patient], fps=10, rule=SHARP))
    events = [closed.event for one in seen for closed in one.closed]
    assert [(event.name, event.start_seconds) for event in events] == [("red", 1.0), ("red", 3.0), ("patient", 3.0)]


def test_mistakes_are_found_before_the_first_frame() -> None:
    with pytest.raises(VideoError, match="frames per second"):
        watch(MadeUp(1, bool), RedEncoder(), [RED], fps=0)
    with pytest.raises(DataError, match="no event"):
        watch(MadeUp(1, bool), RedEncoder(), [])


def peak_bytes(count: int, folder: Path) -> int:
    """Return the most memory that Python and NumPy held while `count` frames were watched and written."""
    source = MadeUp(count, lambda index: index % 100 < 20)
    facts = {"model_sha256": "0" * 64}
    gc.collect()
    tracemalloc.start()
    with score_table(folder, ["red"]) as scores, embedding_table(folder, facts) as embeddings:
        for seen in watch(source, RedEncoder(), [RED], fps=10, rule=SHARP):
            scores.add(seen)
            embeddings.add(seen)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Pillow's decoders leave some 50 bytes a picture behind, which would hide what is kept here
    monkeypatch.setattr(pipeline, "preprocess", lambda pixels, _: pixels.transpose(2, 0, 1).astype(np.float32) / 255)
    monkeypatch.setattr(watching, "_thumbnail", np.copy)
    peak_bytes(100, tmp_path)  # first uses of everything
    short, long = peak_bytes(200, tmp_path), peak_bytes(1200, tmp_path)
    assert long < 1.05 * short
    table = np.load(tmp_path / "embeddings.npy", mmap_mode="r")
    assert table.shape == (1200,)
    assert table.dtype["embedding"].shape == (2,)
    np.testing.assert_allclose(table["pts_seconds"], np.arange(1200) / 10)
    np.testing.assert_array_equal(table["embedding"][:30, 0], (np.arange(30) < 20).astype(np.float16))
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 1201


def test_what_is_cut_short_leaves_no_file(tmp_path: Path) -> None:
    def fail() -> None:
        with score_table(tmp_path, ["red"]), embedding_table(tmp_path, {}):
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail()
    assert list(tmp_path.iterdir()) == []
