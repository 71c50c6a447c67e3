"""The quantized operations as torch modules: the simulation that is also what gets exported.

Custom operators carry the arithmetic through `torch.export` unchanged; `build/export.py` translates each into standard
ONNX. Integers live in buffers, so a quantized module's `state_dict` is as small as its file.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmquant.quantize.recipes.schemes import WeightScheme
from vlmquant.quantize.rounding import PerHead, TokenFakeQuantize, token_steps
from vlmquant.quantize.weights import IntegerWeight, round_nearest, weight_scales


@torch.library.custom_op("vlmquant::linear_per_token", mutates_args=())
def linear_per_token(values: Tensor, weight_integers: Tensor, weight_scales: Tensor, bits: int) -> Tensor:
    """Multiply float32 `values` (..., in) by INT8 `weight_integers` (in, out) in integers; float32 (..., out).

    Each token (row) is rounded on its own asymmetric grid over [min, max] with zero included, so what a row becomes
    never depends on who shares its batch.
    """
    scale, zero_point = token_steps(values, bits)
    rounded = torch.clamp(torch.round(values / scale) + zero_point, 0, 2**bits - 1) - zero_point
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


@torch.library.custom_op("vlmquant::dequantize_groups", mutates_args=())
def dequantize_groups(integers: Tensor, scales: Tensor, group_size: int) -> Tensor:
    """Return INT8 `integers` (in, out) as float32; `scales` (groups, out) hold one row per `group_size` inputs."""
    return integers.float() * scales.repeat_interleave(group_size, dim=0)[: len(integers)]


@dequantize_groups.register_fake
def _(integers: Tensor, scales: Tensor, group_size: int) -> Tensor:
    return torch.empty(integers.shape, dtype=torch.float32, device=integers.device)


class QuantizedLinear(nn.Module):
    """A Linear with integer weights whose input passes through `rounding` first.

    The weight lies transposed to (in, out), the layout that ONNX MatMul wants, in the buffer "nibbles" when it fits
    into 4 bits and in "integers" otherwise: the export stores the former in half the space.
    """

    scales: Tensor

    def __init__(self, linear: nn.Linear, weight: IntegerWeight, rounding: nn.Module) -> None:
        super().__init__()
        self.group_size = weight.group_size if weight.scales.shape[1] > 1 else None
        self.storage = "nibbles" if weight.bits <= 4 else "integers"
        self.register_buffer(self.storage, torch.from_numpy(weight.integers).t().contiguous())
        scales = torch.from_numpy(weight.scales).t().contiguous()
        self.register_buffer("scales", scales if self.group_size else scales[0])
        self.bias = linear.bias
        self.rounding = rounding

    @property
    def weight_integers(self) -> Tensor:
        """The integers, (in, out)."""
        return cast(Tensor, getattr(self, self.storage))

    def forward(self, values: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        if self.group_size is None:
            weight = dequantize_weight(self.weight_integers, self.scales, 1)
        else:
            weight = dequantize_groups(self.weight_integers, self.scales, self.group_size)
        product = self.rounding(values) @ weight
        return cast(Tensor, product if self.bias is None else product + self.bias)


class PerTokenLinear(nn.Module):
    """A Linear with INT8 weights whose input rows are rounded on their own ranges at run time."""

    integers: Tensor
    scales: Tensor

    def __init__(self, linear: nn.Linear, weight: IntegerWeight, activation_bits: int) -> None:
        super().__init__()
        self.register_buffer("integers", torch.from_numpy(weight.integers).t().contiguous())
        self.register_buffer("scales", torch.from_numpy(weight.scales)[:, 0].contiguous())
        self.bias = linear.bias
        self.activation_bits = activation_bits

    @property
    def rounding(self) -> nn.Module:
        """What happens to the input before the multiplication, as a module of its own."""
        return TokenFakeQuantize(self.activation_bits)

    def forward(self, values: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        product = linear_per_token(values, self.integers, self.scales, self.activation_bits)
        return cast(Tensor, product if self.bias is None else product + self.bias)


class QuantizedConv2d(nn.Module):
    """A Conv2d with integer weights, one scale per output channel, whose input passes through `rounding` first."""

    integers: Tensor
    scales: Tensor

    def __init__(self, conv: nn.Conv2d, weight: IntegerWeight, rounding: nn.Module) -> None:
        super().__init__()
        self.register_buffer("integers", torch.from_numpy(weight.integers).reshape(conv.weight.shape))
        self.register_buffer("scales", torch.from_numpy(weight.scales)[:, 0].contiguous())
        self.bias = conv.bias
        self.rounding = rounding
        self.stride, self.padding, self.dilation, self.groups = conv.stride, conv.padding, conv.dilation, conv.groups

    @property
    def weight(self) -> Tensor:
        """The float32 weight that the integers stand for; transformers asks a patch convolution for its dtype."""
        return cast(Tensor, dequantize_weight(self.integers, self.scales, 0))

    def forward(self, values: Tensor) -> Tensor:
        """Map (n, in, h, w) to (n, out, h', w')."""
        return functional.conv2d(
            self.rounding(values), self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )


class QuantizedPatches(QuantizedConv2d):
    """A convolution whose kernel steps by its own size, as one matrix product: a row for each patch.

    The numbers are the convolution's, and the integers lie as (in, out). As a convolution ONNX Runtime would compute
    it in float, and dequantize its weights for every picture.
    """

    def __init__(self, conv: nn.Conv2d, weight: IntegerWeight, rounding: nn.Module) -> None:
        super().__init__(conv, weight, rounding)
        self.register_buffer("integers", torch.from_numpy(weight.integers).t().contiguous())
        self.kernel_shape = conv.weight.shape

    @property
    def weight(self) -> Tensor:
        """The float32 weight (out, in, height, width) that the integers stand for."""
        return cast(Tensor, dequantize_weight(self.integers, self.scales, 1)).t().reshape(self.kernel_shape)

    def forward(self, values: Tensor) -> Tensor:
        """Map (n, in, h, w) to (n, out, h', w')."""
        channels, height, width = self.kernel_shape[1:]
        down, right = values.shape[2] // height, values.shape[3] // width
        cut = values[..., : down * height, : right * width]
        patches = cut.reshape(-1, channels, down, height, right, width).permute(0, 2, 4, 1, 3, 5).flatten(3)
        product = self.rounding(patches.flatten(1, 2)) @ dequantize_weight(self.integers, self.scales, 1)
        product = product if self.bias is None else product + self.bias
        return cast(Tensor, product.transpose(1, 2).unflatten(2, (down, right)))


def quantized_module(
    module: nn.Module, weight: IntegerWeight, rounding: nn.Module
) -> QuantizedLinear | QuantizedConv2d | PerTokenLinear:
    """Return the Linear or Conv2d `module` with the integers of `weight`, its input rounded by `rounding`."""
    if isinstance(module, nn.Conv2d):
        return (QuantizedPatches if reads_patches(module) else QuantizedConv2d)(module, weight, rounding)
    assert isinstance(module, nn.Linear)
    if isinstance(rounding, TokenFakeQuantize):
        return PerTokenLinear(module, weight, rounding.bits)
    return QuantizedLinear(module, weight, rounding)


def reads_patches(module: nn.Module) -> bool:
    """Whether `module` is a convolution that is one matrix product over patches which do not overlap."""
    return (
        isinstance(module, nn.Conv2d)
        and module.stride == module.kernel_size
        and module.kernel_size != (1, 1)
        and module.padding == (0, 0)
        and module.dilation == (1, 1)
        and module.groups == 1
    )


class MatMul(nn.Module):
    """The product of two activations; float until `left` and `right` are replaced by roundings."""

    def __init__(self) -> None:
        super().__init__()
        self.left: nn.Module = nn.Identity()
        self.right: nn.Module = nn.Identity()

    @property
    def roundings(self) -> list[tuple[str, str]]:
        """The names below this module of what rounds the left and the right operand: one pair, or one for each head."""
        if not isinstance(self.left, PerHead):
            return [("left", "right")]
        return [(f"left.heads.{head}", f"right.heads.{head}") for head in range(len(self.left.heads))]

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Map (..., n, k) and (..., k, m) to (..., n, m)."""
        return cast(Tensor, self.left(left) @ self.right(right))


