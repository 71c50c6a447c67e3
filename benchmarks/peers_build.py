"""The peers' own quantizers, called as a careful user would: float ONNX graph and calibration samples in, file out.

NNCF and torchao are no dependencies of this project; `benchmarks.peers` says how to install them beside it.
"""

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from vlmquant.bench.measure import bytes_on_disk
from vlmquant.engines import load
from vlmquant.engines.session import AnyArray

Run = Callable[[AnyArray], AnyArray]


@dataclass(frozen=True, kw_only=True)
class Tower:
    """One float tower: as a module, as ONNX, and the samples, each a batch of one, that all calibrate on."""

    component: str
    module: nn.Module
    float_onnx: Path
    samples: Sequence[AnyArray]


@dataclass(frozen=True)
class Built:
    """A quantized tower: how to run it and what it takes on disk."""

    run: Run
    bytes_on_disk: int


@dataclass(frozen=True, kw_only=True)
class FilePeer:
    """`write(tower, output)` makes a file with `suffix` that `engines` run, the peer's own engine first."""

    suffix: str
    engines: tuple[str, ...]
    write: Callable[[Tower, Path], None]


def onnxruntime_static(method: str, what: str) -> Callable[[Tower, Path], None]:
    """ONNX Runtime's `quantize_static`: QDQ, U8 activations, S8 weights per channel, after its own preprocessing.

    `method` names its calibrator. `what` is "default", every operator it knows, the addition of the causal mask among
    them; "constants", the same with its MatMulConstBOnly; or "matmuls", that and convolutions and matrix products only.
    """
    options: dict[str, Any] = {"extra_options": {"MatMulConstBOnly": what != "default"}}
    if what == "matmuls":
        options["op_types_to_quantize"] = ["Conv", "MatMul", "Gemm"]

    def write(tower: Tower, output: Path) -> None:
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        with tempfile.TemporaryDirectory() as scratch:
            prepared = Path(scratch) / "prepared.onnx"
            # Its symbolic shape inference gives up on texts of any length ("Incomplete symbolic shape inference").
            quant_pre_process(tower.float_onnx, prepared, skip_symbolic_shape=tower.component == "text")
            quantize_static(
                prepared,
                output,
                _Reader(tower.samples if method == "MinMax" else _of_one_length(tower.samples)),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod[method],
                **options,
            )

    return write


def _of_one_length(samples: Sequence[AnyArray]) -> list[AnyArray]:
    """Fill texts up with their end token: the histogram calibrators take samples of one shape only."""
    longest = max(sample.shape[-1] for sample in samples)
    if samples[0].ndim != 2:
        return list(samples)
    return [np.pad(sample, ((0, 0), (0, longest - sample.shape[1])), mode="edge") for sample in samples]


class _Reader:
    """What `quantize_static` asks for its inputs."""

    def __init__(self, samples: Sequence[AnyArray]) -> None:
        self._samples: Iterator[AnyArray] = iter(samples)

    def get_next(self) -> dict[str, AnyArray] | None:
        sample = next(self._samples, None)
        return None if sample is None else {"input": sample}


def nncf_static(smoothing: bool) -> Callable[[Tower, Path], None]:
    """NNCF's `quantize` for transformers on OpenVINO; its default is SmoothQuant at 0.95 with fast bias correction."""

    def write(tower: Tower, output: Path) -> None:
        import nncf
        import openvino
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, AdvancedSmoothQuantParameters

        advanced = None
        if not smoothing:
            advanced = AdvancedQuantizationParameters(smooth_quant_alphas=AdvancedSmoothQuantParameters(matmul=-1))
        model = nncf.quantize(
            openvino.Core().read_model(tower.float_onnx),
            nncf.Dataset(list(tower.samples)),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(tower.samples),
            advanced_parameters=advanced,
        )
        openvino.save_model(model, output, compress_to_fp16=False)

    return write


FILE_PEERS: dict[str, FilePeer] = {
    **{
        f"onnxruntime-static-{method.lower()}-{what}": FilePeer(
            suffix=".onnx", engines=("onnxruntime", "openvino"), write=onnxruntime_static(method, what)
        )
        for method, what in (
            ("MinMax", "matmuls"),
            ("Percentile", "matmuls"),
            ("Entropy", "matmuls"),
            ("MinMax", "default"),
            ("MinMax", "constants"),
            ("Percentile", "default"),
        )
    },
    "nncf-default": FilePeer(suffix=".xml", engines=("openvino",), write=nncf_static(smoothing=True)),
    "nncf-no-smoothing": FilePeer(suffix=".xml", engines=("openvino",), write=nncf_static(smoothing=False)),
}


def torch_dynamic(module: nn.Module) -> nn.Module:
    """`torch.ao.quantization.quantize_dynamic` of every Linear."""
    quantize_dynamic: Any = torch.ao.quantization.quantize_dynamic
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cast(nn.Module, quantize_dynamic(copy.deepcopy(module), {nn.Linear}, dtype=torch.qint8))


def torchao_dynamic(module: nn.Module) -> nn.Module:
    """torchao's 8-bit weights per channel and 8-bit activations per token, every Linear, as its documentation says."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    result = copy.deepcopy(module)
    quantize_(result, Int8DynamicActivationInt8WeightConfig())
    return result


def torchao_dynamic_compiled(module: nn.Module) -> nn.Module:
    """The same through `torch.compile`, which is how torchao says it becomes fast."""
    import torch._inductor.config as inductor

    inductor.freezing = True
    return cast(nn.Module, torch.compile(torchao_dynamic(module)))


TORCH_PEERS: Mapping[str, Callable[[nn.Module], nn.Module]] = {
    "torch-dynamic-int8": torch_dynamic,
    "torchao-dynamic-int8": torchao_dynamic,
    "torchao-dynamic-int8-compiled": torchao_dynamic_compiled,
}


def on_torch(module: nn.Module) -> Built:
    """Run a torch module; its size is that of its saved state."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "state.pt"
        torch.save(module.state_dict(), path)
        size = bytes_on_disk(path)

    def run(batch: AnyArray) -> AnyArray:
        with torch.no_grad():
            features = module(torch.from_numpy(np.ascontiguousarray(batch)))
        return np.asarray(features)

    return Built(run, size)


def on_engine(path: Path, engine: str, threads: int | None) -> Built:
    """Run a file on one of the project's engines, in float32 where it is not integers."""
    return Built(load(path, engine, threads), file_bytes(path))


def file_bytes(path: Path) -> int:
    """Return the bytes of a graph; an OpenVINO IR keeps its weights beside it."""
    return sum(bytes_on_disk(part) for part in (path, path.with_suffix(".bin")) if part.exists())
