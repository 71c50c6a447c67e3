"""A small labelled set of pictures of noise, and the tiny model with it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlmquant.checkpoints import load_model
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.data.reader import read
from vlmquant.data.sets import ImageSet


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """Three classes with five pictures of noise each."""
    folder = tmp_path_factory.mktemp("sweep") / "noise"
    rng = np.random.default_rng(0)
    for name in ("bus", "street", "tree"):
        (folder / name).mkdir(parents=True)
        for i in range(5):
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / name / f"{i}.png")
    return read(folder)


@pytest.fixture(scope="session")
def model(tiny_checkpoint: Path) -> ClipModel:
    """The tiny CLIP."""
    return load_model(tiny_checkpoint)