class IntegerEmbedding(nn.Module):
    """A look-up table stored as INT8 rows with one scale each."""

    integers: Tensor
    scales: Tensor

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        matrix, scheme = embedding.weight.detach().numpy(), WeightScheme(portable=False)
        weight = round_nearest(matrix, weight_scales(matrix, scheme), scheme)
        self.register_buffer("integers", torch.from_numpy(weight.integers))
        self.register_buffer("scales", torch.from_numpy(weight.scales[:, 0]))

    def forward(self, ids: Tensor) -> Tensor:
        """Map int64 ids (...) to float32 rows (..., width)."""
        return self.integers[ids].float() * self.scales[ids].unsqueeze(-1)


class TiedEmbedding(nn.Module):
    """The look-up table that is also the weight of an output head, which holds it as (width, rows) INT8.

    Both read one buffer, so the table is stored once; one scale belongs to each row of the table.
    """

    integers: Tensor
    scales: Tensor

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.register_buffer("integers", head.get_buffer("integers"))
        self.register_buffer("scales", head.get_buffer("scales"))

    def forward(self, ids: Tensor) -> Tensor:
        """Map int64 ids (...) to float32 rows (..., width)."""
        flat = ids.flatten()
        columns = torch.index_select(self.integers, 1, flat).float() * torch.index_select(self.scales, 0, flat)
        return columns.t().reshape(*ids.shape, -1)
