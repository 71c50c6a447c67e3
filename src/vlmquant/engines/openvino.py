"""OpenVINO on the CPU."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlmquant.engines.audit import Coverage, Kernel, Layer, convolution_macs, matmul_macs
from vlmquant.engines.cpu import Cpu
from vlmquant.engines.entry import Activations, Engine, Preference
from vlmquant.engines.graph import GraphSession, Port
from vlmquant.engines.session import AnyArray, Arithmetic, Session, check_request, import_engine
from vlmquant.errors import EngineError

NAME = "openvino"
PRECISIONS = ("f32", "bf16")

INTEGERS = frozenset({"i8", "u8", "i4", "u4"})
MULTIPLYING_KERNELS = frozenset({"Convolution", "FullyConnected", "MatMul", "ScaledDotProductAttention", "Subgraph"})

# Parts of the names of slow implementations, in which integers are no faster than float.
SLOW_IMPLEMENTATIONS = (
    # Plain loops, for what no other implementation can do: ref_I8, ref_any_I8.
    "ref",
    # oneDNN's matrix product in plain C++, for CPUs it has no instructions for: gemm_any_I8.
    "gemm_any",
    # oneDNN's older matrix product, what is left on x86 without VNNI or AMX (with them it is brgemm_avx512_I8 or
    # brgemm_avx512_amx_I8). ViT-B/32 on one core of an AMD Zen 3 with AVX2: 184 ms in its 72 jit_gemm_I8, 174 ms for
    # the same layers in brgemm_avx2_f32. The convolution's jit_avx2_I8 is fast there: 3.0 ms, in float 5.6 ms.
    "jit_gemm",
)

RESCALING = "/Dequantization"

_DTYPES: dict[str, np.dtype[Any]] = {"f32": np.dtype(np.float32), "i64": np.dtype(np.int64)}
_UNKNOWN = "unknown"


def load(path: Path, threads: int | None, precision: str = "f32", arithmetic: Arithmetic = "integer") -> Session:
    """Load the ONNX graph at `path`; `threads` None leaves the number to the engine.

    Float layers compute in `precision`, "f32" or "bf16": on CPUs with BF16 OpenVINO would take that unasked.
    Raises EngineError when the package or the file is missing, the file is not a graph of one input and one output, or
    `precision` is another.
    """
    check_request(NAME, path, threads, precision, PRECISIONS)
    model = _read(path)
    return _as_session(model, _compile(model, path, threads, precision, arithmetic), path)


def load_graph(
    path: Path, threads: int | None, precision: str = "f32", arithmetic: Arithmetic = "integer"
) -> GraphSession:
    """Load the ONNX graph at `path`, of any number of inputs and outputs; otherwise as `load`."""
    check_request(NAME, path, threads, precision, PRECISIONS)
    model = _read(path)
    return _as_graph_session(model, _compile(model, path, threads, precision, arithmetic))


def audit(path: Path, *examples: AnyArray) -> Coverage:
    """Return which layers of the compiled graph OpenVINO gave to INT8 kernels, with the MACs `examples` take.

    MACs are those of the graph in the file; a layer that cannot be found again in the compiled graph counts as float.
    """
    check_request(NAME, path, None, "f32", PRECISIONS)
    model = _read(path)
    compiled = _compile(model, path, None, "f32", "integer")
    _as_graph_session(model, compiled)(*examples)
    kernels = _kernels(compiled.get_runtime_model())
    model.reshape({port: list(example.shape) for port, example in zip(model.inputs, examples, strict=True)})
    return Coverage(
        NAME,
        tuple(
            Layer(name, operation.get_type_name(), macs, *kernels.get(name, ("float", _UNKNOWN, True)))
            for operation in model.get_ordered_ops()
            if (macs := _macs(operation)) and (name := operation.get_friendly_name())
        ),
    )


def capabilities() -> tuple[str, ...]:
    """Return OpenVINO's names of what this CPU can compute in: FP32, BF16, INT8, ..."""
    return tuple(_import().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _import() -> Any:
    # Else the import itself sends statistics over the network; openvino has a stub for where this is missing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return import_engine("openvino")


def _compile(model: Any, path: Path, threads: int | None, precision: str, arithmetic: Arithmetic) -> Any:
    # Compiled once with its axes left open: on ViT-B/32 within 3 % of a graph compiled for one batch size.
    properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        properties["INFERENCE_NUM_THREADS"] = threads
    if arithmetic != "integer":
        # Without its low-precision transformations the plugin multiplies float32 numbers, quantized or not.
        properties["LP_TRANSFORMS_MODE"] = "NO"
        # On CPUs with VNNI it would round the inputs of products with 8-bit weights to 8 bits, by groups of 32.
        properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0
    try:
        return _import().Core().compile_model(model, "CPU", properties)
    except RuntimeError as error:
        raise EngineError(f"openvino cannot compile {path} for this CPU: {error}") from error


def _read(path: Path) -> Any:
    openvino = _import()
    try:
        return openvino.Core().read_model(path)
    except (RuntimeError, UnicodeDecodeError) as error:
        raise EngineError(f"openvino cannot load {path}: {error}") from error


def _as_session(model: Any, compiled: Any, path: Path) -> Session:
    dtype = model.inputs[0].get_element_type().get_type_name() if model.inputs else "none"
    if len(model.inputs) != 1 or len(model.outputs) != 1 or dtype not in _DTYPES:
        raise EngineError(
            f"{path} has {len(model.inputs)} inputs (the first of {dtype}) and {len(model.outputs)} outputs; "
            "expected one input of f32 or i64 and one output"
        )
    request = compiled.create_infer_request()

    def run(array: AnyArray) -> AnyArray:
        request.infer([array], share_inputs=True)
        # The engine writes its next result into the same memory, so the caller gets a copy.
        return np.array(request.get_output_tensor().data)

    shape = model.inputs[0].get_partial_shape()
    return Session(
        name=NAME,
        threads=int(compiled.get_property("INFERENCE_NUM_THREADS")),
        input_shape=tuple(axis.get_length() if axis.is_static else None for axis in shape),
        input_dtype=_DTYPES[dtype],
        run=run,
    )


def _as_graph_session(model: Any, compiled: Any) -> GraphSession:
    request = compiled.create_infer_request()

    def run(arrays: Sequence[AnyArray]) -> tuple[AnyArray, ...]:
        request.infer(list(arrays), share_inputs=True)
        # The engine writes its next results into the same memory, so the caller gets copies.
        return tuple(np.array(tensor.data) for tensor in request.output_tensors)

    return GraphSession(
        name=NAME,
        threads=int(compiled.get_property("INFERENCE_NUM_THREADS")),
        inputs=[
            Port(
                port.get_any_name(),
                tuple(axis.get_length() if axis.is_static else None for axis in port.get_partial_shape()),
                _DTYPES[port.get_element_type().get_type_name()],
            )
            for port in model.inputs
        ],
        outputs=[port.get_any_name() for port in model.outputs],
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


def _kernels(runtime_model: Any) -> dict[str, tuple[Kernel, str, bool]]:
    """Return, by its name in the file, the kernel of the compiled graph each layer went into, its name and speed."""
    kernels: dict[str, tuple[Kernel, str, bool]] = {}
    for node in runtime_model.get_ordered_ops():
        facts = {key: str(getattr(value, "value", value)) for key, value in node.get_rt_info().items()}
        if facts["layerType"] in MULTIPLYING_KERNELS:
            kernel = _kernel(facts), facts["primitiveType"], _is_fast(facts["primitiveType"])
            kernels |= dict.fromkeys(facts["originalLayersNames"].split(","), kernel)
    # Of a layer whose sums are rescaled in the same kernel sometimes only the rescaling keeps a name.
    return {name.split(RESCALING)[0]: kernel for name, kernel in kernels.items()} | kernels


def _kernel(facts: Mapping[str, str]) -> Kernel:
    # `runtimePrecision` is that of the narrowest input, `primitiveType` the kernel itself: brgemm_avx512_I8.
    if facts["runtimePrecision"] not in INTEGERS:
        return "float"
    return "int8" if facts["primitiveType"].lower().endswith("i8") else "weight-only"


def _is_fast(implementation: str) -> bool:
    return not any(word in implementation for word in SLOW_IMPLEMENTATIONS)


def _preference(activations: Activations, cpu: Cpu) -> Preference:
    if activations == "float":
        return Preference(2, "it reads integer weights as they are; ONNX Runtime makes a float copy of them")
    if activations == "dynamic":
        return Preference(0, "it computes in float where scales are taken at run time")
    if not cpu.is_x86 or cpu.exact_dot_product is False:
        return Preference(0, f"it has no fast INT8 kernels for this CPU ({cpu.model})")
    return Preference(2, f"usually the fastest for stored scales on x86 with VNNI ({cpu.model})")


def _safe_arithmetic(activations: Activations) -> Arithmetic:
    del activations
    return "float"


def _lacks(precision: str) -> str | None:
    if precision != "bf16" or "BF16" in (found := capabilities()):
        return None
    return f"this CPU has no BF16; OpenVINO lists {', '.join(found)}"


ENGINE = Engine(
    name=NAME,
    title="OpenVINO",
    package="openvino",
    precisions=PRECISIONS,
    load=load,
    load_graph=load_graph,
    audit=audit,
    preference=_preference,
    safe_arithmetic=_safe_arithmetic,
    lacks=_lacks,
)
