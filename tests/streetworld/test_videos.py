from dataclasses import replace
from pathlib import Path

import pytest

from streetworld.captions import FIXED
from streetworld.script import Leg, Role
from streetworld.videos import (
    EVENT_NAMES,
    STATEMENTS,
    VideoScript,
    _runs,
    scene_at,
    script_video,
    truth,
    write_video,
)
from vlmquant.errors import DataError


def _walk_then_run() -> VideoScript:
    walk = Leg(state="walking", start_seconds=1.0, end_seconds=5.0, start=(-0.35, 0.9), end=(0.45, 0.9))
    run = Leg(state="running", start_seconds=5.0, end_seconds=7.0, start=(0.45, 0.9), end=(1.45, 0.9))
    role = Role(kind="person", colour="red", direction="right", legs=(walk, run), look=7)
    return VideoScript(
        time="day", weather="clear", road="straight", side="houses",
        roles=(role,), seconds=8.0, size=(96, 64), seed=11,
    )  # fmt: skip


def test_truth_is_what_is_visible_by_hand() -> None:
    # x(t) = -0.35 + 0.2 (t - 1) passes 0.05 at t = 3 and turns to running at 5; 0.45 + 0.5 (t - 5) passes 0.95 at 6.
    events = {event.name: event[1:] for event in truth(_walk_then_run()) if event.name != "an empty street"}
    assert set(events) == {"a person walking", "a person running"}
    assert events["a person walking"] == pytest.approx((3.0, 5.0), abs=0.041)
    assert events["a person running"] == pytest.approx((5.0, 6.0), abs=0.041)
    # The person is 0.17 * scale = 0.162 wide: its front is in the square (by more than 0.02) at
    # x = -0.061, t = 2.45, and its back leaves it at x = 1.061, t = 6.22.
    empty = [event[1:] for event in truth(_walk_then_run()) if event.name == "an empty street"]
    assert empty[0] == pytest.approx((0.0, 2.45), abs=0.041)
    assert empty[1] == pytest.approx((6.22, 8.0), abs=0.041)


def test_a_role_is_there_only_during_its_legs_and_keeps_its_look() -> None:
    (role,) = _walk_then_run().roles
    assert role.at(0.5) is None
    assert role.at(7.0) is None
    early, late = role.at(2.0), role.at(6.5)
    assert early is not None
    assert late is not None
    assert (early.state, late.state) == ("walking", "running")
    assert early.appearance == late.appearance
    assert early.x == pytest.approx(-0.15)


def test_braking_takes_half_the_way_of_driving_on() -> None:
    leg = Leg(state="stopping", start_seconds=0.0, end_seconds=2.0, start=(0.0, 0.8), end=(0.4, 0.8), braking=True)
    # Starts at 0.4 a second, ends at a stand: x = 0.4 t - 0.1 t^2.
    assert leg.place(1.0)[0] == pytest.approx(0.3)
    assert leg.place(2.0)[0] == pytest.approx(0.4)


def test_runs_close_short_gaps_then_drop_short_runs() -> None:
    holds = [False] * 10 + [True] * 20 + [False] * 14 + [True] * 5 + [False] * 20 + [True] * 14 + [False] * 5
    assert _runs(holds) == [(10, 49)]
    assert _runs([True] * 30) == [(0, 30)]
    assert _runs([False] * 30) == []


@pytest.mark.parametrize("seed", range(4))
def test_truth_agrees_with_the_scene_in_the_middle_of_every_event(seed: int) -> None:
    script = script_video(seed, 20.0)
    events = truth(script)
    assert {event.name for event in events} <= set(EVENT_NAMES)
    for event in events:
        assert 0 <= event.start_seconds < event.end_seconds <= script.seconds
        scene = scene_at(script, (event.start_seconds + event.end_seconds) / 2)
        counted = [a for a in scene.actors if (a.partly_visible if event.name == "an empty street" else a.visible)]
        assert STATEMENTS[event.name].holds(replace(scene, actors=tuple(counted)))


def test_scripts_hold_every_event_and_empty_spells() -> None:
    found = [{event.name for event in truth(script_video(seed))} for seed in range(8)]
    assert set().union(*found) == set(EVENT_NAMES)
    assert all("an empty street" in names for names in found)
    assert all(6 <= len(truth(script_video(seed))) <= 16 for seed in range(8))


def test_event_names_are_phrases_that_the_model_was_trained_with() -> None:
    assert set(EVENT_NAMES) <= {statement.text for statement in FIXED}


def test_scripts_are_repeatable_and_differ_between_splits() -> None:
    assert script_video(2) == script_video(2)
    assert script_video(2) != script_video(2, split="dev")
    assert script_video(2) != script_video(3)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"seconds": 2.0}, "2.0 seconds"), ({"size": (321, 240)}, "321x240"), ({"split": "val"}, "'val'")],
)
def test_bad_scripts_are_refused(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(DataError, match=named):
        script_video(0, **arguments)  # type: ignore[arg-type]


def test_the_video_has_25_frames_a_second_and_its_size(tmp_path: Path) -> None:
    from vlmquant.video.sources.file import open_video

    path = write_video(tmp_path / "walk.mp4", _walk_then_run())
    assert [file.name for file in tmp_path.iterdir()] == ["walk.mp4"]
    with open_video(path) as source:
        frames = list(source.frames())
        assert (source.info.width, source.info.height) == (96, 64)
        assert source.info.average_fps == pytest.approx(25)
    assert len(frames) == 200
    assert frames[50].pts_seconds == pytest.approx(2.0)


def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        write_video(tmp_path / "missing" / "walk.mp4", _walk_then_run())
