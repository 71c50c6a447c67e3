"""Sentences whose truth on a scene can be computed: what captions, labels and events are made of."""

from dataclasses import dataclass

from streetworld.scene import VEHICLES, Actor, Scene


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """Something seen on the street; what is None is left open. `kind` may be `vehicle`: a car, a bus or a truck."""

    kind: str
    colour: str | None = None
    state: str | None = None
    direction: str | None = None
    place: str | None = None
    near: bool | None = None

    def describes(self, actor: Actor) -> bool:
        """Whether the phrase is true of this actor."""
        return (
            (actor.kind in VEHICLES if self.kind == "vehicle" else actor.kind == self.kind)
            and self.colour in (None, actor.colour)
            and self.state in (None, actor.state)
            and self.direction in (None, actor.direction)
            and self.place in (None, actor.place)
            and self.near in (None, actor.near)
        )


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A text and what it says: every named attribute holds, every phrase is seen, no phrase of `absent` is.

    `crowded` and `empty` are None when the text does not speak of it.
    """

    text: str
    time: str | None = None
    weather: str | None = None
    road: str | None = None
    side: str | None = None
    crowded: bool | None = None
    empty: bool | None = None
    seen: tuple[Phrase, ...] = ()
    absent: tuple[Phrase, ...] = ()

    def holds(self, scene: Scene) -> bool:
        """Whether the statement is true of the scene."""
        return (
            self.time in (None, scene.time)
            and self.weather in (None, scene.weather)
            and self.road in (None, scene.road)
            and self.side in (None, scene.side)
            and self.crowded in (None, scene.crowded)
            and self.empty in (None, scene.empty)
            and all(any(p.describes(a) for a in scene.actors) for p in self.seen)
            and not any(p.describes(a) for p in self.absent for a in scene.actors)
        )
