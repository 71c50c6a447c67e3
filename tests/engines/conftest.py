"""Small ONNX graphs whose results and multiply-accumulates can be worked out by hand."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

TOKENS, WIDTH, HIDDEN, OUT = 5, 16, 32, 8
SCALE, ZERO_POINT = np.float32(0.03), 128


@dataclass(frozen=True)
class Graph:
    path: Path
    reference: Callable[[np.ndarray], np.ndarray]


def save_graph(path, nodes, input_info, output_info, constants):
    """Write a checked ONNX file (opset 18) whose initializers are `constants` by name."""
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "hand-made", [input_info], [output_info], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def per_channel_int8(weights, axis):
    """Return (int8 integers, float32 scales), symmetric, one scale for each index of `axis`.

    Integers up to 63: products of larger ones overflow on x86 CPUs without VNNI, and this suite runs everywhere.
    """
    others = tuple(i for i in range(weights.ndim) if i != axis)
    scales = (np.abs(weights).max(axis=others, keepdims=True) / 63).astype(np.float32)
    return np.round(weights / scales).astype(np.int8), scales.reshape(-1)


def quantize_dequantize(values):
    """Asymmetric uint8 with SCALE and ZERO_POINT, as QuantizeLinear rounds (half to even)."""
    return ((np.clip(np.rint(values / SCALE) + ZERO_POINT, 0, 255) - ZERO_POINT) * SCALE).astype(np.float32)


@pytest.fixture(scope="session")
def linear_graph(tmp_path_factory):
    """(n, 5, 16) -> INT8 Linear to 32 -> ReLU -> float Linear to 8 -> (n, 5, 8)."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(WIDTH, HIDDEN)), rng.normal(size=(HIDDEN, OUT)).astype(np.float32)
    bias = rng.normal(size=HIDDEN).astype(np.float32)
    integers, scales = per_channel_int8(first, axis=1)
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"]),
        helper.make_node("DequantizeLinear", ["integers", "scales"], ["weights"], axis=1),
        helper.make_node("MatMul", ["dq", "weights"], ["product"], name="int8_linear"),
        helper.make_node("Add", ["product", "bias"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "second"], ["features"], name="float_linear"),
    ]
    path = save_graph(
        tmp_path_factory.mktemp("linear") / "linear.onnx",
        nodes,
        helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", TOKENS, WIDTH]),
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", TOKENS, OUT]),
        {
            "scale": SCALE,
            "zero": np.uint8(ZERO_POINT),
            "integers": integers,
            "scales": scales,
            "bias": bias,
            "second": second,
        },
    )
    weights = integers * scales
    return Graph(path, lambda x: np.maximum(quantize_dequantize(x) @ weights + bias, 0) @ second)


@pytest.fixture(scope="session")
def token_graph(tmp_path_factory):
    """(n, length) int64 ids -> rows of a table -> mean over the length -> (n, 8)."""
    table = np.random.default_rng(1).normal(size=(20, OUT)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input"], ["rows"]),
        helper.make_node("ReduceMean", ["rows", "axes"], ["features"], keepdims=0),
    ]
    path = save_graph(
        tmp_path_factory.mktemp("token") / "token.onnx",
        nodes,
        helper.make_tensor_value_info("input", TensorProto.INT64, ["n", "length"]),
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", OUT]),
        {"table": table, "axes": np.array([1], np.int64)},
    )
    return Graph(path, lambda ids: table[ids].mean(axis=1))


