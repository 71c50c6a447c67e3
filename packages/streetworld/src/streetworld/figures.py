"""The actors: people, bicycles, dogs and vehicles, drawn with Pillow in the actor's own frame of reference.

A `Pen` turns actor coordinates (x forward, y up from the ground, in picture heights at scale 1) into pixels, mirrored
when the actor faces left, so every figure is drawn once, facing right.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import ImageDraw

from streetworld.scene import Actor

Colour = tuple[int, int, int]
Point = tuple[float, float]

PAINT: dict[str, Colour] = {
    "red": (214, 34, 34),
    "blue": (36, 84, 214),
    "yellow": (246, 204, 30),
    "green": (32, 150, 64),
    "white": (240, 240, 238),
    "black": (34, 34, 38),
    "brown": (138, 84, 42),
}
SKIN: tuple[Colour, ...] = ((240, 200, 168), (214, 160, 120), (150, 100, 70), (110, 72, 50))
TROUSERS: tuple[Colour, ...] = ((52, 58, 84), (88, 80, 70), (64, 64, 68), (110, 96, 76))
GLASS, TYRE, RIM = (150, 190, 214), (24, 24, 26), (160, 162, 168)


@dataclass(frozen=True)
class Pen:
    """Draws in an actor's frame: `origin` is the pixel of its ground point, `unit` the pixels per picture height."""

    draw: ImageDraw.ImageDraw
    origin: Point
    unit: float
    mirror: int

    def at(self, x: float, y: float) -> Point:
        """Return the pixel of an actor point."""
        return (self.origin[0] + self.mirror * x * self.unit, self.origin[1] - y * self.unit)

    def limb(self, points: Sequence[Point], width: float, fill: Colour) -> None:
        """Draw a thick line with round joints."""
        pixels = [self.at(*p) for p in points]
        self.draw.line(pixels, fill=fill, width=max(1, round(width * self.unit)), joint="curve")
        for x, y in (pixels[0], pixels[-1]):
            r = width * self.unit / 2
            self.draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)

    def polygon(self, points: Sequence[Point], fill: Colour) -> None:
        """Draw a filled polygon."""
        self.draw.polygon([self.at(*p) for p in points], fill=fill)

    def box(self, left: float, bottom: float, right: float, top: float, fill: Colour, radius: float = 0.0) -> None:
        """Draw a filled rectangle."""
        (a, b), (c, d) = self.at(left, top), self.at(right, bottom)
        self.draw.rounded_rectangle((min(a, c), b, max(a, c), d), radius * self.unit, fill=fill)

    def disc(self, x: float, y: float, r: float, fill: Colour, aspect: float = 1.0) -> None:
        """Draw a filled ellipse of height `2 r` and width `2 r aspect`."""
        cx, cy = self.at(x, y)
        rx, ry = r * self.unit * aspect, r * self.unit
        self.draw.ellipse((cx - rx, cy - ry, cx + rx, cy + ry), fill=fill)

    def ring(self, x: float, y: float, r: float, fill: Colour, width: float) -> None:
        """Draw a circle's outline."""
        cx, cy = self.at(x, y)
        p = r * self.unit
        self.draw.ellipse((cx - p, cy - p, cx + p, cy + p), outline=fill, width=max(1, round(width * self.unit)))


def shade(colour: Colour, factor: float) -> Colour:
    """Return the colour made darker (factor < 1) or lighter."""
    return tuple(max(0, min(255, round(c * factor))) for c in colour)  # type: ignore[return-value]


def draw_actor(actor: Actor, pen: Pen) -> None:
    """Draw the actor's body."""
    _FIGURES[actor.kind](actor, pen)


def _joint(start: Point, angle: float, length: float) -> Point:
    """Return the point `length` from `start`; angle 0 hangs down, positive swings forward."""
    return (start[0] + length * math.sin(angle), start[1] - length * math.cos(angle))


