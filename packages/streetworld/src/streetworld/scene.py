"""What a street scene is: a frozen value, and how one is drawn at random.

Places are given in units of the picture's height. `x` runs from 0 to 1 over the central square of the picture (a wider
picture shows more on both sides); `ground` is the height of the actor's feet or wheels, 0 at the top, 1 at the bottom.
"""

from dataclasses import dataclass

import numpy as np

from vlmquant.errors import DataError, unknown

TIMES = ("day", "dusk", "night")
WEATHERS = ("clear", "rain", "fog", "snow")
ROADS = ("straight", "crossing")
SIDES = ("houses", "trees", "towers")
DIRECTIONS = ("left", "right")
SPLITS = ("train", "dev", "test")

VEHICLE_COLOURS = ("red", "blue", "yellow", "green", "white", "black")
DOG_COLOURS = ("brown", "black", "white")
COLOURS: dict[str, tuple[str, ...]] = {
    "person": VEHICLE_COLOURS,
    "bicycle": VEHICLE_COLOURS,
    "car": VEHICLE_COLOURS,
    "bus": VEHICLE_COLOURS,
    "truck": VEHICLE_COLOURS,
    "dog": DOG_COLOURS,
}
STATES: dict[str, tuple[str, ...]] = {
    "person": ("standing", "walking", "running"),
    "bicycle": ("riding",),
    "car": ("driving", "stopping", "parked"),
    "bus": ("driving", "stopping", "parked"),
    "truck": ("driving", "stopping", "parked"),
    "dog": ("crossing", "sitting"),
}
KINDS = tuple(STATES)
VEHICLES = ("car", "bus", "truck")
ALL_COLOURS = (*VEHICLE_COLOURS, "brown")
ALL_STATES = ("standing", "walking", "running", "riding", "driving", "stopping", "parked", "crossing", "sitting")

# Where an actor may stand: name -> height of its feet or wheels.
GROUND = {"far sidewalk": 0.545, "far lane": 0.66, "near lane": 0.80, "near sidewalk": 0.945}
CROWD_SIZE = 6
EDGE = 0.02  # a sliver narrower than this at the edge of the square shows nobody anything
EMPTY_SHARE, CROWD_SHARE = 0.08, 0.1  # of all sampled scenes
VISIBLE_MARGIN = 0.05  # an actor counts as seen while its middle is at least this far inside the central square
BACKGROUNDS = 16  # variants of the scenery behind every combination of time, weather, road and side

# Length and height in picture heights at the near sidewalk's scale.
EXTENT: dict[str, tuple[float, float]] = {
    "person": (0.17, 0.36),
    "bicycle": (0.29, 0.35),
    "car": (0.47, 0.19),
    "bus": (0.72, 0.32),
    "truck": (0.64, 0.31),
    "dog": (0.23, 0.16),
}


@dataclass(frozen=True, kw_only=True)
class Actor:
    """One thing on the street: `x` and `ground` place it, `phase` in [0, 1) is the moment of its gait.

    `look` chooses skin, hair and trousers; None derives them from the phase. Who moves needs one to stay the same.
    """

    kind: str
    colour: str
    state: str
    direction: str
    x: float
    ground: float
    phase: float = 0.0
    look: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in STATES:
            raise unknown(DataError, "actor kind", self.kind, STATES)
        if self.colour not in COLOURS[self.kind]:
            raise unknown(DataError, f"colour of a {self.kind}", self.colour, COLOURS[self.kind])
        if self.state not in STATES[self.kind]:
            raise unknown(DataError, f"state of a {self.kind}", self.state, STATES[self.kind])
        if self.direction not in DIRECTIONS:
            raise unknown(DataError, "direction", self.direction, DIRECTIONS)

    @property
    def appearance(self) -> int:
        """The number that skin, hair and trousers are chosen by."""
        return int(self.phase * 997) if self.look is None else self.look

    @property
    def visible(self) -> bool:
        """Whether its middle lies in the central square, which is what a model with a centre crop sees."""
        return VISIBLE_MARGIN <= self.x <= 1 - VISIBLE_MARGIN

    @property
    def partly_visible(self) -> bool:
        """Whether any part of it lies in the central square."""
        left, _, right, _ = self.box
        return right > EDGE and left < 1 - EDGE

    @property
    def near(self) -> bool:
        """Whether it is on the viewer's half of the street."""
        return self.ground > 0.72

    @property
    def place(self) -> str:
        """`left`, `centre` or `right` third of the picture."""
        return "left" if self.x < 0.36 else "right" if self.x > 0.64 else "centre"

    @property
    def scale(self) -> float:
        """Size relative to the near sidewalk: things farther away are smaller."""
        return 1.0 - 1.05 * (GROUND["near sidewalk"] - self.ground)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom in picture heights."""
        length, height = EXTENT[self.kind]
        half = length * self.scale / 2
        return (self.x - half, self.ground - height * self.scale, self.x + half, self.ground)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One moment of the street; `seed` draws everything that no caption speaks of (noise, flakes, windows)."""

    time: str
    weather: str
    road: str
    side: str
    actors: tuple[Actor, ...]
    seed: int

    def __post_init__(self) -> None:
        for kind, value, known in (
            ("time of day", self.time, TIMES),
            ("weather", self.weather, WEATHERS),
            ("road", self.road, ROADS),
            ("roadside", self.side, SIDES),
        ):
            if value not in known:
                raise unknown(DataError, kind, value, known)

    @property
    def people(self) -> int:
        """Number of people on foot."""
        return sum(actor.kind == "person" for actor in self.actors)

    @property
    def crowded(self) -> bool:
        """Six people on foot or more."""
        return self.people >= CROWD_SIZE

    @property
    def empty(self) -> bool:
        """Nobody and nothing on the street."""
        return not self.actors


