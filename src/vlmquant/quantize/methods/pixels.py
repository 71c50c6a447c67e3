"""The first layer reads pixels as the integers they are: its 8-bit grid is theirs, and nothing is rounded.

A normalized pixel is (byte * rescale - mean) / std. One grid for all three channels would round it a second time,
which makes the patch embedding one of the most damaging layers of small CLIPs. Undone in the graph, the normalization
moves into the layer's weights and bias, and each byte is its own integer.
"""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from vlmquant.checkpoints.clip.model import ImageTower
from vlmquant.quantize.affine import Grid
from vlmquant.quantize.methods.step import Calibration, Draft, Step
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.rounding import FakeQuantize
from vlmquant.quantize.sites import activation_bits, sites

PIXEL_BITS = 8


class BytePixels(nn.Module):
    """Normalized pixels (n, 3, height, width) back to bytes times their rescale factor, usually in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Undo the normalization."""
        return pixels * self.std + self.mean


def patch_embedding(tower: nn.Module) -> str | None:
    """Return the name of the layer of `tower` that reads the pixels, if its weights can absorb the normalization.

    A convolution that pads cannot: it pads with normalized zeros.
    """
    if not isinstance(tower, ImageTower):
        return None
    name = "vision_model.embeddings.patch_embedding"
    layer = tower.get_submodule(name)
    return name if isinstance(layer, nn.Conv2d) and layer.padding == (0, 0) else None


def read_bytes(tower: nn.Module, name: str) -> Grid:
    """Let the layer called `name`, see `patch_embedding`, read bytes in place; return the grid that they lie on.

    The features of `tower` change by no more than float rounding.
    """
    layer = tower.get_submodule(name)
    assert isinstance(tower, ImageTower)
    assert isinstance(layer, nn.Conv2d)
    spec = tower.image_spec
    tower.pixels = BytePixels(spec.mean, spec.std)
    mean, std = (torch.tensor(values, dtype=torch.float64).reshape(1, -1, 1, 1) for values in (spec.mean, spec.std))
    weight = layer.weight.detach().double() / std
    shift = -(weight * mean).sum(dim=(1, 2, 3))
    bias = shift if layer.bias is None else layer.bias.detach().double() + shift
    layer.weight = nn.Parameter(weight.float(), requires_grad=False)
    layer.bias = nn.Parameter(bias.float(), requires_grad=False)
    return Grid(scale=spec.rescale_factor, zero_point=0, qmin=0, qmax=2**PIXEL_BITS - 1)


def _run(draft: Draft, recipe: Recipe, _: Calibration) -> Draft:
    name = patch_embedding(draft.tower)
    if name is None or name not in sites(draft.tower, recipe) or activation_bits(recipe, name) != PIXEL_BITS:
        return draft
    tower = copy.deepcopy(draft.tower)
    grid = read_bytes(tower, name)
    return replace(draft, tower=tower, roundings={**draft.roundings, name: FakeQuantize(grid)})


STEP = Step(applies=lambda recipe: recipe.byte_pixels, run=_run)