def _person(actor: Actor, pen: Pen) -> None:
    number = actor.appearance
    skin, trousers = SKIN[number % 4], TROUSERS[number // 4 % 4]
    coat = PAINT[actor.colour]
    swing = math.sin(2 * math.pi * actor.phase)
    if actor.state == "running":
        # A runner leans forward, strides wide, and always has bent elbows and one leg kicked up behind.
        sign = 1.0 if swing >= 0 else -1.0
        amount = sign * (0.72 + 0.28 * abs(swing))
        lean, hip, legs = 0.42, (0.0, 0.165), [(0.95 * amount, -0.25), (-0.85 * amount, -0.25)]
        legs = [(thigh, thigh - (0.25 if thigh > 0 else 1.15)) for thigh, _ in legs]
        arms = [(-1.15 * amount, 1.5), (1.15 * amount, 1.5)]
    elif actor.state == "walking":
        amount = 0.35 * swing + (0.22 if swing >= 0 else -0.22)
        lean, hip = 0.06, (0.0, 0.165)
        legs = [(amount, amount - 0.1), (-amount, -amount - 0.1)]
        arms = [(-0.9 * amount, 0.15), (0.9 * amount, 0.15)]
    else:
        lean, hip, legs, arms = 0.0, (0.0, 0.165), [(0.1, 0.02), (-0.1, -0.02)], [(0.12, 0.0), (-0.12, 0.0)]
    chest = (hip[0] + 0.115 * math.sin(lean), hip[1] + 0.115 * math.cos(lean))
    head = (chest[0] + 0.052 * math.sin(lean * 1.3), chest[1] + 0.052 * math.cos(lean))
    for index, ((thigh, shin), (upper, bend)) in enumerate(zip(legs, arms, strict=True)):
        knee = _joint(hip, thigh, 0.08)
        foot = _joint(knee, shin, 0.08)
        elbow = _joint(chest, upper, 0.062)
        hand = _joint(elbow, upper + bend, 0.055)
        if index == 0:  # far limbs first, so the body covers them
            pen.limb((hip, knee, foot), 0.032, shade(trousers, 0.8))
            pen.limb((chest, elbow, hand), 0.024, shade(coat, 0.75))
            pen.limb((hip, chest), 0.068, coat)
        else:
            pen.limb((hip, knee, foot), 0.032, trousers)
            pen.limb((hip, chest), 0.062, coat)
            pen.limb((chest, elbow, hand), 0.024, shade(coat, 0.85 if actor.colour != "black" else 1.5))
        pen.disc(*hand, 0.012, skin)
        pen.disc(foot[0] + 0.012, foot[1] + 0.004, 0.014, (36, 32, 32), 1.6)
    pen.disc(*head, 0.036, skin)
    hair = ((50, 36, 28), (24, 22, 22), (120, 86, 50))[number % 3]
    pen.disc(head[0] - 0.008, head[1] + 0.014, 0.031, hair)


def _bicycle(actor: Actor, pen: Pen) -> None:
    frame, r = PAINT[actor.colour], 0.068
    back, front, crank = (-0.095, r), (0.095, r), (-0.01, r)
    for wheel in (back, front):
        pen.ring(*wheel, r, TYRE, 0.014)
        for spoke in range(3):
            angle = actor.phase * math.pi + spoke * math.pi / 3
            dx, dy = r * 0.85 * math.cos(angle), r * 0.85 * math.sin(angle)
            pen.limb(((wheel[0] - dx, wheel[1] - dy), (wheel[0] + dx, wheel[1] + dy)), 0.003, RIM)
    saddle, bars = (-0.045, 0.15), (0.075, 0.165)
    for line in ((back, crank, bars, front), (back, saddle, crank), (saddle, (0.065, 0.14))):
        pen.limb(line, 0.019, frame)
    hip, chest = (-0.045, 0.185), (0.02, 0.27)
    for index in (0, 1):
        angle = 2 * math.pi * actor.phase + index * math.pi
        pedal = (crank[0] + 0.03 * math.cos(angle), crank[1] + 0.03 * math.sin(angle) - 0.01)
        knee = ((hip[0] + pedal[0]) / 2 + 0.05, (hip[1] + pedal[1]) / 2 + 0.02)
        pen.limb((hip, knee, pedal), 0.028, (58, 60, 74) if index else (44, 46, 58))
    pen.limb((hip, chest), 0.058, (146, 132, 150))
    pen.limb((chest, (0.06, 0.21), bars), 0.022, (128, 114, 132))
    skin = SKIN[actor.appearance % 4]
    pen.disc(0.045, 0.312, 0.033, skin)
    pen.disc(0.038, 0.33, 0.034, frame, 1.05)


def _dog(actor: Actor, pen: Pen) -> None:
    coat = PAINT[actor.colour]
    dark = shade(coat, 0.72) if actor.colour != "black" else (64, 62, 66)
    if actor.state == "sitting":
        pen.polygon([(-0.07, 0.0), (-0.075, 0.05), (0.02, 0.12), (0.05, 0.09), (0.03, 0.0)], coat)
        pen.limb(((0.035, 0.1), (0.04, 0.01)), 0.024, dark)
        pen.limb(((-0.06, 0.012), (-0.105, 0.02)), 0.016, dark)
        head = (0.055, 0.145)
    else:
        swing = math.sin(2 * math.pi * actor.phase)
        amount = 0.5 * swing + (0.25 if swing >= 0 else -0.25)
        for x, angle in ((-0.065, amount), (-0.05, -amount), (0.055, -amount), (0.07, amount)):
            pen.limb(((x, 0.07), _joint((x, 0.07), angle, 0.065)), 0.02, dark)
        pen.limb(((-0.062, 0.085), (0.062, 0.09)), 0.058, coat)
        pen.limb(((-0.085, 0.1), (-0.125, 0.145)), 0.016, coat)
        pen.limb(((0.065, 0.1), (0.095, 0.13)), 0.036, coat)
        head = (0.105, 0.138)
    pen.disc(*head, 0.031, coat)
    pen.disc(head[0] + 0.034, head[1] - 0.01, 0.017, coat, 1.5)
    pen.disc(head[0] + 0.058, head[1] - 0.007, 0.008, (12, 10, 10) if actor.colour != "black" else (120, 116, 120))
    pen.polygon(
        [(head[0] - 0.03, head[1] + 0.035), (head[0] - 0.035, head[1] - 0.02), (head[0] - 0.002, head[1] + 0.02)], dark
    )


def _wheel(pen: Pen, x: float, r: float, angle: float) -> None:
    pen.disc(x, r, r, TYRE)
    pen.disc(x, r, r * 0.55, RIM)
    dx, dy = r * 0.5 * math.cos(angle), r * 0.5 * math.sin(angle)
    pen.limb(((x - dx, r - dy), (x + dx, r + dy)), r * 0.2, TYRE)


def _glass(actor: Actor) -> Colour:
    return (58, 66, 76) if actor.state == "parked" else GLASS


def _vehicle(actor: Actor, pen: Pen) -> None:
    paint, glass, dip = PAINT[actor.colour], _glass(actor), 0.012 if actor.state == "stopping" else 0.0
    low, trim = shade(paint, 0.72) if actor.colour != "black" else (58, 58, 64), (206, 206, 200)
    if actor.kind == "car":
        half, r, top = 0.235, 0.042, 0.11
        pen.polygon([(-0.15, top - 0.01), (-0.095, 0.185 + dip), (0.065, 0.185), (0.135, top - 0.01 - dip)], paint)
        pen.polygon([(-0.125, 0.112), (-0.082, 0.17 + dip), (-0.015, 0.17), (-0.015, 0.112)], glass)
        pen.polygon([(0.0, 0.112), (0.0, 0.17), (0.055, 0.17), (0.108, 0.112 - dip)], glass)
        pen.box(-half, 0.035, half, top + 0.004, paint, 0.022)
        pen.box(-half, 0.032, half, 0.055, low, 0.012)
        wheels = (-0.14, 0.145)
    elif actor.kind == "bus":
        half, r, top = 0.36, 0.043, 0.315
        pen.box(-half, 0.035, half, top, paint, 0.022)
        pen.box(-half, 0.035, half, 0.085, low, 0.012)
        for column in range(6):
            left = -0.325 + column * 0.098
            pen.box(left, 0.175, left + 0.08, 0.265, glass, 0.008)
        pen.box(0.272, 0.075, 0.335, 0.265, shade(glass, 0.85), 0.006)
        pen.limb(((0.303, 0.08), (0.303, 0.26)), 0.006, low)
        pen.box(-0.28, 0.282, 0.2, 0.304, (250, 220, 120) if actor.state != "parked" else (60, 58, 50), 0.004)
        wheels = (-0.22, 0.22)
    else:
        half, r, top = 0.32, 0.046, 0.30
        pen.box(-half, 0.07, 0.125, top, trim, 0.006)
        pen.box(-half, 0.15, 0.125, 0.215, paint)
        for rib in range(5):
            pen.limb(((-0.26 + rib * 0.08, 0.085), (-0.26 + rib * 0.08, 0.29)), 0.003, (170, 170, 164))
        pen.box(-half, 0.045, 0.3, 0.075, (50, 50, 54))
        pen.polygon([(0.14, 0.05), (0.14, 0.25), (0.245, 0.25), (0.31, 0.15), (0.32, 0.05)], paint)
        pen.polygon([(0.185, 0.15), (0.185, 0.23), (0.235, 0.23), (0.285, 0.15)], glass)
        wheels = (-0.21, 0.225)
    angle = 2 * math.pi * actor.phase
    for x in wheels:
        _wheel(pen, x, r, angle)
    lit = actor.state != "parked"
    pen.box(half - 0.022, 0.068, half + 0.002, 0.098, (255, 250, 210) if lit else (150, 150, 150), 0.006)
    rear = (255, 24, 24) if actor.state == "stopping" else (130, 26, 30)
    pen.box(-half - 0.002, 0.062, -half + 0.024, 0.108, rear, 0.006)


_FIGURES = {
    "person": _person,
    "bicycle": _bicycle,
    "dog": _dog,
    "car": _vehicle,
    "bus": _vehicle,
    "truck": _vehicle,
}


def draw_traces(actor: Actor, pen: Pen, time: str) -> None:
    """Draw what movement leaves on the road: streaks behind what drives, skid marks behind what brakes."""
    half = _HALF.get(actor.kind, 0.1)
    streak = (214, 218, 226) if time == "day" else (150, 154, 166)
    if actor.state == "driving":
        for y, length in ((0.03, 0.13), (0.085, 0.2), (0.14, 0.15)):
            pen.limb(((-half - 0.03, y), (-half - 0.03 - length, y)), 0.007, streak)
    elif actor.state == "stopping":
        pen.limb(((-half + 0.1, 0.002), (-half - 0.2, 0.002)), 0.014, (30, 28, 30))
        for step in range(3):
            pen.disc(-half - 0.03 - 0.055 * step, 0.022 + 0.006 * step, 0.016 + 0.006 * step, (196, 192, 186))
    elif actor.state == "running":
        for y in (0.05, 0.1):
            pen.limb(((-0.12, y), (-0.17, y)), 0.005, streak)


_HALF = {"car": 0.235, "bus": 0.36, "truck": 0.32}


def draw_light(actor: Actor, pen: Pen, time: str) -> None:
    """Draw the actor's own light on the layer that is blurred and added: head lamps, brake lights, lit windows."""
    half = _HALF.get(actor.kind)
    if half is None or actor.state == "parked":
        return
    dark = time != "day"
    if dark:
        beam = (64, 60, 40) if time == "dusk" else (110, 104, 72)
        pen.polygon([(half, 0.085), (half + 0.42, 0.13), (half + 0.42, -0.02)], beam)
        pen.disc(half, 0.083, 0.026, (255, 246, 200))
        if actor.kind == "bus":
            for column in range(6):
                left = -0.325 + column * 0.098
                pen.box(left, 0.175, left + 0.08, 0.265, (150, 140, 100))
    if actor.state == "stopping":
        pen.disc(-half - 0.015, 0.085, 0.085, (150, 10, 10))
        pen.disc(-half - 0.005, 0.085, 0.04, (255, 40, 30))
    elif dark:
        pen.disc(-half, 0.085, 0.018, (110, 8, 8))
