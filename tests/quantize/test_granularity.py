import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vlmquant.checkpoints import load_model
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.errors import RecipeError
from vlmquant.quantize.apply import quantize_tower
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.quantize.recipes.recipe import Recipe, simulation_only
from vlmquant.quantize.recipes.schemes import ActivationScheme, WeightScheme
from vlmquant.quantize.rounding import FakeQuantize, PerHead, TwinFakeQuantize


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> ClipModel:
    return load_model(tiny_checkpoint)


@pytest.fixture(scope="module")
def pixels() -> list[Tensor]:
    return [torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]


def recipe(granularity: str, **others: object) -> Recipe:
    return Recipe(
        name="x",
        description="y",
        weights=WeightScheme(bits=16),
        activations=ActivationScheme(bits=4, granularity=granularity),  # type: ignore[arg-type]
        attention_matmuls=True,
        **others,  # type: ignore[arg-type]
    )


def test_each_head_gets_its_own_grid(model: ClipModel, pixels: list[Tensor]) -> None:
    result = quantize_tower(model.image_tower, recipe("head"), pixels, "test")
    operands = [module for module in result.modules() if isinstance(module, PerHead)]
    assert len(operands) == 2 * 2 * 2, "two layers of two products of two operands"
    grids = [[head.grid for head in operand.heads if isinstance(head, FakeQuantize)] for operand in operands]
    assert all(len(heads) == 2 and heads[0] != heads[1] for heads in grids)


def test_a_loud_head_no_longer_drowns_a_quiet_one(model: ClipModel, pixels: list[Tensor]) -> None:
    """One head's queries times 30 and keys divided by it: the float model is the same, the shared range is not."""
    tower = copy.deepcopy(model.image_tower)
    for layer in tower.vision_model.encoder.layers:  # type: ignore[union-attr]
        half = layer.self_attn.head_dim
        for projection, factor in ((layer.self_attn.q_proj, 30.0), (layer.self_attn.k_proj, 1 / 30)):
            projection.weight[:half] *= factor
            projection.bias[:half] *= factor
    found = {}
    for granularity in ("tensor", "head"):
        result = quantize_tower(
            tower, recipe(granularity, keep_float=("*proj*", "*fc?", "*embedding", "*values_product")), pixels, "test"
        )
        with torch.inference_mode():
            found[granularity] = float((result(pixels[0]) - tower(pixels[0])).square().mean())
    assert found["head"] < 0.5 * found["tensor"]


def test_twin_and_search_work_head_by_head(model: ClipModel, pixels: list[Tensor]) -> None:
    result = quantize_tower(model.image_tower, recipe("head", twin=True, search="hessian"), pixels, "test")
    shares = [module.values_product.left for module in result.modules() if hasattr(module, "values_product")]
    assert all(isinstance(head, TwinFakeQuantize) for operand in shares for head in operand.heads)


def test_what_cannot_be_per_head_is_refused() -> None:
    with pytest.raises(RecipeError, match="attention_matmuls"):
        Recipe(name="x", description="y", activations=ActivationScheme(granularity="head"))
    with pytest.raises(RecipeError, match="per-token"):
        ActivationScheme(granularity="head", ranges="per-token")
    with pytest.raises(RecipeError, match="unknown activation granularity 'row'"):
        ActivationScheme(granularity="row")  # type: ignore[arg-type]


def test_engines_cannot_take_it_and_the_recipe_says_so() -> None:
    assert "one grid" in str(
        simulation_only(recipe("head").__class__.from_dict({**recipe("head").to_dict(), "weights": {"bits": 8}}))
    )
    assert simulation_only(get_recipe("static-int8")) is None
