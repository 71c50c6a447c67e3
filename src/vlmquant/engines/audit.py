"""Integer coverage: which multiply-accumulates an engine really executed in INT8 kernels."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kernel = Literal["int8", "weight-only", "float"]
"""What executed a layer: "int8" multiplied integers by integers, activations quantized as the graph says;
"weight-only" read narrow integer weights next to float activations (which the engine may round to 8 bits by itself);
"float" neither."""


@dataclass(frozen=True)
class Layer:
    """One multiplication of the executed graph: Linear, convolution or attention MatMul.

    `macs`: multiply-accumulates for the example that was run. `implementation` is the engine's own name for what
    executed it (jit_gemm_I8, QLinearMatMul), "unknown" where the engine does not say. `fast` is False for a reference
    or emulated implementation, which makes integers no faster than float; each engine's table says which those are.
    """

    name: str
    op: str
    macs: int
    kernel: Kernel
    implementation: str
    fast: bool


@dataclass(frozen=True)
class Coverage:
    """The layers of one graph as `engine` executed it; attention MatMuls are layers too."""

    engine: str
    layers: tuple[Layer, ...]

    @property
    def total_macs(self) -> int:
        """Multiply-accumulates of all layers."""
        return sum(layer.macs for layer in self.layers)

    @property
    def int8_share(self) -> float:
        """Share of `total_macs` executed in INT8 kernels, 0..1; 0 for a graph without multiplications."""
        return self.share("int8")

    @property
    def fast_int8_share(self) -> float:
        """Share of `total_macs` executed in fast INT8 kernels, 0..1: what of `int8_share` can be faster than float."""
        return self._share(layer for layer in self.layers if layer.kernel == "int8" and layer.fast)

    @property
    def slow_int8_kernels(self) -> tuple[str, ...]:
        """The engine's names of the INT8 kernels in use that are not fast, each once."""
        return tuple(sorted({layer.implementation for layer in self._slow_int8}))

    def share(self, kernel: Kernel) -> float:
        """Share of `total_macs` executed in kernels of this kind, 0..1; 0 for a graph without multiplications."""
        return self._share(layer for layer in self.layers if layer.kernel == kernel)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; layers that are not INT8, or slow INT8, are named with their MACs."""
        return {
            "engine": self.engine,
            "total_macs": self.total_macs,
            "int8_share": self.int8_share,
            "fast_int8_share": self.fast_int8_share,
            "slow_int8_kernels": list(self.slow_int8_kernels),
            "slow_int8_layers": {layer.name: layer.macs for layer in self._slow_int8},
            "weight_only_layers": self._macs("weight-only"),
            "float_layers": self._macs("float"),
        }

    @property
    def _slow_int8(self) -> tuple[Layer, ...]:
        return tuple(layer for layer in self.layers if layer.kernel == "int8" and not layer.fast)

    def _share(self, layers: Iterable[Layer]) -> float:
        return sum(layer.macs for layer in layers) / self.total_macs if self.total_macs else 0.0

    def _macs(self, kernel: Kernel) -> dict[str, int]:
        return {layer.name: layer.macs for layer in self.layers if layer.kernel == kernel}


def combined_share(coverages: Iterable[Coverage]) -> float:
    """Share of the MACs of all graphs together that ran in INT8 kernels, 0..1."""
    total = integer = 0.0
    for coverage in coverages:
        total += coverage.total_macs
        integer += coverage.int8_share * coverage.total_macs
    return integer / total if total else 0.0


def matmul_macs(output_shape: Sequence[int], depth: int) -> int:
    """Multiply-accumulates of a matrix product: every output element sums `depth` products."""
    return math.prod(output_shape) * depth


def convolution_macs(output_shape: Sequence[int], kernel_shape: Sequence[int]) -> int:
    """MACs of a convolution: (n, out, ...) output, (out, in / groups, ...) kernel."""
    return math.prod(output_shape) * math.prod(kernel_shape[1:])
