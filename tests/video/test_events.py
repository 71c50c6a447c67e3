import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmquant.video.events import Event, EventDetector, EventRule

PLAIN = EventRule(on=0.6, off=0.4, min_duration_seconds=0.0, merge_gap_seconds=0.0, smoothing_seconds=0.0)


def find_events(
    name: str, rule: EventRule, pts_seconds: Sequence[float], scores: Sequence[float], end_seconds: float
) -> list[Event]:
    """Push every frame of a recording through an `EventDetector` and finish it: (n,) times and (n,) probabilities."""
    detector = EventDetector(name, rule)
    events = [
        event
        for pts, score in zip(pts_seconds, scores, strict=True)
        for event in detector.push(float(pts), float(score))
    ]
    return events + detector.finish(end_seconds)


def rule(**changes: float) -> EventRule:
    fields = {"on": 0.6, "off": 0.4, "min_duration_seconds": 0.0, "merge_gap_seconds": 0.0, "smoothing_seconds": 0.0}
    return EventRule(**(fields | changes))


def bounds(events: list[Event]) -> list[tuple[float, float]]:
    return [(event.start_seconds, event.end_seconds) for event in events]


def every_second(scores: list[float], chosen: EventRule) -> list[Event]:
    return find_events("e", chosen, list(range(len(scores))), scores, len(scores))


def test_an_event_is_the_run_above_off_around_a_frame_above_on() -> None:
    (event,) = every_second([0.1, 0.5, 0.9, 0.5, 0.1], PLAIN)
    assert event == Event(
        name="e",
        start_seconds=1,
        end_seconds=4,
        peak_seconds=2,
        peak_score=0.9,
        mean_score=pytest.approx((0.5 + 0.9 + 0.5) / 3),
    )
    assert event.duration_seconds == 3


def test_a_run_that_never_reaches_on_is_no_event() -> None:
    assert every_second([0.1, 0.5, 0.59, 0.5, 0.1], PLAIN) == []


def test_thresholds_are_inclusive() -> None:
    assert bounds(every_second([0.0, 0.4, 0.6, 0.4, 0.0], PLAIN)) == [(1, 4)]


def test_an_event_at_both_borders_of_the_video() -> None:
    assert bounds(every_second([0.9, 0.9], PLAIN)) == [(0, 2)]
    assert bounds(every_second([0.9], PLAIN)) == [(0, 1)]


def test_of_equal_peaks_the_first_is_named() -> None:
    (event,) = every_second([0.7, 0.9, 0.8, 0.9], PLAIN)
    assert event.peak_seconds == 1


def test_a_gap_shorter_than_merge_gap_joins() -> None:
    scores = [0.9, 0.1, 0.1, 0.8]
    (joined,) = every_second(scores, rule(merge_gap_seconds=2.5))
    assert (joined.start_seconds, joined.end_seconds, joined.peak_seconds) == (0, 4, 0)
    assert joined.mean_score == pytest.approx((0.9 + 0.1 + 0.1 + 0.8) / 4)
    assert bounds(every_second(scores, rule(merge_gap_seconds=2))) == [(0, 1), (3, 4)]


def test_a_failed_run_inside_the_gap_does_not_stop_the_join() -> None:
    scores = [0.9, 0.1, 0.5, 0.1, 0.8]
    assert bounds(every_second(scores, rule(merge_gap_seconds=3.5))) == [(0, 5)]
    assert bounds(every_second(scores, rule(merge_gap_seconds=2.5))) == [(0, 1), (4, 5)]


def test_a_slow_rise_joins_when_its_start_is_within_the_gap() -> None:
    scores = [0.9, 0.1, 0.5, 0.5, 0.5, 0.8]
    assert bounds(every_second(scores, rule(merge_gap_seconds=1.5))) == [(0, 6)]


def test_gaps_are_joined_before_short_events_are_dropped() -> None:
    scores = [0.9, 0.1, 0.9, 0.1, 0.1, 0.1, 0.9]
    assert bounds(every_second(scores, rule(merge_gap_seconds=1.5, min_duration_seconds=2))) == [(0, 3)]


def test_minimum_duration_forgives_rounding_of_times() -> None:
    pts = [0.2 * index for index in range(6)]  # 0.2 * 3 - 0.2 is 0.4000000000000001, 1.0 - 0.6 is 0.4
    chosen = rule(min_duration_seconds=0.4, merge_gap_seconds=0.4)
    assert len(find_events("e", chosen, pts, [0.9, 0.9, 0.1, 0.1, 0.9, 0.9], 1.2)) == 2


def test_an_event_comes_out_as_soon_as_the_gap_has_expired() -> None:
    detector = EventDetector("e", rule(merge_gap_seconds=2))
    outcome = [len(detector.push(t, score)) for t, score in enumerate([0.9, 0.1, 0.1, 0.1, 0.1])]
    assert outcome == [0, 0, 0, 1, 0]


def test_smoothing_averages_over_a_centred_window() -> None:
    pts, scores = [0.0, 1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.9, 0.9, 0.0]
    # means over three frames: 0, 0.3, 0.6, 0.6, 0.45
    (event,) = find_events("e", rule(smoothing_seconds=2.0), pts, scores, 5.0)
    assert bounds([event]) == [(2, 5)]
    assert event.peak_score == pytest.approx(0.6)
    assert event.mean_score == pytest.approx((0.6 + 0.6 + 0.45) / 3)


def test_smoothing_drops_a_single_flicker() -> None:
    flicker = [0.0, 0.0, 1.0, 0.0, 0.0]
    assert every_second(flicker, PLAIN) != []
    assert every_second(flicker, rule(smoothing_seconds=2.0)) == []


