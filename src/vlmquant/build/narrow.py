"""Weights stored narrower than the exporter writes them: two 4-bit integers to a byte, and 16-bit floats."""

from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

# The first opset whose DequantizeLinear takes 4-bit integers and blocks; with it comes the file format's version.
OPSET = 21
IR_VERSION = 10
SUFFIX = ".nibbles"
# What an initializer's name ends in, and what it is then stored as.
HALVES = {
    ".float16_weight": (TensorProto.FLOAT16, torch.float16),
    ".bfloat16_weight": (TensorProto.BFLOAT16, torch.bfloat16),
}


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


def store_in_16_bits(model: onnx.ModelProto) -> None:
    """Write, in place, the initializers called `*.float16_weight` or `*.bfloat16_weight` in that type.

    A Cast gives the operators float32 again; engines fold it when they load the file. The values are representable
    already, so nothing changes. Leaves a model without such names unchanged.
    """
    for tensor in model.graph.initializer:
        kind, dtype = next((value for suffix, value in HALVES.items() if tensor.name.endswith(suffix)), (None, None))
        if kind is None:
            continue
        narrow = torch.from_numpy(numpy_helper.to_array(tensor).copy()).to(dtype).view(torch.int16).numpy()
        wide = f"{tensor.name}_float32"
        for node in model.graph.node:
            for index, name in enumerate(node.input):
                if name == tensor.name:
                    node.input[index] = wide
        model.graph.node.insert(0, helper.make_node("Cast", [tensor.name], [wide], name=wide, to=TensorProto.FLOAT))
        tensor.CopyFrom(helper.make_tensor(tensor.name, kind, list(tensor.dims), narrow.tobytes(), raw=True))


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
