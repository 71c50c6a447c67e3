"""Whether a written graph can overflow on CPUs that add pairs of INT8 products in 16 bits; see `quantize.portable`."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from vlmquant.engines.cpu import DOT_PRODUCTS
from vlmquant.quantize.portable import LARGEST_ALONE, LARGEST_PAIR, largest_pairs


def required_instruction_sets(graphs: Iterable[Path]) -> tuple[str, ...]:
    """Return the instruction sets of which a CPU needs one for these graphs; empty where any CPU will do."""
    return tuple(sorted(DOT_PRODUCTS)) if any(overflowing_factors(path) for path in graphs) else ()


def overflowing_factors(path: Path) -> tuple[str, ...]:
    """Return the names of the INT8 tensors of an ONNX graph that could overflow where they meet INT8 activations.

    What counts is the integers that are in the file, not what a recipe promised. Of what is not a stored weight, such
    as the second activation of an attention product, the largest integers are expected.
    """
    graph = onnx.load(path).graph
    makers = {name: node for node in graph.node for name in node.output}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    found = []
    for node, name in _integer_products(graph.node, makers):
        if name not in stored or _overflows(numpy_helper.to_array(stored[name]).astype(np.int16), node.op_type):
            found.append(name)
    return tuple(dict.fromkeys(found))


def _integer_products(nodes: Any, makers: Mapping[str, Any]) -> Iterator[tuple[Any, str]]:
    """Yield each product of integer activations with the name of the tensor that its other integers come from."""
    for node in nodes:
        if node.op_type == "MatMulInteger":
            yield node, node.input[1]
        elif node.op_type in ("MatMul", "Conv"):
            left, right = makers.get(node.input[0]), makers.get(node.input[1])
            if right is not None and _dequantizes(left) and _dequantizes(right):
                widened = makers.get(right.input[0])
                yield node, widened.input[0] if widened is not None and widened.op_type == "Cast" else right.input[0]


def _dequantizes(node: Any) -> bool:
    return node is not None and bool(node.op_type == "DequantizeLinear")


def _overflows(weight: NDArray[np.int16], op_type: str) -> bool:
    """`weight` is (in, out) of a matrix product or (out, in, height, width) of a convolution."""
    if op_type != "Conv":
        return bool((largest_pairs(weight.T) > LARGEST_PAIR).any())
    if weight.shape[2:] == (1, 1):
        return bool((largest_pairs(weight.reshape(len(weight), -1)) > LARGEST_PAIR).any())
    return bool((np.abs(weight) > LARGEST_ALONE).any())
