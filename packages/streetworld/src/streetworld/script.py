"""What a video script is made of: roles, each an actor that moves through legs of constant state."""

from dataclasses import dataclass

from streetworld.scene import Actor

FRAMES_PER_SECOND = 25

# Steps per second of the gait, by state; wheels turn with the distance instead.
_CADENCE = {"walking": 0.95, "running": 1.5, "crossing": 1.3, "riding": 0.8}
_WHEEL_TURNS = {"driving": 2.2, "stopping": 1.0}


@dataclass(frozen=True, kw_only=True)
class Leg:
    """Part of a role: from one place to another in one state. `braking` legs slow down evenly to a stand."""

    state: str
    start_seconds: float
    end_seconds: float
    start: tuple[float, float]
    end: tuple[float, float]
    braking: bool = False

    def place(self, seconds: float) -> tuple[float, float]:
        """Return (x, ground) at a time within the leg."""
        share = (seconds - self.start_seconds) / (self.end_seconds - self.start_seconds)
        share = share * (2 - share) if self.braking else share
        return tuple(a + (b - a) * share for a, b in zip(self.start, self.end, strict=True))  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class Role:
    """An actor and its legs, which follow each other without a gap."""

    kind: str
    colour: str
    direction: str
    legs: tuple[Leg, ...]
    look: int

    def at(self, seconds: float) -> Actor | None:
        """Return the actor at a time, None when it is not there."""
        for leg in self.legs:
            if leg.start_seconds <= seconds < leg.end_seconds:
                x, ground = leg.place(seconds)
                turns = x * _WHEEL_TURNS[leg.state] if leg.state in _WHEEL_TURNS else 0.0
                phase = (turns + seconds * _CADENCE.get(leg.state, 0.0) + self.look / 97) % 1.0
                return Actor(
                    kind=self.kind, colour=self.colour, state=leg.state, direction=self.direction,
                    x=x, ground=ground, phase=phase, look=self.look,
                )  # fmt: skip
        return None


@dataclass(frozen=True, kw_only=True)
class VideoScript:
    """Everything that happens in a video of `seconds` seconds and `size` (width, height) pixels."""

    time: str
    weather: str
    road: str
    side: str
    roles: tuple[Role, ...]
    seconds: float
    size: tuple[int, int]
    seed: int

    @property
    def frames(self) -> int:
        """Number of frames."""
        return round(self.seconds * FRAMES_PER_SECOND)