def split_of(time: str, weather: str, kind: str, colour: str) -> str:
    """Return the split that a combination of attributes belongs to: 9 of 12 train, 1 dev, 2 test."""
    colour_index = ALL_COLOURS.index(colour)
    index = 5 * TIMES.index(time) + 7 * WEATHERS.index(weather) + 2 * KINDS.index(kind) + 3 * colour_index
    index += 2 * colour_index * TIMES.index(time)  # so that every hour and weather has combinations of every split
    return {0: "test", 5: "test", 9: "dev"}.get(index % 12, "train")


def sample_scene(rng: np.random.Generator, split: str = "train") -> Scene:
    """Draw a scene at random.

    Scenes of `train` hold only combinations of (time, weather, kind, colour) of the training split. The first actor
    of a `dev` or `test` scene has a combination that training never shows, its other actors have training ones.
    A street without actors has no such combination and is drawn alike for every split.
    """
    if split not in SPLITS:
        raise unknown(DataError, "split", split, SPLITS)
    surroundings = {
        "time": _pick(rng, TIMES),
        "weather": _pick(rng, WEATHERS, (0.4, 0.2, 0.2, 0.2)),
        "road": _pick(rng, ROADS),
        "side": _pick(rng, SIDES),
    }
    time, weather = surroundings["time"], surroundings["weather"]
    actors: list[Actor] = []
    chance = rng.random()
    if chance >= EMPTY_SHARE:
        crowded = chance < EMPTY_SHARE + CROWD_SHARE
        count = int(rng.integers(CROWD_SIZE, 10) if crowded else rng.choice([1, 2, 3, 4], p=[0.45, 0.3, 0.15, 0.1]))
        for _ in range(40):
            if len(actors) == count:
                break
            crowd = crowded and len(actors) < max(CROWD_SIZE, count - 1)
            actor = _sample_actor(rng, time, weather, split if not actors else "train", "person" if crowd else None)
            if actor is not None and not any(_hides(actor, other) for other in actors):
                actors.append(actor)
    return Scene(**surroundings, actors=tuple(actors), seed=int(rng.integers(2**31)))


def _pick(rng: np.random.Generator, values: tuple[str, ...], weights: tuple[float, ...] | None = None) -> str:
    return str(values[int(rng.choice(len(values), p=weights))])


def _sample_actor(rng: np.random.Generator, time: str, weather: str, split: str, kind: str | None) -> Actor | None:
    kind = kind or _pick(rng, KINDS, (0.34, 0.1, 0.17, 0.14, 0.11, 0.14))
    colours = tuple(c for c in COLOURS[kind] if split_of(time, weather, kind, c) == split)
    if not colours:
        return None
    state = _pick(rng, STATES[kind])
    return Actor(
        kind=kind,
        colour=_pick(rng, colours),
        state=state,
        direction=_pick(rng, DIRECTIONS),
        x=float(rng.uniform(VISIBLE_MARGIN, 1 - VISIBLE_MARGIN)),
        ground=sample_ground(rng, kind, state),
        phase=float(rng.random()),
    )


def sample_ground(rng: np.random.Generator, kind: str, state: str) -> float:
    """Draw the line on which an actor of this kind and state moves."""
    if kind == "dog" and state == "crossing":
        return float(rng.uniform(0.64, 0.82))
    sidewalk = kind in ("person", "dog")
    choice = _pick(rng, ("far sidewalk", "near sidewalk") if sidewalk else ("far lane", "near lane"), (0.4, 0.6))
    return float(np.clip(GROUND[choice] + rng.normal(0, 0.012), 0.53, 0.975))


def _hides(one: Actor, other: Actor) -> bool:
    a, b = one.box, other.box
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return False
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return width * height > 0.3 * smaller
