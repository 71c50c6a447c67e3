import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vlmquant.checkpoints import load_model
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.errors import RecipeError
from vlmquant.lab.stress import stressed
from vlmquant.quantize.apply import quantize_by_damage
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.recipes.schemes import OutlierHandling, WeightScheme
from vlmquant.quantize.sensitivity import layer_sensitivity, site_macs
from vlmquant.quantize.sites import sites


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> ClipModel:
    return load_model(str(tiny_checkpoint))


@pytest.fixture(scope="module")
def hard(model: ClipModel) -> ClipModel:
    return stressed(model)


@pytest.fixture(scope="module")
def pixels(model: ClipModel) -> list[Tensor]:
    size = (model.image_spec.crop_height, model.image_spec.crop_width)
    return [torch.randn(8, 3, *size, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]


def test_multiplications_are_counted_by_hand() -> None:
    tower = nn.Sequential(nn.Conv2d(3, 4, 2, stride=2), nn.Flatten(2), nn.Linear(4, 5))
    # 4 channels of 2 x 2 pixels, each 3 * 2 * 2 products; 4 rows of 5 outputs, each 4 products
    assert site_macs(tower, ["0", "2"], torch.zeros(1, 3, 4, 4)) == {"0": 16 * 12, "2": 20 * 4}


def test_every_site_is_measured_once_and_the_worst_comes_first(model: ClipModel, pixels: list[Tensor]) -> None:
    recipe = Recipe(name="x", description="y", weights=WeightScheme(bits=4))
    before = copy.deepcopy(model.image_tower.state_dict())
    found = layer_sensitivity(model.image_tower, recipe, pixels, "test")
    assert {layer.site for layer in found} == set(sites(model.image_tower, recipe))
    losses = [layer.cosine_loss for layer in found]
    assert losses == sorted(losses, reverse=True)
    assert 0 < losses[-1] < losses[0] < 1
    assert all(0 < layer.rank_agreement <= 1 for layer in found)
    assert all(torch.equal(before[key], value) for key, value in model.image_tower.state_dict().items())


def test_bytes_are_those_of_integers_and_scales(model: ClipModel, pixels: list[Tensor]) -> None:
    four = layer_sensitivity(model.image_tower, get_recipe("w4a8"), pixels, "test")
    layer = next(layer for layer in four if layer.site.endswith("mlp.fc1"))
    assert (layer.float_bytes, layer.weight_bytes) == (4 * 32 * 128, 32 * 128 // 2 + 4 * 128)


def test_half_precision_does_next_to_no_harm(model: ClipModel, pixels: list[Tensor]) -> None:
    found = layer_sensitivity(model.image_tower, get_recipe("fp16"), pixels, "test")
    assert {layer.site for layer in found} == set(sites(model.image_tower, get_recipe("fp16")))
    assert all(layer.cosine_loss < 1e-5 and 2 * layer.weight_bytes == layer.float_bytes for layer in found)


def test_the_layers_that_were_made_hard_are_the_worst(hard: ClipModel, pixels: list[Tensor]) -> None:
    recipe = replace(get_recipe("static-int8"), smoothing=True)
    found = layer_sensitivity(hard.image_tower, recipe, pixels, "test")
    assert found[0].site.endswith("mlp.fc2")
    assert found[0].cosine_loss > 10 * found[3].cosine_loss


def test_nothing_stays_float_in_an_ordinary_model(model: ClipModel, pixels: list[Tensor]) -> None:
    recipe = get_recipe("static-int8")
    _, carried_out = quantize_by_damage(model.image_tower, recipe, pixels, "test")
    assert carried_out == replace(recipe, outliers=None)


def test_a_hard_model_keeps_its_worst_layers_float_by_name(hard: ClipModel, pixels: list[Tensor]) -> None:
    recipe = get_recipe("static-int8")
    tower, carried_out = quantize_by_damage(hard.image_tower, recipe, pixels, "test")
    with torch.inference_mode():
        cosine = nn.functional.cosine_similarity(tower(pixels[0]), hard.image_tower(pixels[0]))
    assert carried_out.smoothing
    assert 1 <= len(carried_out.keep_float) <= 4
    assert all(isinstance(tower.get_submodule(name), nn.Linear) for name in carried_out.keep_float)
    assert cosine.mean() > 0.998
    none = replace(recipe, outliers=OutlierHandling(worst_layers_float=0))
    assert quantize_by_damage(hard.image_tower, none, pixels, "test")[1].keep_float == ()


def test_outlier_handling_is_part_of_the_recipes_file() -> None:
    recipe = replace(get_recipe("static-int8"), outliers=OutlierHandling(worst_layers_float=2))
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    with pytest.raises(RecipeError, match="worst_layers"):
        Recipe.from_dict({**recipe.to_dict(), "outliers": {"worst_layers": 2}})
    with pytest.raises(RecipeError, match="between 0 and 1"):
        OutlierHandling(tolerated_damage=2)
