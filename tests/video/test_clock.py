"""Time stamps as recordings have them, and the times that come out."""

from fractions import Fraction

import pytest

from vlmquant.errors import VideoError
from vlmquant.video.clock import LOOK_AHEAD, SET_AHEAD, SET_BACK, Clock, Stamped

STEP = Fraction(1, 25)


def run(stamps, *, nominal=STEP, duration=STEP, lost=None):
    """Time pictures 0, 1, 2, ... with these stamps (in steps; None: none); `lost` maps a picture to packets lost."""
    clock = Clock(nominal)
    pictures = [
        Stamped(number, None if stamp is None else stamp * STEP, duration, (lost or {}).get(number, 0))
        for number, stamp in enumerate(stamps)
    ]
    return list(clock.run(pictures)), clock


def steps(timed):
    return [float(item.time / STEP) for item in timed]


def gaps(timed):
    return {item.picture: item.gap for item in timed if item.gap}


def test_an_ordinary_recording_keeps_its_times():
    timed, clock = run(range(100, 150))
    assert steps(timed) == list(range(100, 150))
    assert [item.end - item.time for item in timed] == [STEP] * 50
    assert (gaps(timed), clock.mended, clock.misplaced, clock.untimed) == ({}, 0, 0, 0)


@pytest.mark.parametrize("wild", [25_000, -25_000, 200_000_000, 30, 11])
@pytest.mark.parametrize("run_length", [1, 2, LOOK_AHEAD])
def test_wild_stamps_are_mended_from_their_neighbours_and_the_rest_do_not_move(wild, run_length):
    stamps = list(range(40))
    for number in range(10, 10 + run_length):
        stamps[number] += wild
    timed, clock = run(stamps)
    assert steps(timed) == list(range(40))
    assert (clock.mended, gaps(timed)) == (run_length, {})


@pytest.mark.parametrize("wild", [25_000, -25_000])
@pytest.mark.parametrize("number", [0, 19])
def test_a_wild_stamp_at_either_end_is_mended_too(wild, number):
    stamps = list(range(100, 120))
    stamps[number] += wild
    timed, clock = run(stamps)
    assert steps(timed) == list(range(100, 120))
    assert (clock.mended, gaps(timed)) == (1, {})


def test_two_stamps_that_changed_places_are_put_right():
    timed, _ = run([0, 1, 2, 5, 4, 3, 6, 7])
    assert steps(timed) == list(range(8))
    assert [item.picture for item in timed] == [0, 1, 2, 5, 4, 3, 6, 7]


def test_a_picture_that_slips_before_a_hole_is_shown_behind_it():
    timed, clock = run([*range(20), 220, 20, 221, 222, 223, 224], lost={20: 199})
    assert steps(timed) == [*range(21), *range(220, 225)]
    assert (list(gaps(timed)), clock.mended) == ([20], 0)


@pytest.mark.parametrize("hours", [Fraction(1, 360), 1, 14, 26])
def test_a_jump_ahead_is_a_gap_and_the_times_behind_it_stay(hours):
    late = int(hours * 3600 / STEP)
    timed, clock = run([*range(20), *range(late, late + 20)])
    assert steps(timed) == [*range(20), *range(late, late + 20)]
    assert (gaps(timed), clock.mended) == ({20: SET_AHEAD}, 0)


@pytest.mark.parametrize("back", [100, 90_000])
def test_a_clock_set_back_is_a_gap_and_counts_on(back):
    timed, _ = run([*range(back, back + 30), *range(30), *range(30)])
    assert steps(timed) == list(range(back, back + 90))
    assert gaps(timed) == {30: SET_BACK, 60: SET_BACK}


def test_a_hole_of_lost_packets_is_a_gap_however_few_seconds_it_lasts():
    timed, _ = run([*range(20), *range(40, 60)], lost={20: 20})
    assert gaps(timed) == {20: "20 packets could not be decoded"}
    assert gaps(run([*range(20), *range(40, 60)])[0]) == {}  # a still picture in a recording of variable rate
    assert gaps(run([*range(20), *range(21, 40)], lost={20: 1})[0]) == {}  # one packet: events go on


def test_packets_lost_where_the_decoder_still_held_pictures_belong_to_the_hole_behind_them():
    timed, _ = run([*range(20), *range(50, 60)], lost={18: 25, 20: 5})
    assert gaps(timed) == {20: "30 packets could not be decoded"}


def test_a_picture_that_says_how_long_it_is_shown_leaves_no_gap_unless_it_says_too_much():
    slides = [Stamped(number, Fraction(30 * number), Fraction(30)) for number in range(3)]
    assert not any(item.gap for item in Clock(STEP).run(slides))
    claims = [Stamped(0, Fraction(0), STEP), Stamped(1, STEP, Fraction(50_000)), Stamped(2, Fraction(50_000))]
    *_, second, third = Clock(STEP).run([*claims, Stamped(3, 50_000 + STEP)])
    assert (second.gap, third.gap) == (SET_AHEAD, None)


def test_a_picture_a_minute_is_not_full_of_gaps():
    minutes = [Stamped(number, Fraction(60 * number)) for number in range(8)]
    assert not any(item.gap for item in Clock(Fraction(60)).run(minutes))
    assert sum(item.gap is not None for item in Clock(STEP).run(minutes)) <= 2  # until the step is known


def test_pictures_without_stamps_take_the_nominal_step():
    timed, clock = run([None] * 5)
    assert steps(timed) == [0, 1, 2, 3, 4]
    assert clock.untimed == 5
    with pytest.raises(VideoError, match="no frame rate"):
        run([None] * 2, nominal=None)


@pytest.mark.parametrize("duration", [None, Fraction(0)])
@pytest.mark.parametrize("nominal", [None, STEP])
def test_times_grow_whatever_the_stamps_are(duration, nominal):
    stamps = [0, 0, 5, 3, -900, -899, -898, -897, -896, 9000, 12, 4000, 4000, 4000, 7, 8, 9, 10**12, 11]
    timed, _ = run(stamps, duration=duration, nominal=nominal)
    assert all(a < b for a, b in zip(steps(timed), steps(timed)[1:], strict=False))
    assert all(item.end >= item.time for item in timed)
