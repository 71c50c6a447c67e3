"""Fixtures that more than one test folder uses."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vlmquant.checkpoints.calibration_set import CalibrationSet

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

if importlib.util.find_spec("torch"):
    import torch

    torch.set_num_threads(1)


LONGEST = ("test_docs", "test_detect", "test_blip_bundle", "test_proving", "test_placement", "test_by_component")
"""The files that take minutes: they go first, so that no worker is left alone with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests remember apart from the user's, and choose engines without timing them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("VLMQUANT_AUTO", "table")
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photographs, videos and fixtures beside the project; not part of the repository."""
    if not SHARED.is_dir():
        pytest.skip("the shared data folder is not beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder of a very small CLIP with seeded random weights."""
    from fakes import tiny_clip_folder

    return tiny_clip_folder(tmp_path_factory.mktemp("tiny") / "clip")


@pytest.fixture(scope="session")
def calibration() -> CalibrationSet:
    """Eight pictures of noise and the built-in prompts."""
    from vlmquant.models.prompts import BUILTIN_PROMPTS

    generator = np.random.default_rng(3)
    images = tuple(generator.integers(0, 256, (48, 48, 3), dtype=np.uint8) for _ in range(8))
    return CalibrationSet(images=images, texts=BUILTIN_PROMPTS, images_from="noise", texts_from="built-in")


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Path, calibration: CalibrationSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The static INT8 bundle of `tiny_checkpoint`; do not change it, copy it."""
    from vlmquant.build.build import quantize_model
    from vlmquant.checkpoints import load_model
    from vlmquant.quantize.recipes.presets import get_recipe

    output = tmp_path_factory.mktemp("bundle") / "tiny"
    return quantize_model(load_model(str(tiny_checkpoint)), get_recipe("static-int8"), calibration, output)
