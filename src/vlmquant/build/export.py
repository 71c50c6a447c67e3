"""A torch tower, float or quantized, to one standard ONNX file."""

import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxscript import opset18 as op
from torch import Tensor, nn

from vlmquant.build.narrow import store_in_4_bits, store_in_16_bits
from vlmquant.files import write_whole
from vlmquant.quantize import modules, rounding  # noqa: F401  (they register the operators translated below)

OPSET = 18
LARGEST_FILE = (1 << 31) - (64 << 20)
"""Bytes of weights; protobuf cannot write 2 GiB, and the rest of a graph takes some."""
LEAST_BESIDE = 1 << 16
"""Bytes of the smallest tensor that is kept beside a graph: shapes and positions stay in it."""


def _fake_quantize(values: Any, scale: float, zero_point: int, qmin: int, qmax: int) -> Any:
    # QuantizeLinear saturates at the ends of its integer type; a narrower grid has to be clipped on the way in.
    step = op.Constant(value_float=scale)
    zero = op.Cast(op.Constant(value_int=zero_point), to=onnx.TensorProto.UINT8)
    if (qmin, qmax) != (0, 255):
        values = op.Clip(
            values,
            op.Constant(value_float=(qmin - zero_point) * scale),
            op.Constant(value_float=(qmax - zero_point) * scale),
        )
    return op.DequantizeLinear(op.QuantizeLinear(values, step, zero), step, zero)


def _dequantize_weight(integers: Any, scales: Any, axis: int) -> Any:
    return op.DequantizeLinear(integers, scales, axis=axis)


def _dequantize_groups(integers: Any, scales: Any, group_size: int) -> Any:
    # Opset 18 knows no groups; `store_in_4_bits` adds the block size and raises the opset.
    return op.DequantizeLinear(integers, scales, axis=0)


def _linear_per_token(values: Any, weight_integers: Any, weight_scales: Any, bits: int) -> Any:
    qmax = op.Constant(value_float=float(2**bits - 1))
    zero = op.Constant(value_float=0.0)
    last = op.Constant(value_ints=[-1])
    low = op.Min(op.ReduceMin(values, last, keepdims=1), zero)
    high = op.Max(op.ReduceMax(values, last, keepdims=1), zero)
    scale = op.Max(op.Div(op.Sub(high, low), qmax), op.Constant(value_float=1e-12))
    zero_point = op.Round(op.Div(op.Neg(low), scale))
    integers = op.Clip(op.Add(op.Round(op.Div(values, scale)), zero_point), zero, qmax)
    # MatMulInteger takes one zero point for all rows, so each row's own is taken out afterwards through column sums.
    product = op.Cast(
        op.MatMulInteger(op.Cast(integers, to=onnx.TensorProto.UINT8), weight_integers), to=onnx.TensorProto.FLOAT
    )
    column_sums = op.ReduceSum(op.Cast(weight_integers, to=onnx.TensorProto.FLOAT), op.Constant(value_ints=[0]))
    return op.Mul(op.Sub(product, op.Mul(zero_point, column_sums)), op.Mul(scale, weight_scales))


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    return {
        torch.ops.vlmquant.fake_quantize.default: _fake_quantize,
        torch.ops.vlmquant.dequantize_weight.default: _dequantize_weight,
        torch.ops.vlmquant.dequantize_groups.default: _dequantize_groups,
        torch.ops.vlmquant.linear_per_token.default: _linear_per_token,
    }


def export_tower(tower: nn.Module, example: Tensor, dynamic_axes: tuple[int, ...], path: Path) -> None:
    """Write `tower` as ONNX to `path`, its input called "input" and its output "features"; see `export_graph`.

    The axes of the input named in `dynamic_axes` may vary.
    """
    export_graph(tower, {"input": example}, {"input": dynamic_axes}, ("features",), path)


def export_graph(
    graph: nn.Module,
    examples: Mapping[str, Tensor],
    dynamic_axes: Mapping[str, tuple[int, ...]],
    outputs: Sequence[str],
    path: Path,
) -> None:
    """Write `graph`, called with `examples` in their order, as ONNX to `path`.

    The axes that `dynamic_axes` names for an input may vary. The opset is 18, or 21 where weights are stored in 4 bits
    or in groups. Quantized operations come out as QuantizeLinear/DequantizeLinear pairs around MatMul and Conv,
    per-token ones as MatMulInteger. The file appears whole or not at all.
    """
    shapes = tuple(dict.fromkeys(dynamic_axes.get(name, ()), torch.export.Dim.DYNAMIC) for name in examples)
    with _quiet_exporter(), torch.inference_mode():
        program = torch.onnx.export(
            graph.eval(),
            tuple(examples.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(examples),
            output_names=list(outputs),
            dynamic_shapes=_by_parameter(graph, shapes),
            custom_translation_table=_translations(),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    store_in_4_bits(model)
    store_in_16_bits(model)
    _forget_traces(model)
    _save(model, path)


def _save(model: Any, path: Path) -> None:
    """Write `model` to `path`; weights beyond what one such file can hold go into a file beside it."""
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) > LARGEST_FILE:
        weights = path.with_suffix(".weights")
        weights.unlink(missing_ok=True)  # it would be appended to
        onnx.save(model, path, save_as_external_data=True, location=weights.name, size_threshold=LEAST_BESIDE)
        return
    write_whole(path, model.SerializeToString())


def _by_parameter(graph: nn.Module, shapes: tuple[Any, ...]) -> tuple[Any, ...]:
    """Nest the shapes of the inputs that `graph` takes as `*rest` into one tuple, as torch.export wants them."""
    kinds = [parameter.kind for parameter in inspect.signature(graph.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return shapes
    named = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*shapes[:named], shapes[named:])


def _forget_traces(model: Any) -> None:
    """Drop the exporter's notes on the Python code: stack traces with this machine's paths, megabytes of them."""
    graph = model.graph
    for holder in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del holder.metadata_props[:]
    for function in model.functions:
        del function.metadata_props[:]


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence what the exporter says about its own internals and about torchvision, which is not used here."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
