"""Texts about a scene: five captions, short partial statements, and the fixed phrases of events and backgrounds."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from streetworld.scene import VEHICLES, Actor, Scene
from streetworld.statements import Phrase, Statement

TEMPLATES = ("{}", "a photo of {}", "a picture of {}", "a video frame of {}", "a street scene with {}")
"""Prompt templates for zero-shot classification; the model is trained with all of them."""

TIME_WORDS = {
    "day": ("by day", "in the daytime", "during the day"),
    "dusk": ("at dusk", "in the evening", "at sunset"),
    "night": ("at night", "in the dark", "after dark"),
}
WEATHER_WORDS = {
    "clear": ("in clear weather", "under a clear sky", "in fine weather"),
    "rain": ("in the rain", "in rainy weather", "while it rains"),
    "fog": ("in the fog", "in foggy weather", "in thick fog"),
    "snow": ("in the snow", "in snowy weather", "while it snows"),
}
ROAD_WORDS = {"straight": ("on a straight road", "on a road"), "crossing": ("by a zebra crossing", "at a crosswalk")}
SIDE_WORDS = {
    "houses": ("in front of houses", "on a street with houses"),
    "trees": ("in front of trees", "on a street with trees"),
    "towers": ("in front of tall buildings", "in the city centre"),
}
_SCENE_WORDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "time": TIME_WORDS,
    "weather": WEATHER_WORDS,
    "road": ROAD_WORDS,
    "side": SIDE_WORDS,
}
PLACE_WORDS = {
    "left": ("on the left", "on the left side"),
    "centre": ("in the middle", "in the centre"),
    "right": ("on the right", "on the right side"),
}
NEAR_WORDS = {True: ("in the foreground", "close by"), False: ("in the background", "far away")}
DIRECTION_WORDS = {"moving": ("to the {}", "heading {}"), "still": ("facing {}", "turned to the {}")}
STILL_STATES = ("standing", "parked", "sitting", "stopping")
STATE_WORDS = {
    "standing": ("standing", "standing still"),
    "walking": ("walking", "on a walk"),
    "running": ("running", "in a hurry"),
    "driving": ("driving", "on the move"),
    "stopping": ("stopping", "braking"),
    "parked": ("parked", "parked at the roadside"),
    "crossing": ("crossing the street", "crossing the road"),
    "sitting": ("sitting", "sitting on the ground"),
}

FIXED: tuple[Statement, ...] = (
    Statement(text="a street"),
    Statement(text="a road"),
    Statement(text="an empty street", empty=True),
    Statement(text="an empty road", empty=True),
    Statement(text="a quiet street", empty=True),
    Statement(text="a place with nothing happening", empty=True),
    Statement(text="a busy street", empty=False),
    Statement(text="a street with people and vehicles", empty=False),
    Statement(text="a crowded street", crowded=True),
    Statement(text="a crowd of people", crowded=True),
    Statement(text="a person", seen=(Phrase(kind="person"),)),
    Statement(text="a person walking", seen=(Phrase(kind="person", state="walking"),)),
    Statement(text="a pedestrian walking", seen=(Phrase(kind="person", state="walking"),)),
    Statement(text="a person running", seen=(Phrase(kind="person", state="running"),)),
    Statement(text="a person standing", seen=(Phrase(kind="person", state="standing"),)),
    Statement(text="a person riding a bicycle", seen=(Phrase(kind="bicycle"),)),
    Statement(text="a dog", seen=(Phrase(kind="dog"),)),
    Statement(text="a dog crossing the street", seen=(Phrase(kind="dog", state="crossing"),)),
    Statement(text="a dog sitting", seen=(Phrase(kind="dog", state="sitting"),)),
    Statement(text="a vehicle", seen=(Phrase(kind="vehicle"),)),
    Statement(text="a vehicle driving", seen=(Phrase(kind="vehicle", state="driving"),)),
    Statement(text="a vehicle stopping", seen=(Phrase(kind="vehicle", state="stopping"),)),
    Statement(text="a parked vehicle", seen=(Phrase(kind="vehicle", state="parked"),)),
    Statement(text="a car driving", seen=(Phrase(kind="car", state="driving"),)),
    Statement(text="a car stopping", seen=(Phrase(kind="car", state="stopping"),)),
    Statement(text="a truck stopping", seen=(Phrase(kind="truck", state="stopping"),)),
    Statement(text="a bus", seen=(Phrase(kind="bus"),)),
    Statement(text="a bus arriving", seen=(Phrase(kind="bus", state="stopping"),)),
    Statement(text="a bus stopping", seen=(Phrase(kind="bus", state="stopping"),)),
    Statement(text="a street without people", absent=(Phrase(kind="person"),)),
    Statement(text="a street without vehicles", absent=(Phrase(kind="vehicle"),)),
    Statement(text="nobody walking", absent=(Phrase(kind="person", state="walking"),)),
    Statement(text="nobody running", absent=(Phrase(kind="person", state="running"),)),
    Statement(text="no vehicle stopping", absent=(Phrase(kind="vehicle", state="stopping"),)),
    Statement(text="no dog crossing the street", absent=(Phrase(kind="dog", state="crossing"),)),
    Statement(text="no bus arriving", absent=(Phrase(kind="bus", state="stopping"),)),
    Statement(text="no crowd", crowded=False),
)
"""Event phrases and backgrounds as users type them; every training batch holds all of them."""


def captions(scene: Scene) -> tuple[str, str, str, str, str]:
    """Return five differently worded captions, all true; equal scenes have equal captions."""
    a, b, c, d, e = (statement.text for statement in caption_statements(scene))
    return a, b, c, d, e


def caption_statements(scene: Scene) -> tuple[Statement, ...]:
    """Return the five captions of a scene together with what each says."""
    rng = np.random.default_rng([scene.seed, 9])
    return tuple(vary_caption(scene, style, rng) for style in range(5))


# What each style of caption tells: of the scene, and of its actors beside colour and state.
_SCENE_PARTS = (
    ("time", "weather"),
    ("side", "time"),
    ("weather", "road"),
    ("time", "weather", "side"),
    ("time", "road"),
)
_ACTOR_PARTS = (("direction",), ("place", "near"), ("place",), ("near", "direction"), ("place", "direction"))


def vary_caption(scene: Scene, style: int, rng: np.random.Generator) -> Statement:
    """Word a caption of one of the five styles (0 to 4) again."""
    limit = 3 if style in (0, 2) else 2
    actors = scene.actors[:limit]
    told: dict[str, object] = {}
    if scene.empty:
        told["empty"] = True
        words = [_one(rng, ("an empty street", "a street with nobody on it", "an empty road"))]
    elif scene.crowded:
        told["crowded"] = True
        actors = _crowd_details(scene)
        words = [_one(rng, ("a crowd of people", "a crowded street", "many people on the street"))]
    else:
        words = []
    phrases = []
    for actor in actors:
        phrase = _phrase(actor, {"colour", "state", *_ACTOR_PARTS[style]})
        phrases.append(phrase)
        words.append(phrase_text(phrase, rng))
    head = _join(words)
    parts = _SCENE_PARTS[style] if not scene.empty else ("time", "weather", "side", "road")
    tail = []
    for part in parts:
        told[part] = getattr(scene, part)
        tail.append(_scene_words(part, getattr(scene, part), rng))
    body = " ".join(tail)
    text = f"{body}, {head}" if style in (1, 3) else f"{head}, {body}"
    return Statement(text=text, seen=tuple(phrases), **told)  # type: ignore[arg-type]


def short_statement(scene: Scene, rng: np.random.Generator) -> Statement:
    """Draw a short statement that is true of the scene, such as "a red bus at night" or "a dog sitting"."""
    told: dict[str, object] = {}
    phrases: tuple[Phrase, ...] = ()
    if scene.empty:
        told["empty"] = True
        head = _one(rng, ("an empty street", "an empty road"))
    elif scene.crowded and rng.random() < 0.5:
        told["crowded"] = True
        head = _one(rng, ("a crowded street", "a crowd of people"))
    else:
        actor = scene.actors[int(rng.integers(len(scene.actors)))]
        chances = {"colour": 0.55, "state": 0.65, "direction": 0.2, "place": 0.25, "near": 0.15}
        phrase = _phrase(actor, {name for name, chance in chances.items() if rng.random() < chance})
        if actor.kind in VEHICLES and rng.random() < 0.12:
            phrase = replace(phrase, kind="vehicle")
        phrases = (phrase,)
        head = phrase_text(phrase, rng)
    words = [head]
    for part, chance in (("time", 0.4), ("weather", 0.25), ("side", 0.12), ("road", 0.12)):
        if rng.random() < chance:
            told[part] = getattr(scene, part)
            words.append(_scene_words(part, getattr(scene, part), rng))
    text = _one(rng, TEMPLATES).format(" ".join(words)) if rng.random() < 0.5 else " ".join(words)
    return Statement(text=text, seen=phrases, **told)  # type: ignore[arg-type]


def phrase_text(phrase: Phrase, rng: np.random.Generator | None = None) -> str:
    """Word a phrase; without `rng` the first, plainest wording is taken."""
    noun = {"bicycle": "bicycle", "person": _one(rng, ("person", "pedestrian"), 0.8)}.get(phrase.kind, phrase.kind)
    state = _one(rng, STATE_WORDS[phrase.state], 0.8) if phrase.state and phrase.state != "riding" else ""
    if phrase.kind == "bicycle":
        text = f"{phrase.colour} bicycle" if phrase.colour else "bicycle"
        text = _one(rng, ("a person riding a {}", "a cyclist on a {}")).format(text)
    elif phrase.kind == "person" and phrase.colour:
        text = _one(rng, ("a {} in a {} coat", "a {} wearing {}")).format(noun, phrase.colour)
    else:
        text = f"a {phrase.colour} {noun}" if phrase.colour else f"a {noun}"
    if state == "parked" and _one(rng, ("after", "before")) == "before":
        text = "a parked " + text.removeprefix("a ")
    elif state:
        text = f"{text} {state}"
    if phrase.direction:
        manner = "still" if phrase.state in STILL_STATES else "moving" if phrase.state else "still"
        text = f"{text} {_one(rng, DIRECTION_WORDS[manner]).format(phrase.direction)}"
    if phrase.place:
        text = f"{text} {_one(rng, PLACE_WORDS[phrase.place])}"
    if phrase.near is not None:
        text = f"{text} {_one(rng, NEAR_WORDS[phrase.near])}"
    return text


def _phrase(actor: Actor, told: set[str]) -> Phrase:
    return Phrase(kind=actor.kind, **{name: getattr(actor, name) for name in told})


def _scene_words(part: str, value: str, rng: np.random.Generator | None = None) -> str:
    return _one(rng, _SCENE_WORDS[part][value])


def _crowd_details(scene: Scene) -> tuple[Actor, ...]:
    """Return whom a caption of a crowd names: the first vehicle or animal, if any, and the first person."""
    others = tuple(actor for actor in scene.actors if actor.kind != "person")
    return (others or scene.actors)[:1] + scene.actors[:1] * bool(others)


def _join(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _one(rng: np.random.Generator | None, options: tuple[str, ...], first: float | None = None) -> str:
    """Return one of the options: the first without `rng`, else any, the first with chance `first` where given."""
    if rng is None:
        return options[0]
    if first is not None and rng.random() < first:
        return options[0]
    return options[int(rng.integers(len(options)))]
