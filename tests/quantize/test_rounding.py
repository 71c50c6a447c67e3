import pytest
import torch
from torch import nn
from transformers.activations import QuickGELUActivation

from vlmquant.quantize.apply import quantize_tower
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.quantize.rounding import TwinFakeQuantize, activation_minimum, gelu_twin_grid, softmax_twin_grid


def test_the_minimum_behind_each_activation_is_its_own() -> None:
    assert activation_minimum(nn.GELU()) == pytest.approx(-0.16997, abs=1e-5)
    assert activation_minimum(QuickGELUActivation()) == pytest.approx(-0.16361, abs=1e-5)
    assert activation_minimum(nn.SiLU()) == pytest.approx(-0.27846, abs=1e-5)


def test_twin_behind_gelu_by_hand() -> None:
    # 3 bits: below zero the steps -4..0 of 0.04, above it 0..3 of 1.0
    rounding = TwinFakeQuantize(gelu_twin_grid(-0.16, 3.0, bits=3))
    values = torch.tensor([-0.16, -0.05, -0.01, 0.0, 0.4, 1.6, 9.0])
    assert rounding(values).tolist() == pytest.approx([-0.16, -0.04, 0.0, 0.0, 0.0, 2.0, 3.0])


def test_twin_behind_softmax_is_aligned_by_a_shift() -> None:
    grid = softmax_twin_grid(shift=3, bits=4)
    assert grid.large_step / grid.small_step == 2**3
    rounding = TwinFakeQuantize(grid)
    # up to 1/8 in steps of 1/56, above in steps of 1/7
    values = torch.tensor([0.0, 0.02, 0.125, 0.3, 1.0])
    assert rounding(values).tolist() == pytest.approx([0.0, 1 / 56, 7 / 56, 2 / 7, 1.0])


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization is deprecated", "ignore:torch.quantize_per_tensor")
def test_torch_dynamic_is_torchs_own_to_the_number() -> None:
    torch.manual_seed(0)
    tower = nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 32)).eval()
    with torch.no_grad():
        tower[2].weight[3] *= 20
    values = torch.randn(5, 7, 64)
    values[2, 3] *= 30
    real = torch.ao.quantization.quantize_dynamic(tower, {nn.Linear}, dtype=torch.qint8)
    simulated = quantize_tower(tower, get_recipe("torch-dynamic"), [], "test")
    with torch.inference_mode():
        expected, found, unrounded = real(values), simulated(values), tower(values)
        scale = float(unrounded.abs().max())
        assert float((found - expected).abs().max()) < 1e-5 * scale
        assert float((found - unrounded).abs().max()) > 1e-3 * scale
        # the collapse in one line: a row changes when another in the batch is large
        assert float((simulated(values[:1]) - found[:1]).abs().max()) > 1e-3 * scale
