"""What an ONNX file of a stranger may hold, checked before an engine opens it; no onnx package is needed.

An engine reads files that a graph names, runs loops as long as the graph says, and allocates what a shape says. So a
graph keeps its weights in itself or in files that are hashed as it is, uses only operators without control flow, and
its numbers are of a size that models have. Only the skeleton of the file is read: weights are passed over.
"""

import mmap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

from vlmquant.errors import BundleError

# fmt: off
OPERATORS = frozenset(
    {
        "Abs", "Add", "And", "ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Clip",
        "Concat", "Constant", "ConstantOfShape", "Conv", "ConvInteger", "Cos", "CumSum", "DequantizeLinear",
        "Div", "DynamicQuantizeLinear", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather",
        "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "Greater", "GreaterOrEqual",
        "GroupNormalization", "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization",
        "LayerNormalization", "Less", "LessOrEqual", "Log", "MatMul", "MatMulInteger", "Max", "MaxPool", "Min",
        "Mod", "Mul", "Neg", "Not", "Or", "Pad", "Pow", "QuantizeLinear", "Range", "Reciprocal", "ReduceL2",
        "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Relu", "Reshape", "Round", "Shape", "Sigmoid",
        "Sign", "Sin", "Size", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile",
        "TopK", "Transpose", "Trilu", "Unsqueeze", "Where",
    }
)
# fmt: on
"""Operators of ONNX's own domain; none runs another graph, reads a file or draws at random."""
DOMAINS = ("", "ai.onnx")
MOST_NODES = 200_000
LARGEST_SIZE = 1 << 24
"""No axis, range or constant of a shape is larger; vocabularies and positions are far below."""
TO_THE_END = 1 << 62
"""Beyond it a number means "to the end", as in Slice."""
LARGEST_ATTRIBUTE = 1 << 16

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_INT64 = 7
# Field numbers of onnx.proto.
_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_SPARSE = 1, 5, 11, 12, 15
_NODE_NAMES, _NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = (1, 2, 3), 4, 5, 7
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_TENSOR, _ATTRIBUTE_INTS, _ATTRIBUTE_TENSORS = 1, 3, 5, 8, 10
_ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (6, 11), (22, 23)
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_INT64, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 7, 8, 9
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14


class _Damaged(Exception):
    """The bytes are not those of an ONNX file."""


@dataclass(frozen=True)
class _Graph:
    """A graph that is looked into: what its file is called, and the `weights` beside it with their bytes."""

    file: str
    weights: Mapping[str, int]

    def refuse(self, reason: str) -> NoReturn:
        """Raise the BundleError."""
        raise BundleError(f"{self.file} {reason}; it is not opened. Build the bundle with `vlmquant quantize`")

    def check_numbers(self, numbers: Iterable[int], limit: int, where: str) -> None:
        """Refuse a number that is beyond `limit` and does not mean "to the end"."""
        for number in numbers:
            if limit < abs(number) < TO_THE_END:
                self.refuse(f"has the number {number} in {where}, where {limit} is the largest that is read")


