"""Writes the graphs that `vlmquant doctor` times: python training/doctor_graphs.py (needs the onnx package).

Each is the two products of a ViT-B/32's MLP on its 50 tokens: (50, 768) @ (768, 3072) @ (3072, 768), once in float and
once in the form that engines compute in integers. The weights are a small square that Tile repeats; engines do that
once, while they load. All steps are powers of two and no weight is beyond 63, so no sum overflows or is rounded on any
CPU, and the result can be computed exactly elsewhere.
"""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

FOLDER = Path(__file__).resolve().parents[1] / "src" / "vlmquant" / "doctor" / "graphs"
TOKENS, WIDTHS = 50, (768, 3072, 768)
SIDE = 16
LARGEST_WEIGHT = 63
ACTIVATION_STEP, ACTIVATION_ZERO = 2.0**-5, 128
WEIGHT_STEPS = (2.0**-10, 2.0**-14)
OPSET, IR_VERSION = 13, 8


def square(product: int) -> NDArray[np.int8]:
    """Return the weights that product 0 or 1 repeats: (SIDE, SIDE) int8, -63..63."""
    row, column = np.indices((SIDE, SIDE))
    values = (37 * row + 11 * column + 5 * row * column + 29 * product) % (2 * LARGEST_WEIGHT + 1)
    return (values - LARGEST_WEIGHT).astype(np.int8)


def float_graph() -> onnx.ModelProto:
    nodes, constants, current = [], [], "x"
    for product, step in enumerate(WEIGHT_STEPS):
        weights = square(product).astype(np.float32) * np.float32(step)
        constants += [_constant(f"square_{product}", weights), _repeats(product)]
        nodes.append(helper.make_node("Tile", [f"square_{product}", f"repeats_{product}"], [f"weights_{product}"]))
        current = _product(nodes, product, current, f"weights_{product}")
    return _model(nodes, constants)


def int8_graph() -> onnx.ModelProto:
    constants = [
        _constant("activation_step", np.float32(ACTIVATION_STEP)),
        _constant("activation_zero", np.uint8(ACTIVATION_ZERO)),
    ]
    nodes, current = [], "x"
    for product, step in enumerate(WEIGHT_STEPS):
        constants += [
            _constant(f"square_{product}", square(product)),
            _constant(f"step_{product}", np.full(SIDE, step, np.float32)),
            _repeats(product),
            _constant(f"step_repeats_{product}", np.array([WIDTHS[product + 1] // SIDE], np.int64)),
        ]
        activation = ["activation_step", "activation_zero"]
        nodes += [
            helper.make_node("QuantizeLinear", [current, *activation], [f"bytes_{product}"]),
            helper.make_node("DequantizeLinear", [f"bytes_{product}", *activation], [f"activations_{product}"]),
            helper.make_node("Tile", [f"square_{product}", f"repeats_{product}"], [f"integers_{product}"]),
            helper.make_node("Tile", [f"step_{product}", f"step_repeats_{product}"], [f"steps_{product}"]),
            helper.make_node(
                "DequantizeLinear", [f"integers_{product}", f"steps_{product}"], [f"weights_{product}"], axis=1
            ),
        ]
        current = _product(nodes, product, f"activations_{product}", f"weights_{product}")
    return _model(nodes, constants)


GRAPHS = {"float.onnx": float_graph, "int8.onnx": int8_graph}


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, graph in GRAPHS.items():
        (folder / name).write_bytes(graph().SerializeToString(deterministic=True))


def _product(nodes: list[onnx.NodeProto], product: int, left: str, right: str) -> str:
    output = "y" if product == len(WEIGHT_STEPS) - 1 else f"product_{product}"
    nodes.append(helper.make_node("MatMul", [left, right], [output], name=f"product_{product}"))
    return output


def _repeats(product: int) -> onnx.TensorProto:
    return _constant(f"repeats_{product}", np.array(WIDTHS[product : product + 2], np.int64) // SIDE)


def _constant(name: str, values: NDArray[np.generic] | np.generic) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values), name)


def _model(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, TOKENS, WIDTHS[0]])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, TOKENS, WIDTHS[-1]])]
    graph = helper.make_graph(nodes, "doctor", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    write(FOLDER)
