"""The quantized operations as torch modules: the simulation that is also what gets exported.

Two custom operators carry the arithmetic through `torch.export` unchanged; `bundle/export.py` translates each into
standard ONNX. Integers live in buffers, so a quantized module's `state_dict` is as small as its file.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmquant.quantize.affine import Grid, channel_scales, quantize_rows


@torch.library.custom_op("vlmquant::fake_quantize", mutates_args=())
def fake_quantize(values: Tensor, scale: float, zero_point: int, qmin: int, qmax: int) -> Tensor:
    """Round float32 `values` to the grid `(q - zero_point) * scale`, q in [qmin, qmax]; same shape."""
    return torch.fake_quantize_per_tensor_affine(values, scale, zero_point, qmin, qmax)


@fake_quantize.register_fake
def _(values: Tensor, scale: float, zero_point: int, qmin: int, qmax: int) -> Tensor:
    return torch.empty_like(values)


@torch.library.custom_op("vlmquant::linear_per_token", mutates_args=())
def linear_per_token(values: Tensor, weight_integers: Tensor, weight_scales: Tensor, bits: int) -> Tensor:
    """Multiply float32 `values` (..., in) by INT8 `weight_integers` (in, out) in integers; float32 (..., out).

    Each token (row) is rounded on its own asymmetric grid over [min, max] with zero included, so what a row becomes
    never depends on who shares its batch.
    """
    qmax = 2**bits - 1
    low = values.amin(dim=-1, keepdim=True).clamp(max=0)
    high = values.amax(dim=-1, keepdim=True).clamp(min=0)
    scale = ((high - low) / qmax).clamp(min=1e-12)
    zero_point = torch.round(-low / scale)
    rounded = torch.clamp(torch.round(values / scale) + zero_point, 0, qmax) - zero_point
    return (rounded @ weight_integers.float()) * scale * weight_scales


@linear_per_token.register_fake
def _(values: Tensor, weight_integers: Tensor, weight_scales: Tensor, bits: int) -> Tensor:
    return values.new_empty((*values.shape[:-1], weight_integers.shape[-1]))


@torch.library.custom_op("vlmquant::dequantize_weight", mutates_args=())
def dequantize_weight(integers: Tensor, scales: Tensor, axis: int) -> Tensor:
    """Return INT8 `integers` as float32, multiplied by one scale per index of `axis`."""
    return integers.float() * scales.reshape([-1 if d == axis else 1 for d in range(integers.ndim)])


@dequantize_weight.register_fake
def _(integers: Tensor, scales: Tensor, axis: int) -> Tensor:
    return torch.empty(integers.shape, dtype=torch.float32, device=integers.device)


class FakeQuantize(nn.Module):
    """Rounds its input to a fixed per-tensor grid."""

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, values: Tensor) -> Tensor:
        """Return `values` on the grid, same shape."""
        grid = self.grid
        return cast(Tensor, fake_quantize(values, grid.scale, grid.zero_point, grid.qmin, grid.qmax))


class _IntegerLinear(nn.Module):
    """Holds the INT8 weight of a Linear transposed to (in, out), the layout that ONNX MatMul wants."""

    integers: Tensor
    scales: Tensor

    def __init__(self, linear: nn.Linear, bits: int) -> None:
        super().__init__()
        weight = linear.weight.detach().numpy()
        scales = channel_scales(weight, bits)
        self.register_buffer("integers", torch.from_numpy(quantize_rows(weight, scales, bits)).t().contiguous())
        self.register_buffer("scales", torch.from_numpy(scales))
        self.bias = linear.bias


class StaticLinear(_IntegerLinear):
    """A Linear with INT8 weights whose input is rounded to a calibrated grid."""

    def __init__(self, linear: nn.Linear, bits: int, grid: Grid) -> None:
        super().__init__(linear, bits)
        self.input = FakeQuantize(grid)

    def forward(self, values: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        product = self.input(values) @ dequantize_weight(self.integers, self.scales, 1)
        return product if self.bias is None else product + self.bias


class PerTokenLinear(_IntegerLinear):
    """A Linear with INT8 weights whose input rows are rounded on their own ranges at run time."""

    def __init__(self, linear: nn.Linear, weight_bits: int, activation_bits: int) -> None:
        super().__init__(linear, weight_bits)
        self.activation_bits = activation_bits

    def forward(self, values: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        product = linear_per_token(values, self.integers, self.scales, self.activation_bits)
        return product if self.bias is None else product + self.bias


class StaticConv2d(nn.Module):
    """A Conv2d with INT8 weights whose input is rounded to a calibrated grid."""

    integers: Tensor
    scales: Tensor

    def __init__(self, conv: nn.Conv2d, bits: int, grid: Grid) -> None:
        super().__init__()
        weight = conv.weight.detach().numpy()
        scales = channel_scales(weight, bits)
        self.register_buffer("integers", torch.from_numpy(quantize_rows(weight, scales, bits)))
        self.register_buffer("scales", torch.from_numpy(scales))
        self.bias = conv.bias
        self.input = FakeQuantize(grid)
        self.stride, self.padding, self.dilation, self.groups = conv.stride, conv.padding, conv.dilation, conv.groups

    @property
    def weight(self) -> Tensor:
        """The float32 weight that the integers stand for; transformers asks a patch convolution for its dtype."""
        return cast(Tensor, dequantize_weight(self.integers, self.scales, 0))

    def forward(self, values: Tensor) -> Tensor:
        """Map (n, in, h, w) to (n, out, h', w')."""
        return functional.conv2d(
            self.input(values), self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )


class IntegerEmbedding(nn.Module):
    """A look-up table stored as INT8 rows with one scale each."""

    integers: Tensor
    scales: Tensor

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        weight = embedding.weight.detach().numpy()
        scales = channel_scales(weight, bits=8)
        self.register_buffer("integers", torch.from_numpy(quantize_rows(weight, scales, bits=8)))
        self.register_buffer("scales", torch.from_numpy(scales))

    def forward(self, ids: Tensor) -> Tensor:
        """Map int64 ids (...) to float32 rows (..., width)."""
        return self.integers[ids].float() * self.scales[ids].unsqueeze(-1)
