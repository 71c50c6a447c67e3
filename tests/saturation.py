"""An engine as on x86 CPUs without VNNI: products of bytes added two by two in 16 bits, which saturate."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from vlmquant.engines import ENGINES, Engine, Preference
from vlmquant.engines.graph import GraphSession, Port
from vlmquant.engines.session import Arithmetic, Session

NAME = "saturating"
DOMAIN = "test.saturation"


def saturating_product(activations: NDArray[np.uint8], weights: NDArray[np.int8]) -> NDArray[np.int64]:
    """Return the product of (..., in) and (in, out) as VPMADDUBSW and VPMADDWD compute it: pairs in 16 bits."""
    depth = activations.shape[-1]
    padded = np.pad(activations.astype(np.int64), [(0, 0)] * (activations.ndim - 1) + [(0, depth % 2)])
    rows = np.pad(weights.astype(np.int64), [(0, depth % 2), (0, 0)])
    total = np.zeros((*activations.shape[:-1], weights.shape[1]), dtype=np.int64)
    for first in range(0, depth, 2):
        pair = padded[..., first : first + 2] @ rows[first : first + 2]
        total += np.clip(pair, -(2**15), 2**15 - 1)
    return total


class SaturatingMatMul(OpRun):
    """Quantized activations and weights with their scales to the float product that such a CPU gives."""

    op_domain = DOMAIN

    def _run(self, activations: Any, scale: Any, zero: Any, weights: Any, weight_scale: Any) -> tuple[Any]:
        product = saturating_product(activations, weights) - int(zero) * weights.astype(np.int64).sum(axis=0)
        return ((product * (scale * weight_scale)).astype(np.float32),)


def saturating_graph(path: Path) -> Any:
    """Return the graph at `path` with every product of integers by `SaturatingMatMul`."""
    model = onnx.load(path)
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        left, right = (makers.get(name) for name in node.input[:2]) if node.op_type == "MatMul" else (None, None)
        if left is not None and right is not None and {left.op_type, right.op_type} == {"DequantizeLinear"}:
            node.op_type, node.domain = "SaturatingMatMul", DOMAIN
            inputs = [*left.input, *right.input[:2]]
            del node.input[:]
            node.input.extend(inputs)
    model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    return model


def load(path: Path, threads: int | None, precision: str = "f32", arithmetic: Arithmetic = "integer") -> Session:
    """Load a tower; "float" arithmetic evaluates its standard operators, which saturate nowhere."""
    model = saturating_graph(path) if arithmetic == "integer" else onnx.load(path)
    # The evaluator knows QuantizeLinear and its like from opset 19 on; nothing that is used here has changed.
    next(entry for entry in model.opset_import if entry.domain == "").version = 21
    evaluator = ReferenceEvaluator(model, new_ops=[SaturatingMatMul])
    (port,) = model.graph.input
    sizes = port.type.tensor_type.shape.dim
    dtype = onnx.helper.tensor_dtype_to_np_dtype(port.type.tensor_type.elem_type)
    return Session(
        name=NAME,
        threads=1,
        input_shape=tuple(size.dim_value if size.HasField("dim_value") else None for size in sizes),
        input_dtype=dtype,
        run=lambda array: evaluator.run(None, {port.name: array})[0],
    )


def load_graph(
    path: Path, threads: int | None, precision: str = "f32", arithmetic: Arithmetic = "integer"
) -> GraphSession:
    """Load a tower as a graph of one input and one output; otherwise as `load`."""
    session = load(path, threads, precision, arithmetic)
    return GraphSession(
        name=NAME,
        threads=1,
        inputs=[Port("input", session.input_shape, session.input_dtype)],
        outputs=["features"],
        run=lambda arrays: (session(arrays[0]),),
    )


def _never(*arguments: Any, **keywords: Any) -> Any:
    raise AssertionError("this engine is not audited")


SATURATING = Engine(
    name=NAME,
    title="Saturating",
    package="onnx",
    precisions=("f32",),
    load=load,
    load_graph=load_graph,
    audit=_never,
    preference=lambda activations, cpu: Preference(1, "there is no other"),
    safe_arithmetic=lambda activations: "float",
    lacks=lambda precision: None,
)


def only(engines: Sequence[Engine]) -> dict[str, Engine]:
    """Return a table of engines to stand in for `ENGINES`."""
    return {entry.name: entry for entry in engines}


def main() -> None:
    """Answer as the proof worker does, on this engine alone."""
    from vlmquant.bundle import proof_worker

    ENGINES.clear()
    ENGINES.update(only([SATURATING]))
    proof_worker.main()


if __name__ == "__main__":
    main()