def test_no_frame_gives_no_event() -> None:
    assert EventDetector("e", PLAIN).finish(10.0) == []


@pytest.mark.parametrize("second", [1.0, 0.5, math.nan, math.inf])
def test_a_time_that_does_not_increase_is_refused(second: float) -> None:
    detector = EventDetector("walking", PLAIN)
    detector.push(1.0, 0.5)
    with pytest.raises(ValueError, match=r"'walking'.*must increase"):
        detector.push(second, 0.5)


@pytest.mark.parametrize("score", [math.nan, -0.1, 1.1])
def test_a_score_that_is_no_probability_is_refused_with_its_time(score: float) -> None:
    with pytest.raises(ValueError, match=r"'walking': score at 2\.5 s is"):
        EventDetector("walking", PLAIN).push(2.5, score)


def test_the_end_must_come_after_the_last_frame_and_once() -> None:
    detector = EventDetector("e", PLAIN)
    detector.push(1.0, 0.9)
    with pytest.raises(ValueError, match="must come after"):
        detector.finish(1.0)
    detector.finish(1.5)
    with pytest.raises(ValueError, match="called twice"):
        detector.finish(2.0)
    with pytest.raises(ValueError, match="after finish"):
        detector.push(3.0, 0.9)


@pytest.mark.parametrize(
    "bad",
    [
        {"on": 0.3},
        {"on": 1.1},
        {"off": -0.1},
        {"on": math.nan},
        {"min_duration_seconds": -1},
        {"merge_gap_seconds": math.inf},
    ],
)
def test_a_rule_out_of_range_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        rule(**bad)


# Properties. Times and scores come from a coarse grid so that equalities at the thresholds really happen.

rules = st.builds(
    lambda off, extra, shortest, gap, smoothing: EventRule(
        on=(off + extra) / 10,
        off=off / 10,
        min_duration_seconds=shortest / 4,
        merge_gap_seconds=gap / 4,
        smoothing_seconds=smoothing / 2,
    ),
    st.integers(1, 5),
    st.integers(0, 4),
    st.integers(0, 8),
    st.integers(0, 8),
    st.integers(0, 3),
)
streams = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 10)), min_size=1, max_size=60).map(
    lambda pairs: (
        [step / 4 for step in itertools.accumulate(step for step, _ in pairs)],
        [score / 10 for _, score in pairs],
    )
)


def offline(chosen: EventRule, pts: list[float], scores: list[float], end: float) -> list[tuple[float, float]]:
    """The definition, over the whole recording at once."""
    times = np.array(pts)
    half = chosen.smoothing_seconds / 2
    smooth = np.array([math.fsum(near) / len(near) for t in pts for near in [np.array(scores)[abs(times - t) <= half]]])
    edges = [*pts, end]
    runs: list[tuple[float, float]] = []
    for above, group in itertools.groupby(range(len(pts)), key=lambda index: bool(smooth[index] >= chosen.off)):
        indices = list(group)
        if above and smooth[indices].max() >= chosen.on:
            runs.append((pts[indices[0]], edges[indices[-1] + 1]))
    joined: list[tuple[float, float]] = []
    for start, stop in runs:
        if joined and start - joined[-1][1] < chosen.merge_gap_seconds:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return [(start, stop) for start, stop in joined if stop - start >= chosen.min_duration_seconds]


@settings(max_examples=400, deadline=None)
@given(rules, streams)
def test_streaming_equals_the_definition(chosen: EventRule, stream: tuple[list[float], list[float]]) -> None:
    pts, scores = stream
    assert bounds(find_events("e", chosen, pts, scores, pts[-1] + 0.25)) == offline(chosen, pts, scores, pts[-1] + 0.25)


@settings(max_examples=200, deadline=None)
@given(rules, streams)
def test_events_are_ordered_disjoint_long_enough_and_hold_their_peak(
    chosen: EventRule, stream: tuple[list[float], list[float]]
) -> None:
    pts, scores = stream
    events = find_events("e", chosen, pts, scores, pts[-1] + 0.25)
    for earlier, later in itertools.pairwise(events):
        assert earlier.end_seconds < later.start_seconds
    for event in events:
        assert event.duration_seconds >= chosen.min_duration_seconds
        assert event.duration_seconds > 0
        assert event.start_seconds <= event.peak_seconds < event.end_seconds
        assert event.peak_seconds in pts
        assert chosen.on <= event.peak_score <= 1
        assert 0 <= event.mean_score <= event.peak_score + 1e-12


@settings(max_examples=100, deadline=None)
@given(rules, streams, st.data())
def test_a_prefix_never_changes_what_already_came_out(
    chosen: EventRule, stream: tuple[list[float], list[float]], data: st.DataObject
) -> None:
    pts, scores = stream
    cut = data.draw(st.integers(0, len(pts)))
    detector = EventDetector("e", chosen)
    early = [event for t, score in zip(pts[:cut], scores[:cut], strict=True) for event in detector.push(t, score)]
    assert find_events("e", chosen, pts, scores, pts[-1] + 0.25)[: len(early)] == early


@settings(max_examples=100, deadline=None)
@given(rules, streams)
def test_every_peak_was_named_as_possible_since_its_frame(
    chosen: EventRule, stream: tuple[list[float], list[float]]
) -> None:
    """What lets a caller keep pictures of `possible_peaks` only."""
    pts, scores = stream
    detector = EventDetector("e", chosen)
    kept: set[float] = set()
    for t, score in zip(pts, scores, strict=True):
        for event in detector.push(t, score):
            assert event.peak_seconds in kept
        kept = (kept | {t}) & detector.possible_peaks
    for event in detector.finish(pts[-1] + 0.25):
        assert event.peak_seconds in kept
