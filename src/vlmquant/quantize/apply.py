"""From a float tower and a recipe to a new, quantized tower."""

import copy
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from vlmquant.progress import Track, silent
from vlmquant.quantize.affine import Grid
from vlmquant.quantize.calibrate import input_histograms
from vlmquant.quantize.modules import IntegerEmbedding, PerTokenLinear, StaticConv2d, StaticLinear
from vlmquant.quantize.observe import OBSERVERS
from vlmquant.quantize.recipe import Recipe

# Names that checkpoints give to the table that turns token ids into vectors.
TOKEN_TABLES = ("token_embedding", "word_embeddings")


def sites(tower: nn.Module, recipe: Recipe) -> list[str]:
    """Return the names of the Linear and Conv2d modules that `recipe` quantizes, in forward order of definition."""
    return [
        name
        for name, module in tower.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and not recipe.keeps_float(name)
    ]


def activation_grids(
    tower: nn.Module, recipe: Recipe, inputs: Sequence[Tensor], description: str, track: Track = silent
) -> dict[str, Grid]:
    """Return the static input grid of every site; an empty dict when the recipe needs none."""
    if not recipe.needs_calibration:
        return {}
    histograms = input_histograms(tower, sites(tower, recipe), inputs, description, track)
    choose = OBSERVERS[recipe.activations.observer]
    return {site: choose(histogram, recipe.activations.bits) for site, histogram in histograms.items()}


def quantized(tower: nn.Module, recipe: Recipe, grids: Mapping[str, Grid]) -> nn.Module:
    """Return a quantized copy of `tower`; the float tower is not touched.

    `grids` holds one input grid per site for static recipes. A Conv2d under a per-token recipe stays float: a patch
    has no token before the convolution made it one.
    """
    result = copy.deepcopy(tower).eval()
    for name in sites(tower, recipe):
        module = result.get_submodule(name)
        if isinstance(module, nn.Conv2d):
            if name in grids:
                result.set_submodule(name, StaticConv2d(module, recipe.weights.bits, grids[name]))
        elif isinstance(module, nn.Linear):
            result.set_submodule(name, _linear(module, recipe, grids.get(name)))
    for name, module in list(result.named_modules()):
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in TOKEN_TABLES:
            result.set_submodule(name, IntegerEmbedding(module))
    return result


def _linear(linear: nn.Linear, recipe: Recipe, grid: Grid | None) -> nn.Module:
    if grid is None:
        return PerTokenLinear(linear, recipe.weights.bits, recipe.activations.bits)
    return StaticLinear(linear, recipe.weights.bits, grid)
