"""Rounding of activations as torch modules, one class for each way to find the step size."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from vlmquant.quantize.affine import SMALLEST_SCALE, Grid, asymmetric_grid


@torch.library.custom_op("vlmquant::fake_quantize", mutates_args=())
def fake_quantize(values: Tensor, scale: float, zero_point: int, qmin: int, qmax: int) -> Tensor:
    """Round float32 `values` to the grid `(q - zero_point) * scale`, q in [qmin, qmax]; same shape."""
    return torch.fake_quantize_per_tensor_affine(values, scale, zero_point, qmin, qmax)


@fake_quantize.register_fake
def _(values: Tensor, scale: float, zero_point: int, qmin: int, qmax: int) -> Tensor:
    return torch.empty_like(values)


def _keep_inside(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    values, scale, zero_point, qmin, qmax = inputs
    ctx.save_for_backward((values >= (qmin - zero_point - 0.5) * scale) & (values <= (qmax - zero_point + 0.5) * scale))


def _straight_through(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    (inside,) = ctx.saved_tensors
    return gradient * inside, None, None, None, None


# Rounding counts as the identity where nothing is clipped (Bengio et al. 2013, arXiv 1308.3432).
fake_quantize.register_autograd(_straight_through, setup_context=_keep_inside)


class _RoundStraight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return torch.round(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def round_straight(values: Tensor) -> Tensor:
    """Round to the nearest integers, half to even; gradients pass through unchanged."""
    return cast(Tensor, _RoundStraight.apply(values))  # type: ignore[no-untyped-call]


class FakeQuantize(nn.Module):
    """Rounds its input to a fixed per-tensor grid."""

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, values: Tensor) -> Tensor:
        """Return `values` on the grid, same shape."""
        grid = self.grid
        return cast(Tensor, fake_quantize(values, grid.scale, grid.zero_point, grid.qmin, grid.qmax))


class WholeBatchFakeQuantize(nn.Module):
    """Rounds its input as torch's dynamic quantization does: one range over everything in the call.

    torch takes 7 bits (`reduce_range`) whatever the CPU, so `bits` must be 7 for its numbers.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def forward(self, values: Tensor) -> Tensor:
        """Return `values` on the grid of their own range, same shape; one row's result depends on all the others."""
        grid = asymmetric_grid(float(values.min()), float(values.max()), self.bits)
        return torch.fake_quantize_per_tensor_affine(values, grid.scale, grid.zero_point, grid.qmin, grid.qmax)


def token_steps(values: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return the scale and the zero point (..., 1) of each row of `values` (..., width), by its own range with zero."""
    low = values.amin(dim=-1, keepdim=True).clamp(max=0)
    high = values.amax(dim=-1, keepdim=True).clamp(min=0)
    scale = ((high - low) / (2**bits - 1)).clamp(min=SMALLEST_SCALE)
    return scale, torch.round(-low / scale)


class TokenFakeQuantize(nn.Module):
    """Rounds each row of its input on the asymmetric grid of its own range, as `PerTokenLinear` does."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def forward(self, values: Tensor) -> Tensor:
        """Return `values` (..., width), every row on its own grid, same shape."""
        scale, zero_point = token_steps(values.detach(), self.bits)
        integers = torch.clamp(round_straight(values / scale) + zero_point, 0, 2**self.bits - 1)
        return (integers - zero_point) * scale


class PerHead(nn.Module):
    """Rounds each head of an attention operand on a grid of its own; the identity until `heads` are replaced."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Identity() for _ in range(heads))

    def forward(self, values: Tensor) -> Tensor:
        """Return `values` (n, heads, ., .) rounded head by head, same shape."""
        return torch.stack([round_(part) for round_, part in zip(self.heads, values.unbind(1), strict=True)], dim=1)


@dataclass(frozen=True, kw_only=True)
class TwinGrid:
    """Two uniform grids in one tensor: values up to `border` on one, the others on the second.

    The first holds `q * small_step` for q in [small_qmin, small_qmax], the second `q * large_step` for q in
    [0, large_qmax]. One bit of the code says which (Yuan et al. 2022, PTQ4ViT, arXiv 2111.12293, section 3.1).
    """

    border: float
    small_step: float
    small_qmin: int
    small_qmax: int
    large_step: float
    large_qmax: int


def gelu_twin_grid(minimum: float, high: float, bits: int) -> TwinGrid:
    """Return the grid behind an activation that is never below `minimum` (< 0): fine below zero, coarse to `high`."""
    half = 2 ** (bits - 1)
    return TwinGrid(
        border=0.0,
        small_step=-minimum / half,
        small_qmin=-half,
        small_qmax=0,
        large_step=max(high / (half - 1), SMALLEST_SCALE),
        large_qmax=half - 1,
    )


def softmax_twin_grid(shift: int, bits: int) -> TwinGrid:
    """Return the grid for probabilities: fine up to 2^-shift, coarse up to 1.

    The steps differ by the factor 2^shift, so that integer sums of the two align by a bit shift.
    """
    n = 2 ** (bits - 1) - 1
    border = 2.0**-shift
    return TwinGrid(border=border, small_step=border / n, small_qmin=0, small_qmax=n, large_step=1 / n, large_qmax=n)


class TwinFakeQuantize(nn.Module):
    """Rounds its input to a fixed twin grid."""

    def __init__(self, grid: TwinGrid) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, values: Tensor) -> Tensor:
        """Return `values` on the grid, same shape."""
        grid = self.grid
        small = torch.clamp(round_straight(values / grid.small_step), grid.small_qmin, grid.small_qmax)
        large = torch.clamp(round_straight(values / grid.large_step), 0, grid.large_qmax)
        return torch.where(values <= grid.border, small * grid.small_step, large * grid.large_step)


def round_inputs(module: nn.Module, rounding: nn.Module) -> None:
    """Let the input of `module` pass through `rounding` first, for good."""
    module.register_forward_pre_hook(lambda _, args: (rounding(args[0]),))


def activation_minimum(activation: nn.Module) -> float:
    """Return the least value of a GELU-like `activation`, found on a fine grid over [-12, 0]."""
    with torch.inference_mode():
        return float(activation(torch.linspace(-12, 0, 120_001, dtype=torch.float64)).min())
