"""Weights in half precision: rounded to 16-bit floats, computed with in float32.

A rounded weight lies as float32 in a buffer called "float16_weight" or "bfloat16_weight"; the export stores what is
called so in 16 bits.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmquant.quantize.methods.step import Calibration, Draft, Step
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.recipes.schemes import Number
from vlmquant.quantize.sites import sites, token_tables

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class _Half(nn.Module):
    """Holds one rounded weight."""

    def __init__(self, weight: Tensor, number: Number) -> None:
        super().__init__()
        self.buffer_name = f"{number}_weight"
        self.register_buffer(self.buffer_name, weight.detach().to(DTYPES[number]).float().contiguous())

    @property
    def weight(self) -> Tensor:
        """The rounded weight, float32; transformers asks a patch convolution for its dtype."""
        return self.get_buffer(self.buffer_name)


class HalfLinear(_Half):
    """A Linear whose weight, transposed to (in, out), is rounded to a 16-bit float."""

    def __init__(self, linear: nn.Linear, number: Number) -> None:
        super().__init__(linear.weight.t(), number)
        self.bias = linear.bias

    def forward(self, values: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        product = values @ self.weight
        return product if self.bias is None else product + self.bias


class HalfConv2d(_Half):
    """A Conv2d whose weight is rounded to a 16-bit float."""

    def __init__(self, conv: nn.Conv2d, number: Number) -> None:
        super().__init__(conv.weight, number)
        self.bias = conv.bias
        self.stride, self.padding, self.dilation, self.groups = conv.stride, conv.padding, conv.dilation, conv.groups

    def forward(self, values: Tensor) -> Tensor:
        """Map (n, in, h, w) to (n, out, h', w')."""
        return functional.conv2d(values, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class HalfEmbedding(_Half):
    """A look-up table rounded to 16-bit floats."""

    def __init__(self, embedding: nn.Embedding, number: Number) -> None:
        super().__init__(embedding.weight, number)

    def forward(self, ids: Tensor) -> Tensor:
        """Map int64 ids (...) to float32 rows (..., width)."""
        return functional.embedding(ids, self.weight)


def _run(draft: Draft, recipe: Recipe, _: Calibration) -> Draft:
    names = (*sites(draft.tower, recipe), *token_tables(draft.tower))
    halved = {name: _halved(draft.tower.get_submodule(name), recipe.weights.number) for name in names}
    return replace(draft, modules={**draft.modules, **halved})


def _halved(module: nn.Module, number: Number) -> nn.Module:
    if isinstance(module, nn.Conv2d):
        return HalfConv2d(module, number)
    if isinstance(module, nn.Embedding):
        return HalfEmbedding(module, number)
    assert isinstance(module, nn.Linear)
    return HalfLinear(module, number)


STEP = Step(applies=lambda recipe: not recipe.integer_weights, run=_run)