def check_graph(path: Path, weights: Mapping[str, int] = MappingProxyType({})) -> None:
    """Raise BundleError unless the ONNX file at `path` holds only what models are made of.

    `weights` are the files beside it that it may keep weights in, with their bytes.
    """
    if path.stat().st_size == 0:
        raise BundleError(f"{path} is empty, expected an ONNX graph; build the bundle again")
    with path.open("rb") as stream:
        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        _check_model(memoryview(content), _Graph(path.name, weights))
    except (_Damaged, IndexError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is not an ONNX graph; build the bundle again") from error


def _check_model(model: memoryview, graph: _Graph) -> None:
    graphs = 0
    for field, value in _fields(model):
        if field == _MODEL_FUNCTIONS:
            graph.refuse("defines functions")
        if field == _MODEL_GRAPH:
            graphs += 1
            _check_parts(_message(value), graph)
    if graphs != 1:
        raise _Damaged


def _check_parts(content: memoryview, graph: _Graph) -> None:
    nodes = 0
    for field, value in _fields(content):
        if field == _GRAPH_NODE:
            nodes += 1
            if nodes > MOST_NODES:
                graph.refuse(f"has more than {MOST_NODES:,} nodes")
            _check_node(_message(value), graph)
        elif field == _GRAPH_INITIALIZER:
            _check_tensor(_message(value), graph)
        elif field == _GRAPH_SPARSE:
            graph.refuse("holds sparse tensors")
        elif field in (_GRAPH_INPUT, _GRAPH_OUTPUT):
            _check_shape(_message(value), graph)


def _check_node(node: memoryview, graph: _Graph) -> None:
    operator, domain, name = "", "", ""
    for field, value in _fields(node):
        if field == _NODE_OPERATOR:
            operator = _text(value)
        elif field == _NODE_DOMAIN:
            domain = _text(value)
        elif field in _NODE_NAMES:
            name = _text(value)  # its own comes last, and each must be text: engines put it into their messages
        elif field == _NODE_ATTRIBUTE:
            _check_attribute(_message(value), graph)
    if domain not in DOMAINS or operator not in OPERATORS:
        called = f"{domain}.{operator}" if domain else operator
        graph.refuse(f"has the operator {called[:60]!r} at {name[:60]!r}, which no bundle needs")


def _check_attribute(attribute: memoryview, graph: _Graph) -> None:
    name, numbers = "", list[int]()
    for field, value in _fields(attribute):
        if field in _ATTRIBUTE_GRAPHS:
            graph.refuse("holds a graph inside a node")
        elif field in _ATTRIBUTE_SPARSE:
            graph.refuse("holds sparse tensors")
        elif field in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
            _check_tensor(_message(value), graph)
        elif field == _ATTRIBUTE_NAME:
            name = _text(value)
        elif field in (_ATTRIBUTE_INT, _ATTRIBUTE_INTS):
            numbers += _varints(value)
    limit = LARGEST_SIZE if name.startswith("value") else LARGEST_ATTRIBUTE
    graph.check_numbers(numbers, limit, f"attribute {name[:60]!r}")


def _check_tensor(tensor: memoryview, graph: _Graph) -> None:
    elements, type_, name, integers, raw = 1, 0, "", list[int](), memoryview(b"")
    beside: dict[str, str] = {}
    for field, value in _fields(tensor):
        if field == _TENSOR_EXTERNAL:
            beside |= _entry(_message(value))
        elif field == _TENSOR_LOCATION and value not in (0, 1):
            raise _Damaged
        elif field == _TENSOR_DIMS:
            for size in _varints(value):
                graph.check_numbers([size], LARGEST_SIZE, "the shape of a tensor")
                elements *= max(size, 0)
        elif field == _TENSOR_TYPE:
            type_ = value if isinstance(value, int) else 0
        elif field == _TENSOR_NAME:
            name = _text(value)
        elif field == _TENSOR_INT64:
            integers += _varints(value)
        elif field == _TENSOR_RAW:
            raw = _message(value)
    held = len(tensor)
    if beside:
        location = beside.get("location", "")
        if location not in graph.weights:
            graph.refuse(f"keeps weights in {location[:60]!r}, a file that the manifest does not list")
        if type_ == _INT64:
            graph.refuse(f"keeps {name[:60]!r}, which is not a weight, in another file")
        held = graph.weights[location]
    # Two elements of 4 bits are the most that a byte holds.
    if elements > 2 * held:
        graph.refuse(f"has a tensor {name[:60]!r} of {elements:,} elements in {held:,} bytes")
    if type_ == _INT64:
        integers += memoryview(raw[: len(raw) // 8 * 8]).cast("q").tolist()
        graph.check_numbers(integers, LARGEST_SIZE, f"constant {name[:60]!r}")


def _entry(entry: memoryview) -> dict[str, str]:
    """Return the key and the value of a StringStringEntryProto."""
    fields = {field: _text(value) for field, value in _fields(entry)}
    return {fields.get(1, ""): fields.get(2, "")}


def _check_shape(value_info: memoryview, graph: _Graph) -> None:
    """Check the axes of an input or output: ValueInfo.type.tensor_type.shape.dim.dim_value."""
    levels = [value_info]
    for wanted in (2, 1, 2, 1):
        levels = [_message(value) for level in levels for field, value in _fields(level) if field == wanted]
    sizes = [value for level in levels for field, value in _fields(level) if field == 1 and isinstance(value, int)]
    graph.check_numbers([_signed(size) for size in sizes], LARGEST_SIZE, "the shape of an input or output")


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield each field of a protobuf message: its number, and its integer or its bytes."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            number, at = _varint(message, at)
            yield key >> 3, number
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise _Damaged
        if size > end - at:
            raise _Damaged
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the integer at `at` and where it ends."""
    number = shift = 0
    while shift < 70:
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    raise _Damaged


def _varints(value: int | memoryview) -> list[int]:
    """Return the signed integers of a repeated field, which come one by one or packed into bytes."""
    if isinstance(value, int):
        return [_signed(value)]
    numbers, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        numbers.append(_signed(number))
    return numbers


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _Damaged
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode()
