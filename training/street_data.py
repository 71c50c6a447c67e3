"""Training data for the street CLIP: pictures rendered once to a memory map, texts and their truth drawn per batch."""

import io
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from streetworld.captions import FIXED, short_statement, vary_caption
from streetworld.dataset import scenes
from streetworld.render import render
from streetworld.scene import (
    ALL_COLOURS,
    ALL_STATES,
    COLOURS,
    DIRECTIONS,
    KINDS,
    ROADS,
    SIDES,
    STATES,
    TIMES,
    VEHICLES,
    WEATHERS,
    Scene,
)
from streetworld.statements import Phrase, Statement

SIZE = 128
SEED = 1
# Pictures come to the model at many sizes and compressed: half of the training pictures are drawn larger and reduced.
DRAWN_SIZES = (128, 128, 128, 160, 224, 240)
JPEG_SHARE = 0.4
PLACES = ("left", "centre", "right")


def picture(scene: Scene) -> np.ndarray:
    """Return the training picture of a scene: uint8 (128, 128, 3)."""
    rng = np.random.default_rng([scene.seed, 21])
    image = Image.fromarray(render(scene, int(rng.choice(DRAWN_SIZES))))
    if image.width != SIZE:
        image = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    if rng.random() < JPEG_SHARE:
        packed = io.BytesIO()
        image.save(packed, "JPEG", quality=int(rng.integers(35, 90)))
        image = Image.open(packed).convert("RGB")
    return np.asarray(image)


def _render_part(path: Path, chosen: list[Scene], start: int, total: int) -> None:
    pixels = np.lib.format.open_memmap(path, "r+")
    for offset, scene in enumerate(chosen):
        pixels[start + offset] = picture(scene)


def prepare(folder: Path, count: int, workers: int) -> tuple[list[Scene], np.ndarray]:
    """Return the training scenes and their pictures (count, 128, 128, 3), rendering those that are not there yet."""
    chosen = scenes(count, "train", SEED)
    path, done = folder / f"street-{count}.npy", folder / f"street-{count}.done"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        np.lib.format.open_memmap(path, "w+", np.uint8, (count, SIZE, SIZE, 3)).flush()
        part = 1000
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            jobs = [
                pool.submit(_render_part, path, chosen[start : start + part], start, count)
                for start in range(0, count, part)
            ]
            for job in jobs:
                job.result()
        done.touch()
    return chosen, np.load(path, mmap_mode="r")


# --- truth of many statements on many scenes at once; `Statement.holds` is the definition, a test compares them ---

_ANY, _NOTHING = -1, 99
_SCENE_VALUES = {"time": TIMES, "weather": WEATHERS, "road": ROADS, "side": SIDES}
_PHRASE_VALUES = {"colour": ALL_COLOURS, "state": ALL_STATES, "direction": DIRECTIONS, "place": PLACES}
_MOST_ACTORS, _MOST_PHRASES = 10, 3


def encode_scenes(chosen: list[Scene]) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 (n, 6) of the surroundings and int8 (n, 10, 7) of the actors."""
    around = np.empty((len(chosen), 6), np.int8)
    actors = np.full((len(chosen), _MOST_ACTORS, 7), _NOTHING, np.int8)
    for row, scene in enumerate(chosen):
        around[row] = [*(v.index(getattr(scene, k)) for k, v in _SCENE_VALUES.items()), scene.crowded, scene.empty]
        for column, actor in enumerate(scene.actors):
            actors[row, column] = [
                KINDS.index(actor.kind),
                actor.kind in VEHICLES,
                *(values.index(getattr(actor, name)) for name, values in _PHRASE_VALUES.items()),
                actor.near,
            ]
    return around, actors


def _encode_phrase(phrase: Phrase) -> list[int]:
    def index(value: object, values: tuple) -> int:
        return _ANY if value is None else values.index(value)

    return [
        _ANY if phrase.kind == "vehicle" else KINDS.index(phrase.kind),
        1 if phrase.kind == "vehicle" else _ANY,
        *(index(getattr(phrase, name), values) for name, values in _PHRASE_VALUES.items()),
        index(phrase.near, (False, True)),
    ]


def truth(around: np.ndarray, actors: np.ndarray, statements: list[Statement]) -> np.ndarray:
    """Return bool (scenes, statements)."""
    wanted = np.full((len(statements), 6), _ANY, np.int8)
    phrases = np.full((len(statements), _MOST_PHRASES + 1, 7), _ANY, np.int8)
    used = np.zeros((len(statements), _MOST_PHRASES + 1), bool)
    for row, s in enumerate(statements):
        values = [_ANY if getattr(s, k) is None else v.index(getattr(s, k)) for k, v in _SCENE_VALUES.items()]
        wanted[row] = [*values, *(_ANY if flag is None else int(flag) for flag in (s.crowded, s.empty))]
        for column, phrase in [*enumerate(s.seen), *((_MOST_PHRASES, p) for p in s.absent)]:
            phrases[row, column], used[row, column] = _encode_phrase(phrase), True
    holds = np.ones((len(around), len(statements)), bool)
    for k in range(6):
        holds &= (wanted[None, :, k] == _ANY) | (wanted[None, :, k] == around[:, None, k])
    for column in range(_MOST_PHRASES + 1):
        rows = np.flatnonzero(used[:, column])
        fits = np.ones((len(around), _MOST_ACTORS, len(rows)), bool)
        for k in range(7):
            value = phrases[rows, column, k]
            fits &= (value == _ANY) | (value == actors[:, :, k, None])
        seen = fits.any(1)
        holds[:, rows] &= ~seen if column == _MOST_PHRASES else seen
    return holds


def batch_statements(chosen: list[Scene], rng: np.random.Generator) -> list[Statement]:
    """Return a caption of every scene, a short statement for every second one, and all fixed phrases, in this order."""
    full = [vary_caption(scene, int(rng.integers(5)), rng) for scene in chosen]
    short = [short_statement(scene, rng) for scene in chosen[::2]]
    return [*full, *short, *FIXED]


# --- what the auxiliary heads are asked during training ---


def attribute_statements() -> list[Statement]:
    """Return elementary statements; their truth is the target of the auxiliary classifier on the picture."""
    found = [Statement(text="", **{k: v}) for k, values in _SCENE_VALUES.items() for v in values]
    found += [Statement(text="", crowded=True), Statement(text="", empty=True)]
    for kind in KINDS:
        parts: dict[str, tuple] = {
            "colour": COLOURS[kind],
            "state": STATES[kind],
            "direction": DIRECTIONS,
            "place": PLACES,
            "near": (True, False),
        }
        asked = [{}] + [{name: value} for name, values in parts.items() for value in values]
        for one, other in (("colour", "state"), ("state", "direction"), ("state", "place"), ("colour", "place")):
            asked += [{one: a, other: b} for a in parts[one] for b in parts[other]]
        found += [Statement(text="", seen=(Phrase(kind=kind, **values),)) for values in asked]
    return found


def attribute_weights(statements: list[Statement]) -> np.ndarray:
    """Return float32 (statements,): what people and dogs do weighs most, as a few pixels of a limb decide it."""

    def weight(statement: Statement) -> float:
        if len(statement.seen) != 1 or statement.seen[0] != Phrase(
            kind=statement.seen[0].kind, state=statement.seen[0].state
        ):
            return 1.0
        return 25.0 if statement.seen[0].kind in ("person", "dog") else 5.0

    return np.array([weight(statement) for statement in statements], np.float32)
