from pathlib import Path

import pytest

from vlmquant.budget.mixed import bytes_in_8_bits, fewest_narrow, mixed_precision
from vlmquant.build.build import quantize_model
from vlmquant.bundle.manifest import Manifest
from vlmquant.checkpoints import load_model
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.errors import BudgetError
from vlmquant.quantize.sensitivity import LayerSensitivity


def layer(site: str, cosine_loss: float, weights: int) -> LayerSensitivity:
    return LayerSensitivity(
        site=site,
        cosine_loss=cosine_loss,
        rank_agreement=1.0,
        macs=1,
        weight_bytes=weights // 2,
        float_bytes=4 * weights,
    )


def test_least_damage_per_byte_goes_first() -> None:
    layers = [layer("large", 0.02, 8000), layer("small", 0.01, 1000), layer("harmful", 0.5, 2000)]
    # half a byte saved per weight: 4,000, 500 and 1,000 bytes
    assert fewest_narrow(layers, 11_000, 11_000) == ()
    assert fewest_narrow(layers, 11_000, 10_900) == ("large",)
    assert fewest_narrow(layers, 11_000, 6_900) == ("large", "small")
    with pytest.raises(BudgetError, match=r"all 3 layers in 4 bits .* about 0\.0 MB"):
        fewest_narrow(layers, 11_000, 5_000)


def test_a_mixed_bundle_keeps_to_its_size(tiny_checkpoint: Path, calibration: CalibrationSet, tmp_path: Path) -> None:
    model = load_model(str(tiny_checkpoint))
    limit = bytes_in_8_bits(model, ("image", "text")) - 5_000
    recipe = mixed_precision(model, calibration, limit)
    assert 0 < len(recipe.overrides) < 26
    assert all(override.weights == 4 for override in recipe.overrides)
    folder = quantize_model(model, recipe, calibration, tmp_path / "mixed")
    assert Manifest.read(folder).total_bytes <= limit
