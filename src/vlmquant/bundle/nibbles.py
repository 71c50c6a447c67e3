"""4-bit weights in ONNX: two integers to a byte, and one scale per group of inputs."""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# The first opset whose DequantizeLinear takes 4-bit integers and blocks; with it comes the file format's version.
OPSET = 21
IR_VERSION = 10
SUFFIX = ".nibbles"


def store_in_4_bits(model: onnx.ModelProto) -> None:
    """Pack, in place, the INT8 initializers called `*.nibbles` into INT4, and finish DequantizeLinear over groups.

    Only the two-dimensional scales of groups need a `block_size`; the operator reads them as they are. Integers with
    one scale per channel are widened to INT8 again by a Cast that every engine folds when it loads the file: with it
    they choose their INT8 kernels where the activations are integers too. Leaves a model with neither unchanged.
    """
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    users = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in initializers]
    touched = False
    for node in users:
        integers, scales = initializers[node.input[0]], initializers.get(node.input[1])
        grouped = scales is not None and len(scales.dims) == 2
        if grouped and scales is not None:
            rows = integers.dims[0]
            node.attribute.append(helper.make_attribute("block_size", _block_size(rows, scales.dims[0])))
        packed = integers.name.endswith(SUFFIX)
        if packed:
            integers.CopyFrom(_packed(integers))
            if not grouped:
                _widen(model.graph, node)
        touched = touched or grouped or packed
    if touched:
        model.ir_version = max(model.ir_version, IR_VERSION)
        next(entry for entry in model.opset_import if entry.domain == "").version = OPSET


def _block_size(rows: int, groups: int) -> int:
    # Groups are powers of two and only the last may be shorter: the least power that gives so many groups is theirs.
    size = 1
    while -(-rows // size) > groups:
        size *= 2
    return size


def _packed(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """Return the INT8 `tensor` as INT4; the first of each pair lies in the lower half of its byte."""
    values = numpy_helper.to_array(tensor).reshape(-1).astype(np.int8)
    pairs = np.pad(values, (0, values.size % 2)).view(np.uint8) & 0x0F
    data = (pairs[0::2] | (pairs[1::2] << 4)).tobytes()
    return helper.make_tensor(tensor.name, TensorProto.INT4, list(tensor.dims), data, raw=True)


def _widen(graph: Any, node: onnx.NodeProto) -> None:
    wide = f"{node.input[0]}_int8"
    cast = helper.make_node("Cast", [node.input[0]], [wide], name=f"{node.name}_widen", to=TensorProto.INT8)
    node.input[0] = wide
    graph.node.insert(list(graph.node).index(node), cast)
