"""Data sets of street scenes with exact truth, each a pure function of its split, size and seed."""

from vlmquant.streetworld.scene import SPLITS, Scene, sample_scene

import numpy as np


def scenes(count: int, split: str = "test", seed: int = 0) -> list[Scene]:
    """Return `count` scenes; scene i depends on (split, seed, i) only, so a longer list begins with the shorter."""
    index = SPLITS.index(split) if split in SPLITS else -1
    return [sample_scene(np.random.default_rng([max(index, 0), seed, i]), split) for i in range(count)]
