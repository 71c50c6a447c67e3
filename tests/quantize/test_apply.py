import copy
import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from vlmquant.errors import CalibrationError
from vlmquant.quantize.affine import asymmetric_grid
from vlmquant.quantize.apply import quantize_tower
from vlmquant.quantize.calibrate import input_histograms
from vlmquant.quantize.modules import (
    IntegerEmbedding,
    PerTokenLinear,
    QuantizedLinear,
    QuantizedPatches,
    linear_per_token,
)
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.recipes.schemes import WeightScheme
from vlmquant.quantize.rounding import FakeQuantize
from vlmquant.quantize.sites import sites
from vlmquant.quantize.weights import round_nearest, weight_scales


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 2, stride=2, bias=False)
        self.first = nn.Linear(8, 16)
        self.second = nn.Linear(16, 4)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        tokens = self.conv(pixels).flatten(2).transpose(1, 2)
        return self.second(torch.relu(self.first(tokens))).mean(dim=1)


@pytest.fixture
def toy() -> Toy:
    torch.manual_seed(0)
    return Toy().eval()


@pytest.fixture
def batches() -> list[torch.Tensor]:
    return [torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]


def test_sites_are_the_linears_and_convs_not_kept_float(toy: Toy) -> None:
    assert sites(toy, get_recipe("static-int8")) == ["conv", "first", "second"]
    assert sites(toy, Recipe(name="x", description="y", keep_float=("second",))) == ["conv", "first"]


def test_histograms_hold_every_value_once(toy: Toy, batches: list[torch.Tensor]) -> None:
    found = input_histograms(toy, ["conv", "second"], batches, "test")
    assert found["conv"].counts.sum() == sum(batch.numel() for batch in batches)
    assert found["conv"].low == min(float(batch.min()) for batch in batches)
    assert found["second"].low == 0.0, "after ReLU nothing is negative"


def test_calibration_refuses_nothing_and_nonsense(toy: Toy, batches: list[torch.Tensor]) -> None:
    with pytest.raises(CalibrationError, match="empty"):
        input_histograms(toy, ["conv"], [], "test")
    with pytest.raises(CalibrationError, match="conv"):
        input_histograms(toy, ["conv"], [batches[0] * float("nan")], "test")


def test_hooks_are_gone_after_calibration(toy: Toy, batches: list[torch.Tensor]) -> None:
    input_histograms(toy, ["conv"], batches, "test")
    assert not toy.conv._forward_pre_hooks


@pytest.mark.parametrize("name", ["static-int8", "dynamic-int8"])
def test_the_result_is_a_new_close_model_and_the_float_one_is_untouched(
    toy: Toy, batches: list[torch.Tensor], name: str
) -> None:
    before = copy.deepcopy(toy.state_dict())
    recipe = get_recipe(name)
    result = quantize_tower(toy, recipe, batches, "test")
    with torch.no_grad():
        error = (result(batches[0]) - toy(batches[0])).abs().max()
        assert 0 < error < 0.03
    assert all(torch.equal(before[key], value) for key, value in toy.state_dict().items())
    expected = (QuantizedPatches, QuantizedLinear) if name == "static-int8" else (nn.Conv2d, PerTokenLinear)
    assert (type(result.conv), type(result.first)) == expected


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("int8-weights", "05183d19e361c790"),
        ("dynamic-int8", "68fc53cb93f311f5"),
        ("torch-dynamic", "f283465ffcc74664"),
        ("vanilla-w4a4", "a4cd59ffb8028ad6"),
    ],
)
def test_presets_make_the_integers_that_they_always_made(preset: str, expected: str) -> None:
    """Weights that are multiples of 2^-12, scaled and rounded by single operations: the same on every CPU."""
    random = np.random.default_rng(0)
    tower = nn.Sequential(nn.Linear(64, 48), nn.Linear(48, 32)).requires_grad_(False)
    for layer in tower:
        numbers = random.integers(-4000, 4000, tuple(layer.weight.shape))
        layer.weight.copy_(torch.from_numpy(numbers.astype(np.float32) / 4096))
    result = quantize_tower(tower, get_recipe(preset), [torch.zeros(1, 64)], "test")
    stored = [buffer for name, buffer in result.named_buffers() if name.endswith(("integers", "nibbles"))]
    assert hashlib.sha256(b"".join(buffer.numpy().tobytes() for buffer in stored)).hexdigest()[:16] == expected


def test_static_linear_equals_integer_arithmetic_by_hand() -> None:
    linear = nn.Linear(2, 1)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.27, -0.635]]))
        linear.bias.fill_(0.5)
    matrix, scheme = linear.weight.detach().numpy(), WeightScheme(portable=False)
    weight = round_nearest(matrix, weight_scales(matrix, scheme), scheme)
    module = QuantizedLinear(linear, weight, FakeQuantize(asymmetric_grid(0.0, 2.55, 8)))
    # weights 127 and -64 (63.5 to even) at 0.01; inputs 1.0 -> 100 and 0.333 -> 33 at 0.01
    expected = (127 * 100 - 64 * 33) * 1e-4 + 0.5
    assert module(torch.tensor([[1.0, 0.333]])).item() == pytest.approx(expected, rel=1e-5)


def test_per_token_rows_do_not_depend_on_their_neighbours() -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randint(-127, 128, (16, 8), generator=generator, dtype=torch.int8)
    scales = torch.rand(8, generator=generator) / 100
    row = torch.randn(1, 16, generator=generator)
    outlier = torch.full((1, 16), 1000.0)
    alone = linear_per_token(row, weight, scales, 8)
    beside = linear_per_token(torch.cat([row, outlier]), weight, scales, 8)[:1]
    assert torch.equal(alone, beside)


def test_the_embedding_table_is_integer_rows() -> None:
    table = nn.Embedding(10, 6)
    small = IntegerEmbedding(table)
    ids = torch.tensor([[3, 7]])
    assert small.integers.dtype == torch.int8
    step = table.weight.abs().amax(dim=1)[ids] / 127
    assert ((small(ids) - table(ids)).abs() <= step.unsqueeze(-1) * 0.501).all()
