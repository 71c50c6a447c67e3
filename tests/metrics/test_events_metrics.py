import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from vlmquant.metrics.events import (
    Delays,
    EventCounts,
    FalseAlarms,
    ScoredIntervals,
    average_precision,
    count_by_iou,
    count_by_tolerance,
    detection_delays,
    false_alarms,
    frame_average_precision,
    frame_labels,
    intervals,
    mean_average_precision,
    temporal_iou,
)

some_intervals = st.lists(
    st.tuples(st.integers(0, 20), st.integers(1, 8)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=6
)


def test_temporal_iou_by_hand() -> None:
    iou = temporal_iou([(0, 4), (10, 12)], [(2, 6), (4, 5), (10, 12)])
    np.testing.assert_allclose(iou, [[2 / 6, 0, 0], [0, 0, 1]])
    assert temporal_iou([], [(0, 1)]).shape == (0, 1)
    assert temporal_iou([(0, 1)], []).shape == (1, 0)


@given(some_intervals, some_intervals)
def test_temporal_iou_is_symmetric_and_at_most_one(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> None:
    iou = temporal_iou(a, b)
    np.testing.assert_array_equal(iou, temporal_iou(b, a).T)
    assert ((iou >= 0) & (iou <= 1)).all()


@pytest.mark.parametrize("bad", [[(1, 1)], [(2, 1)], [(0, math.nan)], [(0, 1, 2)], [1, 2]])
def test_intervals_that_are_none_are_refused(bad: list) -> None:
    with pytest.raises(ValueError, match="interval"):
        intervals(bad)


def test_rates_from_counts() -> None:
    counts = EventCounts(matched=3, found=4, true=6)
    assert (counts.precision, counts.recall) == (0.75, 0.5)
    assert counts.f1 == pytest.approx(2 * 0.75 * 0.5 / 1.25)
    assert counts + EventCounts(1, 1, 2) == EventCounts(4, 5, 8)


def test_rates_without_events() -> None:
    nothing = EventCounts()
    assert all(math.isnan(rate) for rate in (nothing.precision, nothing.recall, nothing.f1))
    missed = EventCounts(matched=0, found=0, true=3)
    assert math.isnan(missed.precision)
    assert (missed.recall, missed.f1) == (0, 0)
    with pytest.raises(ValueError, match="5 matches"):
        EventCounts(matched=5, found=4, true=6)


def test_count_by_iou_by_hand() -> None:
    true = [(0, 10), (20, 30)]
    assert count_by_iou([(0, 5), (20, 30)], true) == EventCounts(2, 2, 2)  # IoU exactly one half counts
    assert count_by_iou([(0, 4.9), (20, 30)], true) == EventCounts(1, 2, 2)
    assert count_by_iou([(0, 10), (0, 10)], true) == EventCounts(1, 2, 2)  # a duplicate does not count twice
    assert count_by_iou([], true) == EventCounts(0, 0, 2)
    assert count_by_iou([(0, 1)], []) == EventCounts(0, 1, 0)


def test_matching_is_the_largest_and_not_greedy() -> None:
    # The first found event fits both true ones, the second only the one that a greedy matching gives to the first.
    found, true = [(0, 10), (0, 6)], [(0, 8), (2, 12)]
    assert temporal_iou(found, true).round(2).tolist() == [[0.8, 0.67], [0.75, 0.33]]
    assert count_by_iou(found, true) == EventCounts(2, 2, 2)


@settings(max_examples=150, deadline=None)
@given(some_intervals, some_intervals, st.sampled_from([0.1, 0.3, 0.5, 0.7]))
def test_matching_equals_trying_every_assignment(
    found: list[tuple[int, int]], true: list[tuple[int, int]], tiou: float
) -> None:
    allowed = temporal_iou(found, true) >= tiou
    allowed = allowed if len(found) <= len(true) else allowed.T
    best = max(
        sum(allowed[row, column] for row, column in enumerate(columns))
        for columns in permutations(range(allowed.shape[1]), len(allowed))
    )
    assert count_by_iou(found, true, tiou) == EventCounts(best, len(found), len(true))


def test_a_chain_of_a_thousand_conflicts_is_matched() -> None:
    true = [(index, index + 1.0) for index in range(1000)]
    found = [(index + 0.5, index + 1.5) for index in range(999)] + [(0.25, 1.25)]
    assert count_by_iou(found, true, 0.3).matched == 1000


def test_count_by_tolerance_by_hand() -> None:
    true = [(10, 20)]

    def matched(found: tuple[float, float], **options: float) -> int:
        return count_by_tolerance([found], true, **({"tolerance_seconds": 0.5, "end_fraction": 0.0} | options)).matched

    assert matched((10.5, 19.5)) == 1
    assert matched((10.6, 20)) == 0
    assert matched((10, 20.6)) == 0
    assert matched((10, 25), end_fraction=0.5) == 1  # half of ten seconds
    assert matched((10, 25.1), end_fraction=0.5) == 0
    assert count_by_tolerance([], true, tolerance_seconds=1) == EventCounts(0, 0, 1)


def one_video(found: list, scores: list, true: list) -> ScoredIntervals:
    return ScoredIntervals(np.array(found), np.array(scores), np.array(true))


def test_average_precision_by_hand() -> None:
    # hit, miss, hit of 3 true: precision 1, 1/2, 2/3 -> interpolated 1, 2/3, 2/3 at recalls 1/3 and 2/3
    video = one_video([(0, 10), (50, 60), (20, 30)], [0.9, 0.8, 0.7], [(0, 10), (20, 30), (80, 90)])
    assert average_precision([video], 0.5) == pytest.approx((1 + 2 / 3) / 3)


def test_a_second_find_of_the_same_event_is_false() -> None:
    video = one_video([(0, 10), (0, 10)], [0.9, 0.8], [(0, 10), (20, 30)])
    assert average_precision([video], 0.5) == pytest.approx(0.5)


def test_a_find_takes_the_best_free_event() -> None:
    # both fit both at 0.3; the first takes its best (the second true one), the next is left with the first true one
    video = one_video([(2, 12), (3, 13)], [0.9, 0.8], [(0, 10), (2, 12)])
    assert average_precision([video], 0.3) == 1.0
    assert average_precision([video], 0.6) == pytest.approx(0.5)


def test_finds_in_a_video_without_truth_are_false() -> None:
    good = one_video([(0, 10)], [0.5], [(0, 10)])
    empty = one_video([(0, 10)], [0.9], [])
    assert average_precision([good], 0.5) == 1.0
    assert average_precision([good, empty], 0.5) == pytest.approx(0.5)


def test_average_precision_without_truth_or_finds_is_zero() -> None:
    assert average_precision([one_video([(0, 1)], [0.5], [])], 0.5) == 0.0
    assert average_precision([one_video([], [], [(0, 1)])], 0.5) == 0.0
    assert average_precision([], 0.5) == 0.0


def test_mean_average_precision_is_over_classes() -> None:
    right, wrong = one_video([(0, 10)], [0.5], [(0, 10)]), one_video([], [], [(0, 10)])
    assert mean_average_precision([[right], [wrong]], 0.5) == 0.5
    assert math.isnan(mean_average_precision([], 0.5))


def activitynet_by_loops(videos: list[ScoredIntervals], tiou: float) -> float:
    """The protocol written out in plain loops, precision envelope by maximum over all later ranks."""
    ranked = sorted(
        (
            (score, number, tuple(pair))
            for number, video in enumerate(videos)
            for pair, score in zip(video.found, video.scores, strict=True)
        ),
        reverse=True,
    )
    taken: set[tuple[int, int]] = set()
    hits = []
    for _, number, (start, end) in ranked:
        candidates = []
        for index, (true_start, true_end) in enumerate(videos[number].true):
            overlap = max(0.0, min(end, true_end) - max(start, true_start))
            iou = overlap / ((end - start) + (true_end - true_start) - overlap)
            if iou >= tiou and (number, index) not in taken:
                candidates.append((iou, index))
        if candidates:
            taken.add((number, max(candidates)[1]))
        hits.append(bool(candidates))
    positives = sum(len(video.true) for video in videos)
    precisions = [sum(hits[: rank + 1]) / (rank + 1) for rank in range(len(hits))]
    return sum(max(precisions[rank:]) for rank, hit in enumerate(hits) if hit) / positives if positives else 0.0


@pytest.mark.parametrize("seed", range(20))
def test_average_precision_equals_the_protocol_in_loops(seed: int) -> None:
    random = np.random.default_rng(seed)
    for _ in range(50):
        videos = []
        for _ in range(random.integers(1, 5)):
            true = random.uniform(0, 30, random.integers(0, 6))[:, None] + [0, 1] * random.uniform(1, 8, (1, 2))
            starts = random.uniform(0, 30, random.integers(0, 9))
            found = np.stack([starts, starts + random.uniform(1, 8, len(starts))], axis=1)
            videos.append(ScoredIntervals(found, random.uniform(size=len(starts)), true))
        for tiou in (0.3, 0.5, 0.7):
            assert average_precision(videos, tiou) == pytest.approx(activitynet_by_loops(videos, tiou), abs=1e-12)


def test_scored_intervals_are_checked() -> None:
    with pytest.raises(ValueError, match="one per found event"):
        one_video([(0, 1)], [0.5, 0.6], [])
    with pytest.raises(ValueError, match="one per found event"):
        one_video([(0, 1)], [math.nan], [])


def test_frame_labels_are_half_open() -> None:
    assert frame_labels([0, 1, 2, 3, 4], [(1, 3), (4, 5)]).tolist() == [False, True, True, False, True]
    assert frame_labels([0, 1], []).tolist() == [False, False]


def test_frame_average_precision_by_hand() -> None:
    assert frame_average_precision([0.9, 0.8, 0.7], [True, False, True]) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert frame_average_precision([0.5, 0.5], [True, False]) == 0.5  # equal scores are taken together
    assert math.isnan(frame_average_precision([0.5], [False]))
    with pytest.raises(ValueError, match="finite"):
        frame_average_precision([math.nan], [True])
    with pytest.raises(ValueError, match="labels"):
        frame_average_precision([0.5, 0.6], [True])


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40))
def test_frame_average_precision_equals_scikit_learn(frames: list[tuple[int, bool]]) -> None:
    scores, labels = [score / 5 for score, _ in frames], [label for _, label in frames]
    if any(labels):
        expected = average_precision_score(labels, scores)
        assert frame_average_precision(scores, labels) == pytest.approx(expected, abs=1e-12)


def test_false_alarms_by_hand() -> None:
    alarms = false_alarms([(0, 1), (5, 6), (5.5, 7), (20, 21)], [(1, 5.1)], duration_seconds=1800)
    assert alarms == FalseAlarms(count=3, hours=0.5)  # (0, 1) only touches the true event, which is no overlap
    assert alarms.per_hour == 6
    assert (alarms + FalseAlarms(0, 0.5)).per_hour == 3
    assert false_alarms([], [], 3600).per_hour == 0


def test_delays_by_hand() -> None:
    delays = detection_delays([(1, 3), (2, 9), (12, 14)], [(2.5, 4), (8, 9), (11, 13), (20, 30)])
    # started before: 0; covered by (2, 9): 0; one second late; missed
    assert delays == Delays(seconds=(0.0, 0.0, 1.0), missed=1)
    assert delays.median == 0
    assert delays.p95 == pytest.approx(0.9)
    assert detection_delays([], [(0, 1)]) == Delays((), 1)
    assert detection_delays([(0, 1)], []) == Delays()
    assert math.isnan(Delays().median)
    assert delays + Delays((5.0,), 2) == Delays((0.0, 0.0, 1.0, 5.0), 3)
