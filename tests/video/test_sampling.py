import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmquant.errors import VideoError
from vlmquant.video.sampling import SampleClock, sample


@dataclass(frozen=True)
class Shown:
    pts_seconds: float


def kept(times, fps):
    return [frame.pts_seconds for frame in sample([Shown(time) for time in times], fps)]


def test_keeps_the_first_frame_at_or_after_each_tick():
    # ticks at 0, 0.2, 0.4; a 12.5 fps source shows frames every 0.08 s
    assert kept([0, 0.08, 0.16, 0.24, 0.32, 0.40], 5) == [0, 0.24, 0.40]


def test_does_not_drift_over_an_hour_of_ntsc():
    times = [k * 1001 / 30000 for k in range(3600 * 30)]
    samples = kept(times, 5)
    assert len(samples) == math.floor(times[-1] * 5) + 1
    assert all(-1.001e-3 < time - k / 5 < 1001 / 30000 for k, time in enumerate(samples))


def test_a_source_at_the_sampling_rate_keeps_every_frame_when_times_are_rounded_to_milliseconds():
    times = [round(k / 30, 3) for k in range(300)]  # 0.033 is before the tick at 0.0333...
    assert kept(times, 30) == times


def test_a_slower_source_keeps_each_frame_once():
    times = [0.0, 0.5, 1.0, 1.5]
    assert kept(times, 25) == times


def test_a_gap_is_followed_by_one_frame_and_the_grid_goes_on():
    assert kept([0, 0.1, 10.05, 10.15, 10.2, 10.35, 10.4], 5) == [0, 10.05, 10.2, 10.4]


def test_a_late_first_frame_is_kept():
    assert kept([0.55, 0.59, 0.6], 5) == [0.55, 0.6]


@given(
    steps=st.lists(st.floats(0.004, 3), min_size=1, max_size=200),
    fps=st.floats(0.2, 60),
)
def test_on_any_variable_frame_rate_one_frame_per_tick_that_was_reached(steps, fps):
    times = [sum(steps[:k]) for k in range(len(steps))]
    samples = kept(times, fps)
    forgiven = min(1e-3, 0.25 / fps)
    ticks = {math.floor((time + forgiven) * fps) for time in times}
    assert len(samples) == len(ticks)
    assert samples == sorted(samples)


@pytest.mark.parametrize("fps", [0, -1, math.nan, math.inf])
def test_an_impossible_rate_is_refused_at_once(fps):
    with pytest.raises(VideoError, match="above 0"):
        sample([], fps)


def test_a_clock_that_sees_the_same_time_twice_keeps_it_once():
    clock = SampleClock(5)
    assert [clock.keep(0.2), clock.keep(0.2)] == [True, False]
