"""Full-size architectures with random weights: bytes, time and INT8 shares do not depend on what the weights are."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from vlmquant.checkpoints import load_model
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.random_weights import random_checkpoint
from vlmquant.lab.reproduce.dq_clip.quantized_towers import bundle_once
from vlmquant.lab.reproduce.kept import Kept
from vlmquant.models.prompts import BUILTIN_PROMPTS, BUILTIN_PROMPTS_NAME
from vlmquant.progress import Track
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.quantize.recipes.recipe import Recipe

ARCHITECTURES = {"B/32": "ViT-B-32", "B/16": "ViT-B-16"}
RESNET = "RN50"
NOISE_PICTURES = 4


def plain(name: str) -> Recipe:
    """Return a recipe without what only serves accuracy, which random weights have none of."""
    recipe = get_recipe(name)
    return replace(recipe, outliers=None, weights=replace(recipe.weights, kernel_rounding="nearest"))


def random_bundle(
    kept: Kept, architecture: str, recipe: str, track: Track, components: tuple[str, ...] | None = None
) -> tuple[Path, Path]:
    """Return a checkpoint of `architecture` and its bundle by `recipe`, both with random weights."""
    checkpoint = kept.place / architecture
    if not checkpoint.exists():
        random_checkpoint(architecture, checkpoint)
    name = f"{recipe} {architecture}"
    return checkpoint, bundle_once(kept, name, lambda: load_model(checkpoint), plain(recipe), _noise, components, track)


def _noise() -> CalibrationSet:
    generator = np.random.default_rng(0)
    images = tuple(generator.integers(0, 256, (224, 224, 3), dtype=np.uint8) for _ in range(NOISE_PICTURES))
    return CalibrationSet(images, BUILTIN_PROMPTS, f"{NOISE_PICTURES} pictures of noise", BUILTIN_PROMPTS_NAME)
