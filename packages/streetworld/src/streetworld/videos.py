"""Scripted street videos with exact, timed ground truth.

What is true at a moment is read off the scene at that moment, with the same statements that captions are made of
(`captions.FIXED`).
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from streetworld.acts import write_script
from streetworld.captions import FIXED
from streetworld.scene import BACKGROUNDS, SPLITS, Scene
from streetworld.script import FRAMES_PER_SECOND, VideoScript
from streetworld.statements import Statement
from vlmquant.errors import DataError, unknown
from vlmquant.progress import Track, silent

__all__ = [
    "EVENT_NAMES",
    "STATEMENTS",
    "STATE_EVENTS",
    "TimedEvent",
    "VideoScript",
    "scene_at",
    "script_video",
    "truth",
    "write_video",
]

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
"""What lasts less is not an event, and an interruption that lasts less does not end one."""


class TimedEvent(NamedTuple):
    """Something that is true during `[start_seconds, end_seconds)`."""

    name: str
    start_seconds: float
    end_seconds: float


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

    An actor counts while its middle is inside the central square of the picture (`Actor.visible`); the street is empty
    when no part of anybody is inside (`Actor.partly_visible`). Times are exact to one frame.
    """
    scenes = [scene_at(script, frame / FRAMES_PER_SECOND) for frame in range(script.frames)]
    events = [
        TimedEvent(name, start / FRAMES_PER_SECOND, end / FRAMES_PER_SECOND)
        for name, statement in STATEMENTS.items()
        for start, end in _runs([statement.holds(_counted(scene, statement)) for scene in scenes])
    ]
    return sorted(events, key=lambda event: (event.start_seconds, event.name))


def _counted(scene: Scene, statement: Statement) -> Scene:
    """Return the scene with the actors that count for the statement."""
    about_emptiness = statement.empty is not None
    actors = tuple(a for a in scene.actors if (a.partly_visible if about_emptiness else a.visible))
    return replace(scene, actors=actors)


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

    from streetworld.render import render

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
