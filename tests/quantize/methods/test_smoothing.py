import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vlmquant.checkpoints import load_model
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.quantize.apply import quantize_tower
from vlmquant.quantize.calibrate import mean_output_errors
from vlmquant.quantize.methods.smoothing import fold, places, smoothing_scales
from vlmquant.quantize.recipes.recipe import Recipe


@pytest.fixture
def model(tiny_checkpoint: Path) -> ClipModel:
    return load_model(str(tiny_checkpoint))


@pytest.fixture
def pixels(model: ClipModel) -> list[Tensor]:
    size = (model.image_spec.crop_height, model.image_spec.crop_width)
    return [torch.randn(8, 3, *size, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]


def test_scales_share_the_difficulty_out_by_hand() -> None:
    inputs, weight = torch.tensor([[4.0, -1.0], [2.0, 0.5]]), torch.tensor([[1.0, 1.0], [0.5, -0.25]])
    # sqrt(4 / 1) and sqrt(1 / 1), divided by their geometric mean sqrt(2)
    assert smoothing_scales(inputs, [weight], 0.5).tolist() == pytest.approx([2**0.5, 0.5**0.5])


def test_folding_changes_no_float_output(model: ClipModel, pixels: list[Tensor]) -> None:
    tower = copy.deepcopy(model.image_tower)
    found = places(tower)
    assert len(found) == 3 * len(tower.vision_model.encoder.layers)
    for seed, place in enumerate(found):
        width = tower.get_submodule(place.readers[0]).get_parameter("weight").shape[1]
        fold(tower, place, torch.rand(width, generator=torch.Generator().manual_seed(seed)) * 4 + 0.1)
    with torch.inference_mode():
        before, after = model.image_tower(pixels[0]), tower(pixels[0])
    assert torch.allclose(before, after, rtol=1e-4, atol=1e-5 * float(before.abs().max()))


def test_smoothing_saves_a_model_with_outlier_channels(model: ClipModel, pixels: list[Tensor]) -> None:
    tower = model.image_tower
    for place in places(tower):
        gains = torch.ones(tower.get_submodule(place.readers[0]).get_parameter("weight").shape[1])
        gains[::16] = 1 / 200
        fold(tower, place, gains)
    errors = []
    for smoothing in (False, True):
        result = quantize_tower(tower, Recipe(name="x", description="y", smoothing=smoothing), pixels, "test")
        with torch.inference_mode():
            similarity = nn.functional.cosine_similarity(result(pixels[0]), tower(pixels[0]))
        errors.append(float((1 - similarity).mean()))
    assert errors[1] < 0.2 * errors[0], errors


class Shifted(nn.Module):
    """A linear map that gives 0.25 and 0.5 too much."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, values: Tensor) -> Tensor:
        return self.linear(values) + torch.tensor([0.25, 0.5])


def test_mean_output_errors_by_hand() -> None:
    tower = nn.Sequential(nn.Linear(3, 2))
    found = mean_output_errors(
        tower, {"0": Shifted(copy.deepcopy(tower[0]))}, [torch.randn(4, 3), torch.randn(2, 3)], "test"
    )
    assert found["0"].tolist() == pytest.approx([0.25, 0.5], abs=1e-6)


def test_bias_correction_takes_the_mean_error_of_an_output_away() -> None:
    torch.manual_seed(0)
    tower = nn.Sequential(nn.Linear(16, 4, bias=False)).requires_grad_(False)
    inputs = [torch.rand(32, 16) + 1]
    biased = []
    for correction in (False, True):
        recipe = Recipe(name="x", description="y", bias_correction=correction)
        recipe = Recipe.from_dict({**recipe.to_dict(), "weights": {"bits": 3}})
        result = quantize_tower(tower, recipe, inputs, "test")
        with torch.inference_mode():
            biased.append(float((result(inputs[0]) - tower(inputs[0])).mean(dim=0).abs().max()))
    assert biased[0] > 0.01
    assert biased[1] < 1e-5
