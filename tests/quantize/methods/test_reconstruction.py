from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fakes import tiny_blip_folder
from vlmquant.build.export import export_tower
from vlmquant.checkpoints import load_blip
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.engines import load
from vlmquant.quantize.apply import quantize_tower
from vlmquant.quantize.methods.reconstruction import reconstruct
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.recipes.schemes import ActivationScheme, SiteBits, WeightScheme
from vlmquant.quantize.weights import IntegerWeight, round_nearest, weight_scales

FOUR_BITS = WeightScheme(bits=4, rounding="reconstruction")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16)) for _ in range(2))

    def forward(self, values: Tensor) -> Tensor:
        for layer in self.layers:
            values = values + layer(values)
        return values.mean(dim=1)


@pytest.fixture
def tower() -> nn.Module:
    torch.manual_seed(0)
    return Block().eval().requires_grad_(False)


@pytest.fixture
def inputs() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(16, 16, generator=generator)
    return [torch.randn(8, 5, 16, generator=generator) @ mixing for _ in range(2)]


def nearest_of(tower: nn.Module, scheme: WeightScheme) -> dict[str, IntegerWeight]:
    matrices = {name: m.weight.numpy() for name, m in tower.named_modules() if isinstance(m, nn.Linear)}
    return {name: round_nearest(matrix, weight_scales(matrix, scheme), scheme) for name, matrix in matrices.items()}


def output_error(tower: nn.Module, weights: dict[str, IntegerWeight], inputs: list[Tensor]) -> float:
    state = {f"{name}.weight": torch.from_numpy(weight.dequantized()) for name, weight in weights.items()}
    with torch.inference_mode():
        differences = [torch.func.functional_call(tower, state, (batch,)) - tower(batch) for batch in inputs]
    return float(torch.cat(differences).square().mean())


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_output_is_nearer_to_float_than_by_nearest_rounding(
    tower: nn.Module, inputs: list[Tensor], bits: int
) -> None:
    scheme = WeightScheme(bits=bits, rounding="reconstruction")
    nearest = nearest_of(tower, scheme)
    learned = reconstruct(tower, nearest, dict.fromkeys(nearest, scheme), {}, inputs, "test")
    assert output_error(tower, learned, inputs) < 0.7 * output_error(tower, nearest, inputs)
    for name, weight in learned.items():
        assert (weight.scales == nearest[name].scales).all()
        assert abs(weight.integers).max() <= 2 ** (bits - 1) - 1


def test_the_same_seed_gives_the_same_integers_and_float_stays_as_it_was(
    tower: nn.Module, inputs: list[Tensor]
) -> None:
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    nearest = nearest_of(tower, FOUR_BITS)
    schemes = dict.fromkeys(nearest, FOUR_BITS)
    first, second = (reconstruct(tower, nearest, schemes, {}, inputs, "test", steps=20) for _ in range(2))
    assert all((first[name].integers == second[name].integers).all() for name in nearest)
    assert all((before[name] == value).all() for name, value in tower.state_dict().items())
    assert not any(parameter.requires_grad for parameter in tower.parameters())


def test_eight_bits_stay_as_they_were(tower: nn.Module, inputs: list[Tensor]) -> None:
    recipe = Recipe(
        name="x", description="y", weights=FOUR_BITS, overrides=(SiteBits(pattern="*", weights=8),), activations=None
    )
    plain = Recipe(name="x", description="y", weights=WeightScheme(bits=8, rounding="gptq"), activations=None)
    one, other = (quantize_tower(tower, r, inputs, "test") for r in (recipe, plain))
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), other.buffers(), strict=True))


def test_learned_integers_export_like_any_others(tower: nn.Module, inputs: list[Tensor], tmp_path: Path) -> None:
    recipe = Recipe(name="x", description="y", weights=FOUR_BITS, activations=ActivationScheme())
    result = quantize_tower(tower, recipe, inputs, "test")
    export_tower(result, inputs[0], (0,), tmp_path / "tower.onnx")
    with torch.inference_mode(), load(tmp_path / "tower.onnx", "onnxruntime", None) as session:
        assert torch.allclose(torch.from_numpy(session(inputs[1].numpy())), result(inputs[1]), atol=1e-4)


@pytest.mark.parametrize("component", ["question_encoder", "decoder"])
def test_layers_whose_parts_are_called_one_by_one_are_learned_too(component: str, tmp_path: Path) -> None:
    model = load_blip(tiny_blip_folder(tmp_path / "blip", "vqa"))
    images = tuple(np.random.default_rng(0).integers(0, 256, (1, 40, 40, 3), dtype=np.uint8))
    parts = model.prepare(CalibrationSet(images, ("a dog", "two cats"), "noise", "two")).parts
    part = next(part for part in parts if part.component == component)
    recipe = Recipe(name="x", description="y", weights=FOUR_BITS, activations=None, keep_float=("*layer.1.*",))
    start = replace(recipe, weights=replace(FOUR_BITS, rounding="gptq"))
    learned, gptq = (quantize_tower(part.tower, each, part.inputs, "test") for each in (recipe, start))
    names = [name for name, _ in learned.named_buffers() if ".layer.0." in name and name.endswith("nibbles")]
    assert any(not torch.equal(learned.get_buffer(name), gptq.get_buffer(name)) for name in names)
    with torch.inference_mode():
        rows = [tower(part.inputs[0]) for tower in (learned, part.tower)]
    assert nn.functional.cosine_similarity(*rows).min() > 0.9
