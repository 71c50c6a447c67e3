"""Integers in written graphs, and what the engines of this machine make of them under every kernel they can be told."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vlmquant.build.overflow import overflowing_factors, required_instruction_sets
from vlmquant.engines import installed_engines, load, this_cpu
from vlmquant.engines.cpu import DOT_PRODUCTS
from vlmquant.quantize.portable import LARGEST_ALONE, LARGEST_PAIR, ORDERED_MULTIPLE

DEPTH, WIDTH = 64, 48
CAPS = (None, "AVX2", "SSE41") if this_cpu().is_x86 else (None,)


def constant(name: str, values: NDArray[np.generic]) -> onnx.TensorProto:
    return numpy_helper.from_array(values, name)


def write(path: Path, weight: NDArray[np.int8], op: str) -> Path:
    """Write a graph whose u8 input times `weight` goes through `op`: "MatMul", "MatMulInteger" or "Conv"."""
    weights = [constant("w", weight), constant("ws", np.ones(1, np.float32).reshape(()))]
    image = op == "Conv"
    axes = ["n", weight.shape[1], 8, 8] if image else ["n", len(weight)]
    grid = [constant("s", np.float32(1.0).reshape(())), constant("z", np.uint8(0).reshape(()))]
    if op == "MatMulInteger":
        nodes = [
            helper.make_node("Cast", ["input"], ["q"], to=TensorProto.UINT8),
            helper.make_node("MatMulInteger", ["q", "w"], ["sums"]),
            helper.make_node("Cast", ["sums"], ["output"], to=TensorProto.FLOAT),
        ]
    else:
        nodes = [
            helper.make_node("QuantizeLinear", ["input", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["a"]),
            helper.make_node("DequantizeLinear", ["w", "ws"], ["b"]),
            helper.make_node(op, ["a", "b"], ["output"]),
        ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        [*weights, *grid] if op != "MatMulInteger" else [weights[0]],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def full_pairs(seed: int, depth: int = DEPTH) -> NDArray[np.int8]:
    """Return weights (in, out) that are as large as they may be where they meet, in many ways and both signs."""
    first = np.random.default_rng(seed).integers(1, LARGEST_PAIR, (depth // 2, WIDTH))
    if depth % ORDERED_MULTIPLE:
        return np.where(np.arange(WIDTH) % 2, -LARGEST_ALONE, LARGEST_ALONE) * np.ones((depth, 1), np.int8)
    pairs = np.stack([np.minimum(first, 127), np.minimum(LARGEST_PAIR - first, 127)], axis=1)
    return (pairs.reshape(depth, WIDTH) * np.where(np.arange(WIDTH) % 2, -1, 1)).astype(np.int8)


def test_the_limit_is_found_to_the_integer(tmp_path: Path) -> None:
    weight = full_pairs(0)
    assert overflowing_factors(write(tmp_path / "at.onnx", weight, "MatMul")) == ()
    weight[10, 4], weight[11, 4] = 64, 65
    for op in ("MatMul", "MatMulInteger"):
        assert overflowing_factors(write(tmp_path / f"{op}.onnx", weight, op)) == ("w",)
    assert required_instruction_sets([tmp_path / "at.onnx"]) == ()
    assert required_instruction_sets([tmp_path / "at.onnx", tmp_path / "MatMul.onnx"]) == tuple(sorted(DOT_PRODUCTS))


def test_kernels_of_several_pixels_are_held_to_half_whatever_their_order(tmp_path: Path) -> None:
    for size, largest, found in ((3, 64, ()), (3, 65, ("w",)), (1, 100, ())):
        weight = np.zeros((4, 4, size, size), dtype=np.int8)
        weight[2, 1, -1, -1] = largest
        assert overflowing_factors(write(tmp_path / "conv.onnx", weight, "Conv")) == found


def test_weights_beside_float_activations_cannot_overflow(tmp_path: Path) -> None:
    path = write(tmp_path / "g.onnx", np.full((DEPTH, WIDTH), 127, np.int8), "MatMul")
    model = onnx.load(path)
    product = next(node for node in model.graph.node if node.op_type == "MatMul")
    product.input[0] = "input"
    onnx.save(model, path)
    assert overflowing_factors(path) == ()


def test_products_of_two_activations_are_expected_to_overflow(tmp_path: Path) -> None:
    path = write(tmp_path / "g.onnx", full_pairs(0), "MatMul")
    model = onnx.load(path)
    integers = next(node for node in model.graph.node if node.output[0] == "b")
    model.graph.node.insert(0, helper.make_node("Identity", ["w"], ["made"]))
    integers.input[0] = "made"
    onnx.save(model, path)
    assert overflowing_factors(path) == ("made",)


RUN = """
import json, sys
import numpy as np
from pathlib import Path
from vlmquant.engines import load
path, engine = sys.argv[1:]
weight = np.load(path + ".npy").astype(np.int64)
found = {}
for rows in (1, 7, 50):
    bytes_ = np.random.default_rng(rows).choice([0, 1, 128, 254, 255], (rows, len(weight)))
    bytes_[0] = 255
    with load(Path(path), engine, 2) as session:
        found[rows] = float(np.abs(session(bytes_.astype(np.float32)) - bytes_ @ weight).max())
print(json.dumps(found))
"""


@pytest.mark.parametrize("cap", CAPS)
@pytest.mark.parametrize("engine", installed_engines())
@pytest.mark.parametrize(
    ("op", "depth"), [("MatMulInteger", DEPTH), *(("MatMul", depth) for depth in (63, DEPTH, 258, 261, 300, 768))]
)
def test_integer_kernels_add_full_pairs_exactly(
    tmp_path: Path, engine: str, cap: str | None, op: str, depth: int
) -> None:
    weight = full_pairs(1, depth).astype(np.int8)
    path = write(tmp_path / "g.onnx", weight, op)
    assert overflowing_factors(path) == ()
    np.save(tmp_path / "g.onnx.npy", weight)
    environment = {**os.environ} | ({"ONEDNN_MAX_CPU_ISA": cap} if cap else {})
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(path), engine], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    # Sums are below 2^24, so float32 holds them exactly; OpenVINO computes MatMulInteger in float.
    assert set(json.loads(done.stdout).values()) == {0.0}


@pytest.mark.skipif(this_cpu().exact_dot_product is not False, reason="this CPU adds byte products in 32 bits")
@pytest.mark.parametrize("engine", installed_engines())
def test_here_other_weights_do_overflow(tmp_path: Path, engine: str) -> None:
    path = write(tmp_path / "g.onnx", np.full((DEPTH, WIDTH), 127, np.int8), "MatMul")
    ones = np.full((50, DEPTH), 255, np.float32)
    true = 255 * 127 * DEPTH
    with load(path, engine, 2) as session:
        assert session(ones).max() < true
    with load(path, engine, 2, arithmetic="float") as session:
        assert (session(ones) == true).all()


def test_wide_integers_of_onnxruntime_are_exact_whatever_they_are(tmp_path: Path) -> None:
    ones = np.full((50, DEPTH), 255, np.float32)
    for op in ("MatMul", "MatMulInteger"):
        for largest in (-128, 127):
            path = write(tmp_path / "g.onnx", np.full((DEPTH, WIDTH), largest, np.int8), op)
            with load(path, "onnxruntime", 2, arithmetic="wide") as session:
                assert (session(ones) == 255 * largest * DEPTH).all()