@pytest.fixture(scope="session")
def attention_graph(tmp_path_factory):
    """(n, 5, 16) -> softmax(x x') x -> (n, 5, 16), all float."""
    nodes = [
        helper.make_node("Transpose", ["input"], ["transposed"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["input", "transposed"], ["scores"], name="scores"),
        helper.make_node("Softmax", ["scores"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", "input"], ["mixed"], name="mix"),
        helper.make_node("Relu", ["mixed"], ["features"]),
    ]

    def reference(x):
        exponents = np.exp(x @ x.swapaxes(1, 2))
        return np.maximum(exponents / exponents.sum(axis=-1, keepdims=True) @ x, 0)

    path = save_graph(
        tmp_path_factory.mktemp("attention") / "attention.onnx",
        nodes,
        helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", TOKENS, WIDTH]),
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", TOKENS, WIDTH]),
        {},
    )
    return Graph(path, reference)


@pytest.fixture(scope="session")
def convolution_graph(tmp_path_factory):
    """(n, 3, 16, 16) -> INT8 4x4 convolution of stride 4 to 8 channels -> float 1x1 one in 2 groups to 6 channels."""
    rng = np.random.default_rng(2)
    integers, scales = per_channel_int8(rng.normal(size=(8, 3, 4, 4)), axis=0)
    pointwise = rng.normal(size=(6, 4, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"]),
        helper.make_node("DequantizeLinear", ["integers", "scales"], ["weights"], axis=0),
        helper.make_node("Conv", ["dq", "weights"], ["patches"], name="patches", strides=[4, 4], kernel_shape=[4, 4]),
        helper.make_node("Conv", ["patches", "pointwise"], ["grouped"], name="grouped", group=2, kernel_shape=[1, 1]),
        helper.make_node("Relu", ["grouped"], ["features"]),
    ]

    def reference(x):
        weights = integers * scales[:, None, None, None]
        blocks = quantize_dequantize(x).reshape(len(x), 3, 4, 4, 4, 4)  # n, c, row, y, column, x
        patches = np.einsum("ncrykx,ocyx->nork", blocks, weights)
        halves = [
            np.einsum("nirk,oi->nork", patches[:, i : i + 4], pointwise[i // 4 * 3 :][:3, :, 0, 0]) for i in (0, 4)
        ]
        return np.maximum(np.concatenate(halves, axis=1), 0)

    path = save_graph(
        tmp_path_factory.mktemp("convolution") / "convolution.onnx",
        nodes,
        helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 16, 16]),
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 6, 4, 4]),
        {
            "scale": SCALE,
            "zero": np.uint8(ZERO_POINT),
            "integers": integers,
            "scales": scales,
            "pointwise": pointwise,
        },
    )
    return Graph(path, reference)


@pytest.fixture(scope="session")
def dynamic_graph(tmp_path_factory):
    """(n, 5, 16) -> Linear to 32 whose input is quantized at run time (DynamicQuantizeLinear, MatMulInteger)."""
    weights = np.random.default_rng(7).integers(-127, 128, size=(WIDTH, HIDDEN)).astype(np.int8)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["input"], ["q", "scale", "zero"]),
        helper.make_node("MatMulInteger", ["q", "weights", "zero"], ["sums"], name="integers"),
        helper.make_node("Cast", ["sums"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["features"]),
    ]
    path = save_graph(
        tmp_path_factory.mktemp("dynamic") / "dynamic.onnx",
        nodes,
        helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", TOKENS, WIDTH]),
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", TOKENS, HIDDEN]),
        {"weights": weights},
    )
    return Graph(path, lambda x: x @ weights)


@pytest.fixture(scope="session")
def grouped_graph(tmp_path_factory):
    """(n, 5, 64) float -> Linear to 32 with 4-bit weights in groups of 16."""
    rng = np.random.default_rng(4)
    integers = rng.integers(-7, 8, size=(4 * WIDTH, HIDDEN)).astype(np.int8)
    scales = rng.uniform(0.01, 0.03, size=(4, HIDDEN)).astype(np.float32)
    pairs = integers.reshape(-1).view(np.uint8) & 0x0F
    nibbles = (pairs[0::2] | pairs[1::2] << 4).tobytes()
    nodes = [
        helper.make_node("DequantizeLinear", ["integers", "scales"], ["weights"], axis=0, block_size=WIDTH),
        helper.make_node("MatMul", ["input", "weights"], ["features"], name="grouped"),
    ]
    graph = helper.make_graph(
        nodes,
        "grouped",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", TOKENS, 4 * WIDTH])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", TOKENS, HIDDEN])],
        [
            helper.make_tensor("integers", TensorProto.INT4, integers.shape, nibbles, raw=True),
            numpy_helper.from_array(scales, "scales"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    path = tmp_path_factory.mktemp("grouped") / "grouped.onnx"
    onnx.save(model, path)
    return Graph(path, lambda x: x @ (integers * scales.repeat(WIDTH, axis=0)))


@pytest.fixture(scope="session")
def misfits(tmp_path_factory):
    """Valid graphs that are no tower: two inputs, two outputs, an input of doubles."""
    folder = tmp_path_factory.mktemp("misfits")

    def write(name, element_type, inputs, outputs):
        nodes = [helper.make_node("Add", [inputs[0], inputs[-1]], [output]) for output in outputs]
        graph = helper.make_graph(
            nodes,
            name,
            [helper.make_tensor_value_info(value, element_type, ["n", 4]) for value in inputs],
            [helper.make_tensor_value_info(value, element_type, ["n", 4]) for value in outputs],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.checker.check_model(model)
        onnx.save(model, folder / f"{name}.onnx")
        return folder / f"{name}.onnx"

    return [
        write("two-inputs", TensorProto.FLOAT, ["a", "b"], ["y"]),
        write("two-outputs", TensorProto.FLOAT, ["a"], ["y", "z"]),
        write("doubles", TensorProto.DOUBLE, ["a"], ["y"]),
    ]
