import itertools
import threading
from contextlib import closing

import numpy as np
import pytest

from vlmquant.models.spec import ImageSpec
from vlmquant.video import pipeline
from vlmquant.video.pipeline import score_video
from vlmquant.video.sources.source import Frame

pytestmark = pytest.mark.timeout(30)  # a hang is the failure that these tests look for

SPEC = ImageSpec(
    shortest_edge=8,
    resize_height=None,
    resize_width=None,
    resample=3,
    crop_height=8,
    crop_width=8,
    rescale_factor=1 / 255,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)


class BrightnessEncoder:
    """Embeds a picture as its brightness, 0 to 1."""

    image_spec = SPEC

    def __init__(self):
        self.batches = []

    def encode_pixels(self, pixels):
        assert pixels.shape[1:] == (3, 8, 8)
        assert pixels.dtype == np.float32
        self.batches.append(len(pixels))
        return pixels.mean(axis=(1, 2, 3))[:, None]


def frame(index):
    return Frame(np.full((8, 8, 3), index % 256, np.uint8), index / 5, index)


def frames(count):
    return map(frame, range(count))


def brightness_and_double(embeddings):
    return np.concatenate([embeddings, 2 * embeddings], axis=1)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize(("batch_size", "batches"), [(1, [1] * 10), (4, [4, 4, 2]), (5, [5, 5]), (16, [10])])
@pytest.mark.parametrize("queue_size", [1, 3])
def test_scores_every_frame_in_order_in_full_batches(batch_size, batches, queue_size):
    encoder = BrightnessEncoder()
    scored = list(score_video(frames(10), encoder, brightness_and_double, batch_size=batch_size, queue_size=queue_size))
    assert encoder.batches == batches
    assert [item.frame.index for item in scored] == list(range(10))
    assert [item.pts_seconds for item in scored] == [k / 5 for k in range(10)]
    expected = [[k / 255, 2 * k / 255] for k in range(10)]
    np.testing.assert_allclose([item.scores for item in scored], expected, atol=1e-6)
    assert all(item.scores.dtype == np.float32 for item in scored)


def test_latency_is_a_frames_preprocessing_and_its_share_of_the_batch(monkeypatch):
    monkeypatch.setattr(pipeline, "_milliseconds_since", lambda start: 8.0)
    scored = list(score_video(frames(6), BrightnessEncoder(), brightness_and_double, batch_size=4))
    assert [item.latency_ms for item in scored] == [10.0] * 4 + [12.0] * 2


def test_no_frame_gives_no_score():
    assert list(score_video(iter(()), BrightnessEncoder(), brightness_and_double)) == []


def test_progress_passes_every_score():
    seen = []

    def track(items, description, total=None):
        for item in items:
            seen.append((description, total, item.frame.index))
            yield item

    list(score_video(frames(3), BrightnessEncoder(), brightness_and_double, total=3, track=track))
    assert seen == [("scoring frames", 3, index) for index in range(3)]


class Broken(Exception):
    """What the tests make a stage raise."""


def fail_at(number, work):
    """Return `work`, which raises at its call of this number (from 0)."""
    calls = itertools.count()

    def failing(*args):
        if next(calls) == number:
            raise Broken(f"call {number}")
        return work(*args)

    return failing


@pytest.mark.parametrize("stage", ["decode", "preprocess", "encode", "score", "progress"])
@pytest.mark.parametrize("number", [0, 7])
@pytest.mark.parametrize("queue_size", [1, 8])
def test_an_exception_in_any_stage_ends_the_run_with_it(monkeypatch, stage, number, queue_size):
    """The frames never end, so every queue is full or filling when the stage breaks."""
    endless, encoder, scores, track = map(frame, itertools.count()), BrightnessEncoder(), brightness_and_double, None
    if stage == "decode":
        endless = map(fail_at(number, frame), itertools.count())
    elif stage == "preprocess":
        monkeypatch.setattr(pipeline, "preprocess", fail_at(number, pipeline.preprocess))
    elif stage == "encode":
        encoder.encode_pixels = fail_at(number, encoder.encode_pixels)
    elif stage == "score":
        scores = fail_at(number, scores)
    else:
        follow = fail_at(number, lambda item: item)

        def track(items, description, total=None):
            return (follow(item) for item in items)

    arguments = {"track": track} if track else {}
    scored = score_video(endless, encoder, scores, batch_size=2, queue_size=queue_size, **arguments)
    with pytest.raises(Broken, match=f"call {number}"):
        for _ in scored:
            pass


def test_even_an_interrupt_in_a_thread_reaches_the_caller():
    def interrupted():
        yield frame(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(score_video(interrupted(), BrightnessEncoder(), brightness_and_double))


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_closing_early_ends_the_threads(taken):
    scored = score_video(map(frame, itertools.count()), BrightnessEncoder(), brightness_and_double, queue_size=1)
    assert len(list(itertools.islice(scored, taken))) == taken
    scored.close()


def test_an_exception_in_the_callers_loop_ends_the_threads():
    def look_at_the_first():
        with closing(score_video(endless, BrightnessEncoder(), brightness_and_double)) as scored:
            next(scored)
            raise Broken

    endless = map(frame, itertools.count())
    with pytest.raises(Broken):
        look_at_the_first()


def test_memory_is_bounded_while_the_caller_is_slow():
    produced = itertools.count()
    scored = score_video(
        (frame(next(produced)) for _ in itertools.repeat(None)),
        BrightnessEncoder(),
        brightness_and_double,
        batch_size=4,
        queue_size=3,
    )
    with closing(scored):
        for _ in range(100):
            next(scored)
    # 100 taken, in two queues, in a batch, and one in the hands of each thread
    assert next(produced) <= 100 + 2 * 3 + 4 + 2


@pytest.mark.parametrize("sizes", [{"batch_size": 0}, {"queue_size": 0}])
def test_sizes_below_one_are_refused(sizes):
    with pytest.raises(ValueError, match="at least 1"):
        next(score_video(frames(1), BrightnessEncoder(), brightness_and_double, **sizes))


def test_scores_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(2, events\)"):
        list(score_video(frames(2), BrightnessEncoder(), lambda embeddings: embeddings[0], batch_size=2))
