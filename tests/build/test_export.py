"""What goes into the file for recipes beyond plain INT8: 4-bit storage, groups, attention products."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from vlmquant.build.build import quantize_model
from vlmquant.build.export import export_tower
from vlmquant.bundle.graph_check import check_graph
from vlmquant.checkpoints import load_model
from vlmquant.engines import engine, installed_engines, load
from vlmquant.errors import RecipeError
from vlmquant.quantize.apply import quantize_tower
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.recipes.schemes import WeightScheme

GROUPS = Recipe(
    name="groups",
    description="4 bits in groups of 16",
    weights=WeightScheme(bits=4, granularity="group", group_size=16),
    activations=None,
)
PRODUCTS = Recipe(name="products", description="attention products too", attention_matmuls=True)


@pytest.fixture(scope="module")
def tower(tiny_checkpoint: Path) -> nn.Module:
    return load_model(str(tiny_checkpoint)).image_tower


@pytest.fixture(scope="module")
def pixels(tower: nn.Module, tiny_checkpoint: Path) -> Tensor:
    spec = load_model(str(tiny_checkpoint)).image_spec
    return torch.randn(4, 3, spec.crop_height, spec.crop_width, generator=torch.Generator().manual_seed(0))


def exported(
    tower: nn.Module, recipe: Recipe, pixels: Tensor, folder: Path
) -> tuple[onnx.ModelProto, np.ndarray, Path]:
    result = quantize_tower(tower, recipe, [pixels], "test")
    path = folder / "image.onnx"
    export_tower(result, pixels[:2], (0,), path)
    with torch.inference_mode():
        return onnx.load(path), result(pixels).numpy(), path


def worst_cosine(left: np.ndarray, right: np.ndarray) -> float:
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float(np.min(np.sum(left * right, axis=1) / norms))


def int4_matrices(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    return [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT4]


def test_w4a8_stores_4_bits_and_runs_int8_kernels(tower: nn.Module, pixels: Tensor, tmp_path: Path) -> None:
    model, expected, path = exported(tower, get_recipe("w4a8"), pixels, tmp_path)
    matrices = int4_matrices(model)
    linears = [name for name, module in tower.named_modules() if isinstance(module, nn.Linear)]
    assert len(matrices) == len(linears) - 1, "all but the projection, which keeps 8 bits"
    assert all(len(tensor.raw_data) == np.prod(tensor.dims) / 2 for tensor in matrices)
    for name in installed_engines():
        with load(path, name, None) as session:
            assert worst_cosine(session(pixels.numpy()), expected) > 0.9999
        assert engine(name).audit(path, pixels[:1].numpy()).int8_share > 0.7


def test_groups_of_4_bits_run_on_both_engines(tower: nn.Module, pixels: Tensor, tmp_path: Path) -> None:
    model, expected, path = exported(tower, GROUPS, pixels, tmp_path)
    blocks = [
        attribute.i
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        for attribute in node.attribute
        if attribute.name == "block_size"
    ]
    assert set(blocks) == {16}
    assert len(blocks) == len(int4_matrices(model))
    for name in installed_engines():
        with load(path, name, None) as session:
            # both engines round activations of such layers to 8 bits on the fly
            assert worst_cosine(session(pixels.numpy()), expected) > 0.999


def test_attention_products_run_in_int8(tower: nn.Module, pixels: Tensor, tmp_path: Path) -> None:
    _, expected, path = exported(tower, PRODUCTS, pixels, tmp_path)
    for name in installed_engines():
        with load(path, name, None) as session:
            assert worst_cosine(session(pixels.numpy()), expected) > 0.9999
        share = engine(name).audit(path, pixels[:1].numpy()).int8_share
        assert share > 0.7


def test_what_cannot_be_a_bundle_is_refused_before_any_work(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = load_model(str(tiny_checkpoint))
    with pytest.raises(RecipeError, match="'torch-dynamic' is simulation only"):
        quantize_model(model, get_recipe("torch-dynamic"), None, tmp_path / "out")
    nowhere = Recipe(name="x", description="y", keep_float=("*.fc3",))
    with pytest.raises(RecipeError, match=r"'\*\.fc3' matches no layer"):
        quantize_model(model, nowhere, None, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "kind"), [("fp16", onnx.TensorProto.FLOAT16), ("bf16", onnx.TensorProto.BFLOAT16)])
def test_half_precision_weights_take_half_the_space(
    tower: nn.Module, pixels: Tensor, tmp_path: Path, name: str, kind: int
) -> None:
    model, expected, path = exported(tower, get_recipe(name), pixels, tmp_path)
    multiplied = [module for module in tower.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    assert sum(tensor.data_type == kind for tensor in model.graph.initializer) == len(multiplied)
    with torch.inference_mode():
        assert worst_cosine(expected, tower(pixels).numpy()) > 0.9999
    for name in installed_engines():
        with load(path, name, None) as session:
            assert worst_cosine(session(pixels.numpy()), expected) > 0.99999


@pytest.mark.parametrize(("name", "kind"), [("fp16", onnx.TensorProto.FLOAT16), ("bf16", onnx.TensorProto.BFLOAT16)])
def test_token_tables_are_halved_too(tiny_checkpoint: Path, tmp_path: Path, name: str, kind: int) -> None:
    bundle = quantize_model(load_model(str(tiny_checkpoint)), get_recipe(name), None, tmp_path / "bundle")
    stored = {tensor.name: tensor for tensor in onnx.load(bundle / "text.onnx").graph.initializer}
    table = next(tensor for tensor in stored.values() if list(tensor.dims) == [640, 32])
    assert table.data_type == kind
    assert sum(tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1 for tensor in stored.values()) <= 2


def test_weights_that_one_file_cannot_hold_lie_beside_it(
    tower: nn.Module, pixels: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmquant.build.export.LARGEST_FILE", 1 << 10)
    monkeypatch.setattr("vlmquant.build.export.LEAST_BESIDE", 1 << 10)
    path = tmp_path / "image.onnx"
    for _ in range(2):  # a second time nothing is added to
        export_tower(tower, pixels[:2], (0,), path)
    beside = tmp_path / "image.weights"
    assert beside.stat().st_size > path.stat().st_size / 2
    assert beside.stat().st_size < 4.1 * sum(parameter.numel() for parameter in tower.parameters())
    check_graph(path, {beside.name: beside.stat().st_size})
    with torch.inference_mode():
        expected = tower(pixels).numpy()
    for name in installed_engines():
        with load(path, name, None) as session:
            assert worst_cosine(session(pixels.numpy()), expected) > 0.9999
