import numpy as np
import pytest

from streetworld.captions import FIXED, TEMPLATES, caption_statements, captions, phrase_text, short_statement
from streetworld.dataset import scenes
from streetworld.scene import Actor, Scene
from streetworld.statements import Phrase, Statement

FIXED_BY_TEXT = {statement.text: statement for statement in FIXED}
WALKER = Actor(kind="person", colour="red", state="walking", direction="left", x=0.2, ground=0.945)
BUS = Actor(kind="bus", colour="blue", state="stopping", direction="right", x=0.6, ground=0.66)


def _scene(*actors: Actor) -> Scene:
    return Scene(time="night", weather="rain", road="crossing", side="trees", actors=actors, seed=3)


def test_captions_are_five_true_different_and_repeatable() -> None:
    for scene in scenes(150, "train", seed=9):
        told = captions(scene)
        assert len(set(told)) == 5
        assert told == captions(scene)
        assert all(statement.holds(scene) for statement in caption_statements(scene))


def test_short_statements_are_true() -> None:
    rng = np.random.default_rng(0)
    for scene in scenes(150, "train", seed=9):
        assert all(short_statement(scene, rng).holds(scene) for _ in range(5))


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        (Phrase(kind="person", state="walking"), "a person walking"),
        (Phrase(kind="person", colour="red"), "a person in a red coat"),
        (Phrase(kind="bus", colour="blue", state="stopping", direction="left"), "a blue bus stopping facing left"),
        (Phrase(kind="car", state="driving", direction="left"), "a car driving to the left"),
        (Phrase(kind="bicycle", colour="green"), "a person riding a green bicycle"),
        (Phrase(kind="dog", state="crossing", place="centre"), "a dog crossing the street in the middle"),
        (Phrase(kind="vehicle", near=False), "a vehicle in the background"),
    ],
)
def test_the_plain_wording_of_a_phrase(phrase: Phrase, text: str) -> None:
    assert phrase_text(phrase) == text


@pytest.mark.parametrize(
    ("phrase", "holds"),
    [
        (Phrase(kind="person"), True),
        (Phrase(kind="person", colour="red", state="walking", direction="left", place="left", near=True), True),
        (Phrase(kind="person", state="running"), False),
        (Phrase(kind="vehicle", state="stopping"), True),
        (Phrase(kind="vehicle", colour="red"), False),
        (Phrase(kind="bus", near=True), False),
        (Phrase(kind="dog"), False),
    ],
)
def test_a_phrase_is_true_of_one_and_the_same_actor(phrase: Phrase, holds: bool) -> None:
    scene = _scene(WALKER, BUS)
    assert Statement(text="", seen=(phrase,)).holds(scene) is holds
    assert Statement(text="", absent=(phrase,)).holds(scene) is not holds


def test_surroundings_count_too() -> None:
    scene = _scene()
    assert Statement(text="", time="night", weather="rain", road="crossing", side="trees", empty=True).holds(scene)
    for wrong in ({"time": "day"}, {"weather": "fog"}, {"road": "straight"}, {"side": "towers"}, {"crowded": True}):
        assert not Statement(text="", **wrong).holds(scene)


def test_event_phrases_mean_what_they_say() -> None:
    scene = _scene(WALKER, BUS)
    true = {text for text, statement in FIXED_BY_TEXT.items() if statement.holds(scene)}
    assert {"a person walking", "a bus arriving", "a vehicle stopping", "nobody running", "a street"} <= true
    assert true.isdisjoint({"an empty street", "a crowded street", "a dog", "no bus arriving", "a vehicle driving"})
    assert FIXED_BY_TEXT["an empty street"].holds(_scene())


def test_templates_take_one_name() -> None:
    assert all(template.count("{}") == 1 for template in TEMPLATES)
    assert len(FIXED_BY_TEXT) == len(FIXED)
