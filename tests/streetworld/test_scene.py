from dataclasses import replace

import numpy as np
import pytest

from streetworld.render import render
from streetworld.scene import (
    COLOURS,
    CROWD_SIZE,
    KINDS,
    SPLITS,
    STATES,
    TIMES,
    WEATHERS,
    Actor,
    Scene,
    sample_scene,
    split_of,
)
from vlmquant.errors import DataError


def _actor(**changes: object) -> Actor:
    values = {"kind": "car", "colour": "red", "state": "driving", "direction": "right", "x": 0.5, "ground": 0.8}
    return Actor(**(values | changes))  # type: ignore[arg-type]


def _scene(*actors: Actor, **changes: object) -> Scene:
    values = {"time": "day", "weather": "clear", "road": "straight", "side": "houses", "seed": 4}
    return Scene(actors=actors, **(values | changes))  # type: ignore[arg-type]


def _sampled(split: str, count: int) -> list[Scene]:
    return [sample_scene(np.random.default_rng([5, i]), split) for i in range(count)]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"kind": "tram"}, "'tram'"),
        ({"colour": "pink"}, "'pink'"),
        ({"state": "sitting"}, "'sitting'"),
        ({"direction": "up"}, "'up'"),
    ],
)
def test_an_impossible_actor_is_refused_by_name(changes: dict[str, str], named: str) -> None:
    with pytest.raises(DataError, match=named):
        _actor(**changes)


def test_an_impossible_scene_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"'noon'.*day, dusk, night"):
        _scene(time="noon")


def test_place_and_nearness_follow_from_the_position() -> None:
    assert [_actor(x=x).place for x in (0.1, 0.5, 0.9)] == ["left", "centre", "right"]
    assert _actor(ground=0.8).near
    assert not _actor(ground=0.66).near
    assert _actor(ground=0.545).scale < _actor(ground=0.945).scale == 1.0
    assert [_actor(x=x).visible for x in (0.04, 0.06, 0.94, 0.96)] == [False, True, True, False]


def test_a_box_is_centred_on_the_actor_and_stands_on_its_ground() -> None:
    left, top, right, bottom = _actor(kind="person", state="walking", x=0.5, ground=0.945).box
    assert (left + right) / 2 == pytest.approx(0.5)
    assert (top, bottom) == (pytest.approx(0.945 - 0.36), 0.945)


def test_six_people_are_a_crowd_and_five_are_not() -> None:
    people = [_actor(kind="person", state="walking", x=i / 10) for i in range(CROWD_SIZE)]
    assert _scene(*people).crowded
    assert not _scene(*people[:-1], _actor()).crowded
    assert _scene().empty
    assert not _scene(_actor()).empty


def test_every_combination_has_one_split_and_most_are_for_training() -> None:
    combinations = [(t, w, k, c) for t in TIMES for w in WEATHERS for k in KINDS for c in COLOURS[k]]
    shares = {s: np.mean([split_of(*c) == s for c in combinations]) for s in SPLITS}
    assert sum(shares.values()) == pytest.approx(1)
    assert 0.6 < shares["train"] < 0.85
    assert shares["dev"] > 0.05
    assert shares["test"] > 0.1


def test_training_never_shows_what_the_other_splits_are_about() -> None:
    for scene in _sampled("train", 300):
        assert all(split_of(scene.time, scene.weather, a.kind, a.colour) == "train" for a in scene.actors)
    for split in ("dev", "test"):
        for scene in _sampled(split, 200):
            splits = [split_of(scene.time, scene.weather, a.kind, a.colour) for a in scene.actors]
            assert splits == [split, *["train"] * (len(splits) - 1)][: len(splits)]


def test_sampling_reaches_every_state_time_weather_crowd_and_emptiness() -> None:
    scenes = _sampled("train", 600)
    assert {(a.kind, a.state) for s in scenes for a in s.actors} == {(k, s) for k in STATES for s in STATES[k]}
    assert {(s.time, s.weather) for s in scenes} == {(t, w) for t in TIMES for w in WEATHERS}
    assert any(s.crowded for s in scenes)
    assert any(s.empty for s in scenes)


def test_an_unknown_split_lists_the_known_ones() -> None:
    with pytest.raises(DataError, match="dev, test, train"):
        sample_scene(np.random.default_rng(0), "validation")


def test_equal_scenes_give_equal_pictures_and_another_seed_does_not() -> None:
    scene = _scene(_actor(), weather="rain")
    first = render(scene, 64)
    assert first.shape == (64, 64, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, render(scene, 64))
    assert (first != render(replace(scene, seed=5), 64)).any()


def test_a_wide_picture_shows_the_square_one_in_its_middle() -> None:
    assert render(_scene(), (96, 64)).shape == (64, 96, 3)
    scene = _scene(_actor(x=0.5, colour="red"), _actor(x=-0.2, ground=0.66, colour="blue"))
    wide = render(scene, (192, 96)).astype(int)
    middle = wide[60:76, 48:144]
    assert ((middle[..., 0] - middle[..., 2]) > 90).any()
    assert ((wide[..., 2] - wide[..., 0])[50:70, :48] > 90).any()


def test_night_is_darker_than_dusk_and_dusk_than_day() -> None:
    means = [render(_scene(time=time), 64).mean() for time in TIMES]
    assert means[0] > means[1] > means[2]


def test_gain_scales_the_light() -> None:
    dark, bright = (render(_scene(), 64, gain=gain).mean() for gain in (0.5, 1.0))
    assert dark == pytest.approx(bright / 2, rel=0.02)


@pytest.mark.parametrize("time", TIMES)
def test_braking_shows_red_light_and_driving_does_not(time: str) -> None:
    def redness_of_the_rear(state: str) -> float:
        # The car's rear lamp is at x = 0.5 - 0.235 * 0.85 = 0.30 and y = 0.8 - 0.085 * 0.85 = 0.73 of the picture.
        rear = render(_scene(_actor(state=state, colour="white"), time=time), 128)[89:97, 35:42].astype(int)
        return float((rear[..., 0] - rear[..., 1]).mean())

    assert redness_of_the_rear("stopping") > redness_of_the_rear("driving") + 60


def test_a_runner_is_drawn_wider_than_a_walker() -> None:
    def width(state: str) -> int:
        empty, shown = (
            render(_scene(*actors), 128).astype(int)
            for actors in ((), (_actor(kind="person", state=state, ground=0.945, phase=0.3),))
        )
        # Only pixels that differ by much more than the noise, above the shadow.
        changed = (np.abs(shown - empty).max(2) > 60)[:118]
        return int(np.ptp(np.flatnonzero(changed.any(0))))

    assert width("running") > 1.2 * width("walking") > 1.2 * width("standing")


def test_a_picture_too_small_is_refused() -> None:
    with pytest.raises(DataError, match="16x16"):
        render(_scene(), 16)
