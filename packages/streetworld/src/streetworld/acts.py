"""The acts that video scripts are composed of: a walker, a runner, a bus that arrives, a crowd, ..."""

from collections.abc import Callable, Sequence

import numpy as np

from streetworld.scene import COLOURS, DIRECTIONS, GROUND, ROADS, SIDES, TIMES, WEATHERS, split_of
from streetworld.script import Leg, Role, VideoScript

OUTSIDE = 0.55  # how far beyond the central square roles begin and end, so that nobody appears out of nowhere


class _Stage:
    """What the acts of one script share: its random numbers and the colours that belong to its split."""

    def __init__(self, rng: np.random.Generator, time: str, weather: str, split: str) -> None:
        self.rng, self.time, self.weather, self.split = rng, time, weather, split

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def one(self, options: Sequence[str]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def role(self, kind: str, direction: str, legs: Sequence[Leg]) -> Role:
        own = [c for c in COLOURS[kind] if split_of(self.time, self.weather, kind, c) == self.split]
        # A combination of another split is better than a street where everybody wears the same.
        colour = self.one(own if own and self.rng.random() < 0.7 else COLOURS[kind])
        return Role(kind=kind, colour=colour, direction=direction, legs=tuple(legs), look=int(self.rng.integers(997)))


def _ends(direction: str) -> tuple[float, float]:
    return (-OUTSIDE, 1 + OUTSIDE) if direction == "right" else (1 + OUTSIDE, -OUTSIDE)


def _enter(seconds_at_edge: float, speed: float) -> float:
    """Return when a role must start so that its middle reaches the central square at `seconds_at_edge`."""
    return seconds_at_edge - OUTSIDE / speed


def _pass(stage: _Stage, kind: str, state: str, begin: float, speed: float, ground: float) -> Role:
    direction = stage.one(DIRECTIONS)
    first, last = _ends(direction)
    start = _enter(begin, speed)
    leg = Leg(
        state=state, start_seconds=start, end_seconds=start + (1 + 2 * OUTSIDE) / speed,
        start=(first, ground), end=(last, ground),
    )  # fmt: skip
    return stage.role(kind, direction, [leg])


def _sidewalk(stage: _Stage) -> float:
    return GROUND[stage.one(("far sidewalk", "near sidewalk", "near sidewalk"))] + stage.uniform(-0.012, 0.012)


def _lane(stage: _Stage) -> float:
    return GROUND[stage.one(("far lane", "near lane"))] + stage.uniform(-0.01, 0.01)


def _walker(stage: _Stage, begin: float) -> list[Role]:
    return [_pass(stage, "person", "walking", begin, stage.uniform(0.17, 0.24), _sidewalk(stage))]


def _runner(stage: _Stage, begin: float) -> list[Role]:
    return [_pass(stage, "person", "running", begin, stage.uniform(0.3, 0.38), _sidewalk(stage))]


def _driver(stage: _Stage, begin: float) -> list[Role]:
    kind = stage.one(("car", "car", "truck", "bus"))
    return [_pass(stage, kind, "driving", begin, stage.uniform(0.4, 0.55), _lane(stage))]


def _cyclist(stage: _Stage, begin: float) -> list[Role]:
    return [_pass(stage, "bicycle", "riding", begin, stage.uniform(0.25, 0.32), _lane(stage))]


def _stops(stage: _Stage, kind: str, begin: float) -> list[Role]:
    """Drive in, brake to a stand, stay parked for a while, drive on."""
    direction, ground = stage.one(DIRECTIONS), _lane(stage)
    first, last = _ends(direction)
    forward = 1.0 if direction == "right" else -1.0
    edge = 0.0 if direction == "right" else 1.0
    speed, braking = stage.uniform(0.34, 0.42), stage.uniform(2.4, 3.2)
    brake_x = edge + forward * 0.1
    # Braking evenly from `speed` to a stand takes half the way that driving on would have taken.
    stand_x = brake_x + forward * speed * braking / 2
    brake = begin + 0.1 / speed
    stand = brake + braking
    leave = stand + stage.uniform(2.0, 3.5)
    start = _enter(begin, speed)
    gone = leave + abs(last - stand_x) / 0.45
    points = [(first, start), (brake_x, brake), (stand_x, stand), (stand_x, leave), (last, gone)]
    states = ("driving", "stopping", "parked", "driving")
    legs = [
        Leg(state=s, start_seconds=a, end_seconds=b, start=(x, ground), end=(y, ground), braking=s == "stopping")
        for s, (x, a), (y, b) in zip(states, points, points[1:], strict=False)
    ]
    return [stage.role(kind, direction, legs)]


def _stopping_car(stage: _Stage, begin: float) -> list[Role]:
    return _stops(stage, stage.one(("car", "truck")), begin)


def _arriving_bus(stage: _Stage, begin: float) -> list[Role]:
    return _stops(stage, "bus", begin)


def _crossing_dog(stage: _Stage, begin: float) -> list[Role]:
    speed = stage.uniform(0.2, 0.27)
    role = _pass(stage, "dog", "crossing", begin, speed, 0.0)
    near, far = stage.uniform(0.78, 0.82), stage.uniform(0.64, 0.68)
    first, last = (near, far) if stage.rng.random() < 0.5 else (far, near)
    leg = role.legs[0]
    diagonal = Leg(
        state=leg.state, start_seconds=leg.start_seconds, end_seconds=leg.end_seconds,
        start=(leg.start[0], first), end=(leg.end[0], last),
    )  # fmt: skip
    return [Role(kind="dog", colour=role.colour, direction=role.direction, legs=(diagonal,), look=role.look)]


def _crowd(stage: _Stage, begin: float) -> list[Role]:
    """Eight to ten people who walk by close together on both sidewalks."""
    count, speed = int(stage.rng.integers(8, 11)), stage.uniform(0.15, 0.18)
    roles = []
    for index in range(count):
        ground = GROUND["far sidewalk" if index % 2 else "near sidewalk"] + stage.uniform(-0.012, 0.012)
        delay = 0.09 * (index // 2) / speed * 1.4 + stage.uniform(-0.1, 0.1)
        roles.append(_pass(stage, "person", "walking", begin + delay, speed * stage.uniform(0.97, 1.03), ground))
    # Everyone of the same sidewalk walks the same way, so that the group stays together.
    return [_facing(role, roles[index % 2].direction) for index, role in enumerate(roles)]


def _facing(role: Role, direction: str) -> Role:
    if role.direction == direction:
        return role
    leg = role.legs[0]
    turned = Leg(
        state=leg.state, start_seconds=leg.start_seconds, end_seconds=leg.end_seconds, start=leg.end, end=leg.start
    )
    return Role(kind=role.kind, colour=role.colour, direction=direction, legs=(turned,), look=role.look)


Act = Callable[[_Stage, float], list[Role]]
# The act and the seconds until the next one begins: less than its own length lets acts overlap.
ACTS: tuple[tuple[Act, float], ...] = (
    (_walker, 4.0),
    (_runner, 3.0),
    (_stopping_car, 5.5),
    (_arriving_bus, 5.5),
    (_crossing_dog, 4.0),
    (_crowd, 9.0),
    (_driver, 2.0),
    (_cyclist, 3.0),
)


def write_script(rng: np.random.Generator, seconds: float, size: tuple[int, int], split: str) -> VideoScript:
    """Compose a script: the acts in random order, again and again until the time is used up, with empty spells."""
    time = TIMES[int(rng.choice(3, p=(0.5, 0.2, 0.3)))]
    weather = WEATHERS[int(rng.choice(4, p=(0.4, 0.2, 0.2, 0.2)))]
    stage = _Stage(rng, time, weather, split)
    roles: list[Role] = []
    clock = stage.uniform(0.5, 3.0)
    order: list[int] = []
    while True:
        order = order or rng.permutation(len(ACTS)).tolist()
        fitting = [index for index in order if clock + ACTS[index][1] + 1.0 <= seconds]
        if not fitting:
            break
        order.remove(fitting[0])
        act, length = ACTS[fitting[0]]
        new = act(stage, clock)
        roles += new
        clock += length
        if rng.random() < 0.4:
            clock = max(clock, max(_leaves(role) for role in roles)) + stage.uniform(2.0, 4.0)
    return VideoScript(
        time=time, weather=weather, road=stage.one(ROADS), side=stage.one(SIDES),
        roles=tuple(roles), seconds=seconds, size=size, seed=int(rng.integers(2**20)),
    )  # fmt: skip


def _leaves(role: Role) -> float:
    """Return when the role's middle leaves the central square."""
    leg = role.legs[-1]
    return leg.end_seconds - OUTSIDE / abs(leg.end[0] - leg.start[0]) * (leg.end_seconds - leg.start_seconds)
