from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vlmquant.checkpoints import load_model
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.quantize.apply import quantize_tower
from vlmquant.quantize.attention import make_attention_explicit
from vlmquant.quantize.methods.ranges import input_roundings
from vlmquant.quantize.methods.scales import observe_importance, search_scales
from vlmquant.quantize.methods.step import Calibration
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.recipes.schemes import ActivationScheme, WeightScheme
from vlmquant.quantize.rounding import TwinFakeQuantize
from vlmquant.quantize.sites import sites


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> ClipModel:
    return load_model(str(tiny_checkpoint))


@pytest.fixture(scope="module")
def pixels(model: ClipModel) -> list[Tensor]:
    size = (model.image_spec.crop_height, model.image_spec.crop_width)
    return [torch.randn(8, 3, *size, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]


def ids() -> Tensor:
    return torch.cat(
        [torch.randint(2, 600, (3, 6), generator=torch.Generator().manual_seed(0)), torch.full((3, 1), 639)], 1
    )


def test_explicit_attention_changes_no_output(tiny_checkpoint: Path, pixels: list[Tensor]) -> None:
    before, after = load_model(str(tiny_checkpoint)), load_model(str(tiny_checkpoint))
    make_attention_explicit(after.image_tower)
    make_attention_explicit(after.text_tower)
    with torch.inference_mode():
        assert torch.allclose(before.image_tower(pixels[0]), after.image_tower(pixels[0]), atol=1e-6)
        assert torch.allclose(before.text_tower(ids()), after.text_tower(ids()), atol=1e-6)


def test_the_gradient_that_weighs_errors_is_not_zero(model: ClipModel, pixels: list[Tensor]) -> None:
    recipe = get_recipe("static-int8")
    for tower, inputs in ((model.image_tower, pixels), (model.text_tower, [ids()])):
        seen = observe_importance(tower, sites(tower, recipe), inputs, "test")
        norms = {site: float(found.importance.sum().sqrt()) for site, found in seen.items()}
        assert min(norms.values()) > 1e-4, norms
        assert not any(parameter.requires_grad for parameter in tower.parameters())


def test_twin_roundings_stand_behind_gelu_and_softmax(model: ClipModel, pixels: list[Tensor]) -> None:
    result = quantize_tower(model.image_tower, get_recipe("twin-hessian-w6a6"), pixels, "test")
    twins = {name.split(".", 4)[-1] for name, module in result.named_modules() if isinstance(module, TwinFakeQuantize)}
    assert twins == {"self_attn.values_product.left", "mlp.fc2.rounding"}


def test_the_search_lowers_the_weighted_error_it_is_about(pixels: list[Tensor], model: ClipModel) -> None:
    recipe = Recipe(
        name="x",
        description="y",
        weights=WeightScheme(bits=4),
        activations=ActivationScheme(bits=4, observer="minmax"),
        search="hessian",
    )
    tower = model.image_tower
    names = sites(tower, recipe)
    roundings = input_roundings(tower, recipe, Calibration(pixels, "test"))
    searched = search_scales(tower, dict.fromkeys(names, recipe.weights), names, roundings, pixels, "test")
    plain = quantize_tower(
        tower, Recipe(name="x", description="y", weights=recipe.weights, activations=recipe.activations), pixels, "t"
    )
    better = quantize_tower(tower, recipe, pixels, "t")
    assert set(searched[1]) == set(names)
    with torch.inference_mode():
        wanted = tower(pixels[0])
        errors = [
            float((1 - nn.functional.cosine_similarity(found(pixels[0]), wanted)).mean()) for found in (plain, better)
        ]
    assert errors[1] < 0.8 * errors[0]


def test_texts_of_several_lengths_are_searched_together(model: ClipModel) -> None:
    texts = [ids(), ids()[:, 3:]]
    result = quantize_tower(model.text_tower, get_recipe("twin-hessian-w8a8"), texts, "test")
    with torch.inference_mode():
        for batch in texts:
            assert nn.functional.cosine_similarity(result(batch), model.text_tower(batch)).min() > 0.99


def test_portable_kernels_of_several_pixels_are_searched_on_their_own_grid() -> None:
    torch.manual_seed(0)
    tower = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 36, 8))
    batches = [torch.rand(4, 3, 6, 6) for _ in range(2)]
    errors = {}
    for portable in (True, False):
        weights = WeightScheme(portable=portable)
        recipe = Recipe(name="x", description="y", weights=weights, search="hessian")
        kernel = quantize_tower(tower, recipe, batches, "t").get_submodule("0").weight
        original = tower[0].weight.detach()
        errors[portable] = float((kernel.detach() - original).norm() / original.norm())
    assert errors[True] < 3 * errors[False]  # 7 bits against 8; clipped to half its range it is far more
