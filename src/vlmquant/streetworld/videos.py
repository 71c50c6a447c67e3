"""Scripted street videos with exact, timed ground truth.

A script is a set of roles; each role is an actor that moves through legs of constant state. What is true at a moment is
read off the scene at that moment with the same statements that captions are made of (`captions.FIXED`).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vlmquant.errors import DataError, unknown
from vlmquant.progress import Track, silent
from vlmquant.streetworld.captions import FIXED
from vlmquant.streetworld.scene import BACKGROUNDS, SPLITS, Actor, Scene
from vlmquant.streetworld.statements import Statement

FRAMES_PER_SECOND = 25
STATE_EVENTS = (
    "a person walking",
    "a person running",
    "a crowded street",
    "an empty street",
    "a dog crossing the street",
)
"""Events that one frame shows."""
EVENT_NAMES = (*STATE_EVENTS, "a vehicle stopping", "a bus arriving")
STATEMENTS: dict[str, Statement] = {s.text: s for s in FIXED if s.text in EVENT_NAMES}
SHORTEST_EVENT_SECONDS = 0.6
"""What lasts less is no event, and an interruption that lasts less does not end one."""

# Steps per second of the gait, by state; wheels turn with the distance instead.
_CADENCE = {"walking": 0.95, "running": 1.5, "crossing": 1.3, "riding": 0.8}
_WHEEL_TURNS = {"driving": 2.2, "stopping": 1.0}


class TimedEvent(NamedTuple):
    """Something that is true during `[start_seconds, end_seconds)`."""

    name: str
    start_seconds: float
    end_seconds: float


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


def script_video(
    seed: int, seconds: float = 40.0, size: tuple[int, int] = (320, 240), *, split: str = "test"
) -> VideoScript:
    """Write a script; equal arguments give equal scripts, and no seed gives the same script in two splits.

    Args:
        seed: which script of the split.
        seconds: its length, at least 5.
        size: (width, height) of the picture in even numbers of pixels, at least 64.
        split: `train`, `dev` or `test`; most colours are chosen so that their combination with the time of day and
            the weather belongs to the split.

    Raises:
        DataError: an unknown split, a length below 5 seconds, or a size that H.264 cannot hold.
    """
    from vlmquant.streetworld.acts import write_script

    if split not in SPLITS:
        raise unknown(DataError, "split", split, SPLITS)
    if seconds < 5:
        raise DataError(f"a script of {seconds} seconds is too short for an event; use at least 5")
    if min(size) < 64 or any(side % 2 for side in size):
        raise DataError(f"video size {size[0]}x{size[1]} is not possible; use even numbers from 64 on")
    return write_script(np.random.default_rng([SPLITS.index(split), 31, seed]), seconds, size, split)


def scene_at(script: VideoScript, seconds: float) -> Scene:
    """Return the scene at a time, with every actor that is near the picture, visible or not."""
    actors = tuple(actor for role in script.roles if (actor := role.at(seconds)) is not None)
    frame = round(seconds * FRAMES_PER_SECOND)
    # A new seed for every frame redraws noise and flakes; multiples of BACKGROUNDS keep the scenery.
    return Scene(
        time=script.time, weather=script.weather, road=script.road, side=script.side,
        actors=actors, seed=script.seed + BACKGROUNDS * frame,
    )  # fmt: skip


def truth(script: VideoScript) -> list[TimedEvent]:
    """Return every event of `EVENT_NAMES`, by start time.

    An actor counts while its middle is inside the central square of the picture (`Actor.visible`). Times are exact to
    one frame.
    """
    times = np.arange(script.frames) / FRAMES_PER_SECOND
    scenes = [_visible(scene_at(script, float(t))) for t in times]
    events = [
        TimedEvent(name, start / FRAMES_PER_SECOND, end / FRAMES_PER_SECOND)
        for name, statement in STATEMENTS.items()
        for start, end in _runs([statement.holds(scene) for scene in scenes])
    ]
    return sorted(events, key=lambda event: (event.start_seconds, event.name))


def _visible(scene: Scene) -> Scene:
    actors = tuple(actor for actor in scene.actors if actor.visible)
    return Scene(
        time=scene.time, weather=scene.weather, road=scene.road, side=scene.side, actors=actors, seed=scene.seed
    )


def _runs(holds: Sequence[bool]) -> list[tuple[int, int]]:
    """Return [start, end) of the runs of True: short interruptions closed first, then short runs dropped."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], np.asarray(holds, bool), [False]]).astype(np.int8)))
    shortest = round(SHORTEST_EVENT_SECONDS * FRAMES_PER_SECOND)
    runs: list[tuple[int, int]] = []
    for start, end in edges.reshape(-1, 2).tolist():
        if runs and start - runs[-1][1] < shortest:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    return [(start, end) for start, end in runs if end - start >= shortest]


def write_video(path: str | Path, script: VideoScript, track: Track = silent) -> Path:
    """Render a script to an H.264 MP4 of 25 frames per second, with camera noise and slowly drifting light.

    Returns the path. The file appears when it is complete. Raises DataError when it cannot be written.
    """
    import av

    from vlmquant.streetworld.render import render

    path = Path(path)
    unfinished = path.with_name(f".{path.name}.unfinished")
    drift = np.random.default_rng([script.seed, 6]).uniform(0, 2 * np.pi, 2)
    try:
        with av.open(str(unfinished), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            options = {"preset": "veryfast", "crf": "26"}
            stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=options)
            stream.width, stream.height = script.size
            stream.pix_fmt = "yuv420p"
            stream.codec_context.time_base = Fraction(1, FRAMES_PER_SECOND)
            stream.codec_context.thread_count = 1
            for frame in track(range(script.frames), "rendering the video", script.frames):
                seconds = frame / FRAMES_PER_SECOND
                waves = np.sin(2 * np.pi * seconds / np.array([17.0, 7.0]) + drift)
                gain = 1.0 + float(waves @ (0.05, 0.02))
                picture = av.VideoFrame.from_ndarray(render(scene_at(script, seconds), script.size, gain=gain), "rgb24")
                picture.pts, picture.time_base = frame, Fraction(1, FRAMES_PER_SECOND)
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
        os.replace(unfinished, path)
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"{path} cannot be written: {error.strerror}; choose a folder with room and access") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return path
