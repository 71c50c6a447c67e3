"""A new method is one file and one row of `STEPS`: a recipe names it, and what it finds stands in the bundle."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from fake_method import NAME, STEP
from onnx import numpy_helper
from torch import Tensor, nn

from vlmquant import get_recipe, load_model
from vlmquant.quantize.apply import quantize_tower
from vlmquant.quantize.methods import STEPS
from vlmquant.quantize.recipes.recipe import Recipe


@pytest.fixture(autouse=True)
def row() -> Iterator[None]:
    before = dict(STEPS)
    rows = {}
    for name, step in before.items():
        rows |= {NAME: STEP, name: step} if name == "nearest" else {name: step}
    for table in (rows, before):
        STEPS.clear()
        STEPS.update(table)
        if table is rows:
            yield


def plain(preset: str) -> Recipe:
    """Return a preset without what would need scales of its own."""
    return replace(get_recipe(preset), token_table_bits=None, outliers=None, bias_correction=False)


def test_a_recipe_file_switches_it_on_and_the_bundle_holds_its_scales(
    run, tiny_checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    recipe = {**plain("int8-weights").to_dict(), "name": "shifts", "steps": [NAME]}
    (tmp_path / "shifts.json").write_text(json.dumps(recipe))
    words = ("--components", "image", "--calibrate", pictures, "--images", 2)
    run("quantize", tiny_checkpoint, "-o", tmp_path / "bundle", "--recipe", tmp_path / "shifts.json", *words)
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert manifest["components"]["image"]["recipe"]["steps"] == [NAME]
    exponents = np.log2(stored_scales(tmp_path / "bundle" / "image.onnx"))
    np.testing.assert_array_equal(exponents, np.round(exponents))
    assert len(json.loads(run("verify", tmp_path / "bundle", "--engine", "onnxruntime", "--json"))) == 2


def stored_scales(path: Path) -> np.ndarray:
    """Return the scales of all weights that a graph stores as integers."""
    graph = onnx.load(path).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in stored]
    assert nodes
    return np.concatenate([stored[node.input[1]].reshape(-1) for node in nodes])


@pytest.mark.parametrize("preset", ["static-int8", "dynamic-int8", "int8-weights"])
def test_it_goes_with_every_kind_of_recipe(tiny_checkpoint: Path, preset: str) -> None:
    model = load_model(tiny_checkpoint)
    size = (model.image_spec.crop_height, model.image_spec.crop_width)
    pixels = [torch.randn(4, 3, *size, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    recipe = Recipe.from_dict({**plain(preset).to_dict(), "steps": [NAME]})
    assert recipe.needs_calibration
    result = quantize_tower(model.image_tower, recipe, pixels, "test")
    exponents = weight_scales_of(result).log2()
    assert torch.equal(exponents, exponents.round())
    others = weight_scales_of(quantize_tower(model.image_tower, plain(preset), pixels, "test"))
    assert not torch.equal(others.log2(), others.log2().round())
    with torch.inference_mode():
        cosine = nn.functional.cosine_similarity(result(pixels[0]), model.image_tower(pixels[0]))
    assert cosine.min() > 0.95


def weight_scales_of(tower: nn.Module) -> Tensor:
    return torch.cat([value.flatten() for name, value in tower.named_buffers() if name.endswith(".scales")])
