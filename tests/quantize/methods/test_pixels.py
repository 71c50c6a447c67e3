"""The patch embedding reads bytes: nothing changes in float, and nothing is rounded in integers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vlmquant import get_recipe, load_model
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.errors import RecipeError
from vlmquant.models.preprocess import preprocess
from vlmquant.quantize.apply import plan_tower
from vlmquant.quantize.methods.pixels import patch_embedding, read_bytes
from vlmquant.quantize.modules import QuantizedConv2d, QuantizedLinear
from vlmquant.quantize.recipes.schemes import ActivationScheme
from vlmquant.quantize.rounding import FakeQuantize

PATCHES = "vision_model.embeddings.patch_embedding"
PLAIN = replace(get_recipe("static-int8"), outliers=None)


@pytest.fixture
def model(tiny_checkpoint: Path) -> ClipModel:
    return load_model(tiny_checkpoint)


@pytest.fixture
def pixels(model: ClipModel) -> torch.Tensor:
    pictures = np.random.default_rng(0).integers(20, 200, (4, 50, 40, 3), dtype=np.uint8)
    return torch.from_numpy(np.stack([preprocess(picture, model.image_spec) for picture in pictures]))


def test_the_float_features_stay(model: ClipModel, pixels: torch.Tensor) -> None:
    with torch.inference_mode():
        before = model.image_tower(pixels)
        read_bytes(model.image_tower, PATCHES)
        torch.testing.assert_close(model.image_tower(pixels), before, atol=1e-5, rtol=1e-5)


def test_rounding_to_bytes_changes_no_patch(model: ClipModel, pixels: torch.Tensor) -> None:
    plan = plan_tower(model.image_tower, PLAIN, [pixels], "t")
    layer = plan.modules[PATCHES]
    assert isinstance(layer, QuantizedConv2d)
    assert isinstance(plan.tower.pixels(pixels), torch.Tensor)
    as_bytes = 255 * plan.tower.pixels(pixels)
    torch.testing.assert_close(as_bytes, as_bytes.round(), atol=1e-3, rtol=0)
    torch.testing.assert_close(255 * layer.rounding(plan.tower.pixels(pixels)), as_bytes, atol=1e-3, rtol=0)


def test_other_widths_and_recipes_round_normalized_pixels(model: ClipModel, pixels: torch.Tensor) -> None:
    for recipe in (replace(PLAIN, activations=ActivationScheme(bits=6)), get_recipe("vanilla-w8a8")):
        plan = plan_tower(model.image_tower, recipe, [pixels], "t")
        assert isinstance(plan.tower.pixels, torch.nn.Identity)
    assert patch_embedding(model.text_tower) is None


def test_a_projection_with_float_inputs_has_integer_weights(model: ClipModel, pixels: torch.Tensor) -> None:
    modules = plan_tower(model.image_tower, PLAIN, [pixels], "t").modules
    projection = modules["visual_projection"]
    assert isinstance(projection, QuantizedLinear)
    assert isinstance(projection.rounding, torch.nn.Identity)
    assert projection.weight_integers.dtype == torch.int8
    rounded = [m for m in modules.values() if isinstance(m, QuantizedLinear) and isinstance(m.rounding, FakeQuantize)]
    assert len(rounded) == 6 * len(model.image_tower.vision_model.encoder.layers)


def test_what_float_inputs_and_bytes_cannot_go_with_is_said() -> None:
    with pytest.raises(RecipeError, match="float_inputs need static ranges"):
        replace(get_recipe("dynamic-int8"), float_inputs=("*",))
    with pytest.raises(RecipeError, match="byte_pixels needs static"):
        replace(get_recipe("dynamic-int8"), byte_pixels=True)
