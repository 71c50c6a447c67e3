"""ONNX Runtime on the CPU."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlmquant.engines.audit import Coverage, Kernel, Layer, convolution_macs, matmul_macs
from vlmquant.engines.cpu import Cpu, this_cpu
from vlmquant.engines.entry import Activations, Engine, Preference
from vlmquant.engines.graph import GraphSession, Port
from vlmquant.engines.session import AnyArray, Arithmetic, Session, check_request, import_engine
from vlmquant.errors import EngineError

NAME = "onnxruntime"
PRECISIONS = ("f32",)

# Operators of ONNX and of ONNX Runtime's own domain, as they stand in a graph after its fusions.
INT8_MATMULS = frozenset(
    {
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QAttention",
        "QGemm",
        "QLinearMatMul",
    }
)
FLOAT_MATMULS = frozenset({"FusedGemm", "FusedMatMul", "Gemm", "MatMul", "TransposeMatMul"})
# Weights of 4 bits in groups. By default its kernel rounds float activations to 8 bits, each group by itself.
WEIGHT_ONLY_MATMULS = frozenset({"MatMulNBits"})
INT8_CONVOLUTIONS = frozenset({"ConvInteger", "QLinearConv"})
FLOAT_CONVOLUTIONS = frozenset({"Conv", "FusedConv", "NhwcFusedConv"})
ATTENTIONS = frozenset({"MultiHeadAttention"})
# No operator's name is slow: all multiply integers in MLAS, whose kernels the CPU decides. Fast ones need one of these
# instruction sets. Below AVX2 MLAS takes one row at a time and widens bytes to 16 bits before it multiplies them
# (qgemm_kernel_sse.cpp; the better kernel for SSE4.1 is compiled on Windows only).
FAST_INT8_FEATURES = frozenset({"avx2", "neon"})

_DTYPES: dict[str, np.dtype[Any]] = {"tensor(float)": np.dtype(np.float32), "tensor(int64)": np.dtype(np.int64)}
_ERRORS_ONLY = 3

# Entries of a session's configuration, each to be "1".
_ENTRIES: dict[Arithmetic, tuple[str, ...]] = {
    "integer": (),
    # Nothing is fused over quantized values, so that every product is one of float32 numbers.
    "float": ("session.disable_quant_qdq",),
    # Weights become unsigned, whose kernels widen before they multiply; on CPUs that add pairs in 16 bits, no others.
    "wide": ("session.disable_quant_qdq", "session.x64quantprecision"),
}


def load(path: Path, threads: int | None, precision: str = "f32", arithmetic: Arithmetic = "integer") -> Session:
    """Load the ONNX graph at `path`; `threads` None leaves the number to the engine.

    `arithmetic` "float" reaches what lies between QuantizeLinear and DequantizeLinear, not MatMulInteger; "wide" both.
    Raises EngineError when the package or the file is missing, the file is not a graph of one input and one output, or
    `precision` is not "f32".
    """
    check_request(NAME, path, threads, precision, PRECISIONS)
    session = _session(path, _options(threads, arithmetic))
    return _as_session(session, path)


def load_graph(
    path: Path, threads: int | None, precision: str = "f32", arithmetic: Arithmetic = "integer"
) -> GraphSession:
    """Load the ONNX graph at `path`, of any number of inputs and outputs; otherwise as `load`."""
    check_request(NAME, path, threads, precision, PRECISIONS)
    return _as_graph_session(_session(path, _options(threads, arithmetic)))


def audit(path: Path, *examples: AnyArray) -> Coverage:
    """Run `examples`, one for each input, once under ONNX Runtime's profiler and return every layer's kernel."""
    check_request(NAME, path, None, "f32", PRECISIONS)
    with tempfile.TemporaryDirectory() as folder:
        options = _options(None, "integer")
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        # Packed weights vanish from the profile, and with them their shapes; the choice of kernels stays the same.
        options.add_session_config_entry("session.disable_prepacking", "1")
        session = _session(path, options)
        _as_graph_session(session)(*examples)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    cpu = this_cpu()
    return Coverage(NAME, tuple(layer for node in nodes if (layer := _layer(node, cpu)) is not None))


def _import() -> Any:
    return import_engine("onnxruntime")


def _options(threads: int | None, arithmetic: Arithmetic) -> Any:
    ort = _import()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = _ERRORS_ONLY
    for entry in _ENTRIES[arithmetic]:
        options.add_session_config_entry(entry, "1")
    return options


def _session(path: Path, options: Any) -> Any:
    try:
        return _import().InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exception classes have no common base but this
        raise EngineError(f"onnxruntime cannot load {path}: {error}") from error


def _as_session(session: Any, path: Path) -> Session:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    dtype = inputs[0].type if inputs else "none"
    if len(inputs) != 1 or len(outputs) != 1 or dtype not in _DTYPES:
        raise EngineError(
            f"{path} has {len(inputs)} inputs (the first of {dtype}) and {len(outputs)} outputs; "
            "expected one input of tensor(float) or tensor(int64) and one output"
        )
    name = inputs[0].name
    return Session(
        name=NAME,
        threads=session.get_session_options().intra_op_num_threads or None,
        input_shape=tuple(size if isinstance(size, int) else None for size in inputs[0].shape),
        input_dtype=_DTYPES[dtype],
        run=lambda array: session.run(None, {name: array})[0],
    )


def _as_graph_session(session: Any) -> GraphSession:
    names = [port.name for port in session.get_inputs()]

    def run(arrays: Sequence[AnyArray]) -> tuple[AnyArray, ...]:
        return tuple(session.run(None, dict(zip(names, arrays, strict=True))))

    return GraphSession(
        name=NAME,
        threads=session.get_session_options().intra_op_num_threads or None,
        inputs=[
            Port(port.name, tuple(size if isinstance(size, int) else None for size in port.shape), _DTYPES[port.type])
            for port in session.get_inputs()
        ],
        outputs=[port.name for port in session.get_outputs()],
        run=run,
    )


def _layer(node: dict[str, Any], cpu: Cpu) -> Layer | None:
    op = str(node["args"]["op_name"])
    inputs, outputs = (_shapes(node["args"][key]) for key in ("input_type_shape", "output_type_shape"))
    if op in INT8_MATMULS | WEIGHT_ONLY_MATMULS | FLOAT_MATMULS:
        macs = matmul_macs(outputs[0], _depth(inputs[0], outputs[0]))
    elif op in INT8_CONVOLUTIONS | FLOAT_CONVOLUTIONS:
        kernel = inputs[3] if op == "QLinearConv" else inputs[1]
        macs = convolution_macs(outputs[0], kernel)
    elif op in ATTENTIONS:
        query, key, value = inputs[:3]
        macs = matmul_macs((*query[:-1], key[-2]), query[-1] + value[-1])
    else:
        return None
    name = str(node["name"]).removesuffix("_kernel_time")
    return Layer(name, op, macs, _kernel(op), op, _is_fast(op, cpu))


def _kernel(op: str) -> Kernel:
    if op in INT8_MATMULS | INT8_CONVOLUTIONS:
        return "int8"
    return "weight-only" if op in WEIGHT_ONLY_MATMULS else "float"


def _is_fast(op: str, cpu: Cpu) -> bool:
    return _kernel(op) == "float" or cpu.features is None or bool(cpu.features & FAST_INT8_FEATURES)


def _depth(left: Sequence[int], output: Sequence[int]) -> int:
    # The fused operators may take the left matrix transposed; its other axis is then the one summed over.
    transposed = len(left) > 1 and left[-2] != output[-2] and left[-1] == output[-2]
    return left[-2] if transposed else left[-1]


def _shapes(entries: Sequence[dict[str, list[int]]]) -> list[list[int]]:
    return [shape for entry in entries for shape in entry.values()]


def _preference(activations: Activations, cpu: Cpu) -> Preference:
    if activations == "dynamic":
        return Preference(2, "it multiplies integers with scales taken at run time; OpenVINO would compute in float")
    if activations == "static" and cpu.is_x86:
        return Preference(1, f"OpenVINO has no fast INT8 kernels for a CPU without VNNI ({cpu.model})")
    what = "stored scales" if activations == "static" else "float"
    return Preference(1, f"usually the fastest for {what} on {cpu.machine}")


def _safe_arithmetic(activations: Activations) -> Arithmetic:
    return "wide" if activations == "dynamic" else "float"


def _lacks(precision: str) -> str | None:
    del precision  # every CPU computes in float32
    return None


ENGINE = Engine(
    name=NAME,
    title="ONNX Runtime",
    package="onnxruntime",
    precisions=PRECISIONS,
    load=load,
    load_graph=load_graph,
    audit=audit,
    preference=_preference,
    safe_arithmetic=_safe_arithmetic,
    lacks=_lacks,
)
