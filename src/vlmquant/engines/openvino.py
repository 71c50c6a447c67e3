"""OpenVINO on the CPU."""

import importlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from vlmquant.engines.audit import Coverage, Layer, convolution_macs, matmul_macs
from vlmquant.engines.session import AnyArray, Session, check_request
from vlmquant.errors import EngineError

NAME = "openvino"
PRECISIONS = ("f32", "bf16")

INT8_PRECISIONS = frozenset({"i8", "u8"})

_DTYPES: dict[str, np.dtype[Any]] = {"f32": np.dtype(np.float32), "i64": np.dtype(np.int64)}


def load(path: Path, threads: int | None, precision: str = "f32") -> Session:
    """Load the ONNX graph at `path`; `threads` None leaves the number to the engine.

    Float layers compute in `precision`, "f32" or "bf16": on CPUs with BF16 OpenVINO would take that unasked.
    Raises EngineError when the package or the file is missing, the file is no graph of one input and one output, or
    `precision` is another.
    """
    check_request(NAME, path, threads, precision, PRECISIONS)
    model = _read(path)
    return _as_session(model, _Compiled(model, _properties(threads, precision)), path, threads)


def audit(path: Path, example: AnyArray) -> Coverage:
    """Run `example` once and return which layers of the compiled graph OpenVINO gave to INT8 kernels.

    MACs are those of the graph in the file; a layer that cannot be found again in the compiled graph counts as float.
    """
    check_request(NAME, path, None, "f32", PRECISIONS)
    model = _read(path)
    compiled = _Compiled(model, _properties(None, "f32"))
    _as_session(model, compiled, path, None)(example)
    kernels = _executed_in(compiled.for_shape(example.shape).get_compiled_model().get_runtime_model())
    model.reshape(list(example.shape))
    layers = []
    for operation in model.get_ordered_ops():
        macs = _macs(operation)
        if macs:
            name = operation.get_friendly_name()
            layers.append(Layer(name, operation.get_type_name(), macs, int8=kernels.get(name) in INT8_PRECISIONS))
    return Coverage(NAME, tuple(layers))


class _Compiled:
    """The graph compiled once per input shape, the latest few kept: with its shapes known a graph runs faster."""

    LIMIT = 4

    def __init__(self, model: Any, properties: dict[str, Any]) -> None:
        self._model = model
        self._properties = properties
        self._requests: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    def __call__(self, array: AnyArray) -> AnyArray:
        request = self.for_shape(array.shape)
        request.infer([array], share_inputs=True)
        # The engine writes the next result into the same memory, so the caller gets his own.
        return np.array(request.get_output_tensor().data)

    def for_shape(self, shape: tuple[int, ...]) -> Any:
        request = self._requests.pop(shape, None)
        if request is None:
            model = self._model.clone()
            model.reshape(list(shape))
            request = _import().Core().compile_model(model, "CPU", self._properties).create_infer_request()
            if len(self._requests) == self.LIMIT:
                self._requests.popitem(last=False)
        self._requests[shape] = request
        return request


def _import() -> Any:
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise EngineError("the engine openvino is not installed; run: pip install openvino") from error


def _properties(threads: int | None, precision: str) -> dict[str, Any]:
    properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    return properties if threads is None else {**properties, "INFERENCE_NUM_THREADS": threads}


def _read(path: Path) -> Any:
    openvino = _import()
    try:
        return openvino.Core().read_model(path)
    except RuntimeError as error:
        raise EngineError(f"openvino cannot load {path}: {error}") from error


def _as_session(model: Any, run: _Compiled, path: Path, threads: int | None) -> Session:
    dtype = model.inputs[0].get_element_type().get_type_name() if model.inputs else "none"
    if len(model.inputs) != 1 or len(model.outputs) != 1 or dtype not in _DTYPES:
        raise EngineError(
            f"{path} has {len(model.inputs)} inputs and {len(model.outputs)} outputs; "
            "expected one input of float32 or int64 and one output"
        )
    shape = model.inputs[0].get_partial_shape()
    return Session(
        name=NAME,
        threads=threads,
        input_shape=tuple(axis.get_length() if axis.is_static else None for axis in shape),
        input_dtype=_DTYPES[dtype],
        run=run,
    )


def _macs(operation: Any) -> int:
    kind = operation.get_type_name()
    if kind == "MatMul":
        left = list(operation.input(0).get_shape())
        transposed = bool(operation.get_attributes()["transpose_a"]) and len(left) > 1
        return matmul_macs(list(operation.output(0).get_shape()), left[-2] if transposed else left[-1])
    if kind == "Convolution":
        return convolution_macs(list(operation.output(0).get_shape()), list(operation.input(1).get_shape()))
    if kind == "GroupConvolution":  # kernel (groups, out / groups, in / groups, ...)
        return convolution_macs(list(operation.output(0).get_shape()), list(operation.input(1).get_shape())[1:])
    if kind == "ScaledDotProductAttention":
        query, key, value = (list(operation.input(i).get_shape()) for i in range(3))
        return matmul_macs([*query[:-1], key[-2]], query[-1] + value[-1])
    return 0


def _executed_in(runtime_model: Any) -> dict[str, str]:
    """Map each layer's name in the file to the precision of the kernel that it was fused into."""
    precisions: dict[str, str] = {}
    for node in runtime_model.get_ordered_ops():
        facts = {key: str(getattr(value, "value", value)) for key, value in node.get_rt_info().items()}
        # "runtimePrecision" is that of the first input; the kernel's own name has the last word on integers.
        integer = facts["runtimePrecision"] in INT8_PRECISIONS and facts["primitiveType"].lower().endswith("i8")
        precision = facts["runtimePrecision"] if integer else "float"
        for name in facts["originalLayersNames"].split(","):
            if name and facts["layerType"] not in {"Const", "Input", "Reorder", "Transpose"}:
                precisions.setdefault(name, precision)
    return precisions
