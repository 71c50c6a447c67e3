from dataclasses import replace

import numpy as np

from tests.detections import SHOWN, found, hostile_detection, sample_detection
from vlmquant.report.timeline import STRETCHES, outline, timeline_figure
from vlmquant.video.score import EventQuery


def test_the_timeline_shows_scores_thresholds_found_and_true_bars() -> None:
    detection = sample_detection()
    truth = [found("crowd, dense", 1.0, 3.0), found("something else", 0.0, 9.0)]
    dog, crowd = timeline_figure(detection, truth).axes
    assert [axes.get_title(loc="left") for axes in (dog, crowd)] == [
        "a dog & <cat>: 1 found, 0 true",
        "crowd, dense: 2 found, 1 true",
    ]
    curve, on, off = crowd.lines
    np.testing.assert_array_equal(curve.get_ydata(), detection.scores[:, 1])
    assert on.get_ydata()[0] == detection.rule.on
    assert off.get_ydata()[0] == detection.rule.off
    found_bars, true_bars = crowd.collections
    assert len(found_bars.get_paths()) == 2
    assert true_bars.get_paths()[0].get_extents().x1 == 3.0
    assert crowd.get_xlabel() == "time (s)"
    assert crowd.get_xlim() == (0, 3725.0)
    assert "n = 4 frames" in dog.figure.get_suptitle()


def test_without_truth_there_is_no_truth_in_the_timeline() -> None:
    detection = sample_detection()
    figure = timeline_figure(detection)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["score", "on 0.8", "off 0.6", "found"]


def test_the_timeline_shows_names_literally_and_shortens_long_ones() -> None:
    hostile = hostile_detection()
    figure = timeline_figure(hostile)
    assert figure.axes[0].get_title(loc="left") == f"{SHOWN}: 1 found"
    figure.draw_without_rendering()
    long = replace(hostile, queries=(EventQuery("word " * 100, ("a dog",)),), events=())
    assert len(timeline_figure(long).axes[0].get_title(loc="left")) < 120


def test_a_long_line_is_drawn_by_its_outline():
    scores = np.random.default_rng(0).random(20_000).astype(np.float32)
    scores[12_345], scores[777] = 2.0, -1.0
    seen = outline(scores)
    assert len(seen) <= 2 * STRETCHES
    assert {777, 12_345} <= set(seen.tolist())
    assert (np.diff(seen) > 0).all()
    np.testing.assert_array_equal(outline(scores[: 2 * STRETCHES]), np.arange(2 * STRETCHES))
