"""From a float tower and a recipe to a new, quantized tower."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from vlmquant.checkpoints.resnet import StoredTensor
from vlmquant.progress import Track, silent
from vlmquant.quantize.affine import Floats
from vlmquant.quantize.attention import PRODUCTS, is_attention, is_fused_attention, make_attention_explicit
from vlmquant.quantize.calibrate import histogram_of, input_histograms, mean_output_errors, second_moments
from vlmquant.quantize.damage import Plan
from vlmquant.quantize.methods.gptq import round_gptq
from vlmquant.quantize.methods.half import halve
from vlmquant.quantize.methods.outliers import handle_outliers
from vlmquant.quantize.methods.pixels import PIXEL_BITS, patch_embedding, read_bytes
from vlmquant.quantize.methods.reconstruction import reconstruct
from vlmquant.quantize.methods.search import search_scales
from vlmquant.quantize.methods.smoothing import smooth
from vlmquant.quantize.methods.twin import twin_rounding
from vlmquant.quantize.modules import (
    IntegerEmbedding,
    MatMul,
    PerTokenLinear,
    QuantizedConv2d,
    QuantizedLinear,
    QuantizedPatches,
    TiedEmbedding,
    reads_patches,
)
from vlmquant.quantize.observe import OBSERVERS, Histogram
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.recipes.schemes import WeightScheme
from vlmquant.quantize.rounding import FakeQuantize, WholeBatchFakeQuantize
from vlmquant.quantize.weights import IntegerWeight, paired, round_nearest, weight_scales

# Names that checkpoints give to the table that turns token ids into vectors.
TOKEN_TABLES = ("token_embedding", "word_embeddings")
# What a recipe can name, with the two products of attention, which are made modules only when a recipe asks.
NAMEABLE = nn.Linear | nn.Conv2d | MatMul | StoredTensor
# Second moments of a ViT-L/14's layers would take gigabytes at once; so many bytes are gathered per pass.
MOMENT_BYTES = 1 << 30


def sites(tower: nn.Module, recipe: Recipe) -> list[str]:
    """Return the names of the Linear and Conv2d modules that `recipe` quantizes, in forward order of definition.

    A Conv2d under ranges found at run time stays float: a patch has no token before the convolution made it one.
    """
    kinds = nn.Linear | nn.Conv2d if recipe.static or recipe.activations is None else nn.Linear
    return [
        name for name, module in tower.named_modules() if isinstance(module, kinds) and not recipe.keeps_float(name)
    ]


def multiplications(tower: nn.Module) -> list[str]:
    """Return the names of all modules that a recipe can name, attention's two products among them."""
    names = [name for name, module in tower.named_modules() if isinstance(module, NAMEABLE)]
    attentions = [name for name, module in tower.named_modules() if is_attention(module) or is_fused_attention(module)]
    return names + [f"{name}.{product}" for name in attentions for product in PRODUCTS]


def quantize_tower(
    tower: nn.Module, recipe: Recipe, inputs: Sequence[Tensor], description: str, track: Track = silent
) -> nn.Module:
    """Return a quantized copy of `tower`, calibrated on `inputs` (batches); the float tower is not touched.

    Raises CalibrationError when the recipe has to measure something and there are no inputs or a site sees a value
    that is not finite.
    """
    return quantize_by_damage(tower, recipe, inputs, description, track)[0]


def quantize_by_damage(
    tower: nn.Module, recipe: Recipe, inputs: Sequence[Tensor], description: str, track: Track = silent
) -> tuple[nn.Module, Recipe]:
    """Return what `quantize_tower` does, and the recipe with its outlier handling spelled out for this tower."""
    plan, carried_out = plan_by_damage(tower, recipe, inputs, description, track)
    return plan.carried_out(), carried_out


def plan_by_damage(
    tower: nn.Module, recipe: Recipe, inputs: Sequence[Tensor], description: str, track: Track = silent
) -> tuple[Plan, Recipe]:
    """Return the same before it is carried out: what takes which module's place, and the recipe spelled out."""
    if recipe.outliers is None:
        return plan_tower(tower, recipe, inputs, description, track), recipe
    make_plan = partial(plan_tower, tower, inputs=inputs, description=description, track=track)
    handled = handle_outliers(make_plan, recipe, sites(tower, recipe), inputs, description, track)
    return handled.plan, handled.recipe


def plan_tower(
    tower: nn.Module, recipe: Recipe, inputs: Sequence[Tensor], description: str, track: Track = silent
) -> Plan:
    """Return what `recipe`, apart from its outlier handling, replaces in a copy of `tower`."""
    result = copy.deepcopy(tower).eval()
    if recipe.weights.number != "integer":
        halve(result, sites(result, recipe), _token_tables(result), recipe.weights.number)
        return Plan(result, {})
    if recipe.attention_matmuls:
        assert recipe.activations is not None
        make_attention_explicit(result, per_head=recipe.activations.granularity == "head")
    bytes_at = _byte_site(result, recipe)
    pixel_grid = None if bytes_at is None else read_bytes(result, bytes_at)
    if recipe.smoothing:
        smooth(result, partial(_quantized_linear, result, recipe), inputs, f"{description}: smoothing", track)
    roundings = input_roundings(result, recipe, inputs, description, track)
    if bytes_at is not None and pixel_grid is not None:
        roundings[bytes_at] = FakeQuantize(pixel_grid)
    scales: dict[str, NDArray[np.float32]] = {}
    if recipe.search == "hessian":
        schemes = {name: weight_scheme(result, recipe, name) for name in sites(result, recipe)}
        names = [*schemes, *_matmuls(result, recipe)]
        roundings, scales = search_scales(result, schemes, names, roundings, inputs, description, track)
    weights = _integer_weights(result, recipe, roundings, scales, inputs, description, track)
    replacements = {name: _replacement(result, recipe, name, weights[name], roundings) for name in weights}
    if recipe.bias_correction:
        errors = mean_output_errors(result, replacements, inputs, f"{description}: bias correction", track)
        for name, error in errors.items():
            bias = replacements[name].bias
            replacements[name].bias = nn.Parameter(-error if bias is None else bias - error, requires_grad=False)
    tables: dict[str, nn.Module] = {}
    if recipe.token_table_bits is not None:
        for name in _token_tables(result):
            table = result.get_submodule(name)
            assert isinstance(table, nn.Embedding)
            head = next((replacements[head] for head in replacements if _tied(result, head) is table), None)
            tables[name] = IntegerEmbedding(table) if head is None else TiedEmbedding(head)
    return Plan(result, {**roundings, **replacements, **tables})


def input_roundings(
    tower: nn.Module, recipe: Recipe, inputs: Sequence[Tensor], description: str, track: Track = silent
) -> dict[str, nn.Module]:
    """Return what rounds the input of each site, and with static ranges each operand of a MatMul and stored tensor.

    Empty when ranges are per token.
    """
    names = sites(tower, recipe)
    if recipe.activations is None:
        return {name: nn.Identity() for name in names}
    if recipe.activations.ranges == "whole-batch":
        return {name: WholeBatchFakeQuantize(_bits(recipe, name)) for name in names}
    if recipe.activations.ranges == "per-token":
        return {}
    for name in _matmuls(tower, recipe):
        product = tower.get_submodule(name)
        assert isinstance(product, MatMul)
        names += [f"{name}.{operand}" for pair in product.roundings for operand in pair]
    names += _stored_tensors(tower, recipe)
    rounded = [name for name in names if not recipe.has_float_input(name)]
    histograms = input_histograms(tower, rounded, inputs, description, track)
    roundings = {name: _static_rounding(tower, recipe, name, histogram) for name, histogram in histograms.items()}
    return {**{name: nn.Identity() for name in names if name not in roundings}, **roundings}


def _byte_site(tower: nn.Module, recipe: Recipe) -> str | None:
    name = patch_embedding(tower) if recipe.byte_pixels else None
    return name if name in sites(tower, recipe) and _bits(recipe, name) == PIXEL_BITS else None


def _static_rounding(tower: nn.Module, recipe: Recipe, name: str, histogram: Histogram) -> nn.Module:
    assert recipe.activations is not None
    if recipe.twin and (
        twin := twin_rounding(tower, name, histogram, recipe.activations.observer, _bits(recipe, name))
    ):
        return twin
    return FakeQuantize(OBSERVERS[recipe.activations.observer](histogram, _bits(recipe, name)))


def _bits(recipe: Recipe, name: str) -> int:
    scheme = recipe.activations_at(name)
    assert scheme is not None
    return scheme.bits


def _matmuls(tower: nn.Module, recipe: Recipe) -> list[str]:
    return [n for n, module in tower.named_modules() if isinstance(module, MatMul) and not recipe.keeps_float(n)]


def _stored_tensors(tower: nn.Module, recipe: Recipe) -> list[str]:
    return [n for n, module in tower.named_modules() if isinstance(module, StoredTensor) and not recipe.keeps_float(n)]


def _integer_weights(
    tower: nn.Module,
    recipe: Recipe,
    roundings: Mapping[str, nn.Module],
    scales: Mapping[str, NDArray[np.float32]],
    inputs: Sequence[Tensor],
    description: str,
    track: Track,
) -> dict[str, IntegerWeight]:
    found: dict[str, IntegerWeight] = {}
    second_order: list[str] = []
    for name in sites(tower, recipe):
        module, scheme = tower.get_submodule(name), weight_scheme(tower, recipe, name)
        if scheme.rounding != "nearest" and getattr(module, "groups", 1) == 1:
            second_order.append(name)
        else:
            matrix = _matrix(module)
            found[name] = round_nearest(matrix, _scales_of(scales, name, matrix, scheme), scheme)
    for chunk in _chunks(tower, second_order):
        seen = {name: roundings.get(name, nn.Identity()) for name in chunk}
        moments = second_moments(tower, seen, inputs, f"{description}: second moments", track)
        for name in chunk:
            matrix, scheme = _matrix(tower.get_submodule(name)), weight_scheme(tower, recipe, name)
            found[name] = round_gptq(matrix, _scales_of(scales, name, matrix, scheme), moments.pop(name), scheme)
    if recipe.weights.rounding == "reconstruction":
        schemes = {name: weight_scheme(tower, recipe, name) for name in found}
        return reconstruct(tower, found, schemes, roundings, inputs, f"{description}: reconstruction", track)
    return found


def _scales_of(
    scales: Mapping[str, NDArray[np.float32]], name: str, matrix: Floats, scheme: WeightScheme
) -> NDArray[np.float32]:
    return scales[name] if name in scales else weight_scales(matrix, scheme)


def weight_scheme(tower: nn.Module, recipe: Recipe, name: str) -> WeightScheme:
    """Return how the weight of the site called `name` of the float `tower` becomes integers, all rules applied."""
    scheme = recipe.weights_at(name)
    if recipe.activations is None or recipe.has_float_input(name):
        scheme = replace(scheme, portable=False)  # integers meet no integers
    if recipe.token_table_bits is not None and _tied(tower, name) is not None:
        # One table for both, and looking up needs plain rows.
        return WeightScheme(bits=recipe.token_table_bits, portable=scheme.portable)
    module = tower.get_submodule(name)
    if not isinstance(module, nn.Conv2d):
        return scheme
    scheme = replace(scheme, granularity="channel" if scheme.granularity == "group" else scheme.granularity)
    if module.kernel_size == (1, 1) or not paired(scheme):
        return replace(scheme, rounding="nearest")
    return replace(scheme, bits=8 if reads_patches(module) else 7, rounding=scheme.kernel_rounding)


def _tied(tower: nn.Module, name: str) -> nn.Embedding | None:
    """Return the token table whose weight the Linear called `name`, an output head, shares."""
    weight = tower.get_submodule(name).weight
    tables = (tower.get_submodule(table) for table in _token_tables(tower))
    return next((table for table in tables if isinstance(table, nn.Embedding) and table.weight is weight), None)


def _matrix(module: nn.Module) -> Floats:
    assert isinstance(module, nn.Linear | nn.Conv2d)
    matrix: Floats = module.weight.detach().flatten(1).numpy()
    return matrix


def _chunks(tower: nn.Module, names: Sequence[str]) -> Iterator[list[str]]:
    """Split `names` so that the (in, in) float64 matrices of one part stay within `MOMENT_BYTES`, or one matrix."""
    chunk: list[str] = []
    room = MOMENT_BYTES
    for name in names:
        size = 8 * _matrix(tower.get_submodule(name)).shape[1] ** 2
        if chunk and size > room:
            yield chunk
            chunk, room = [], MOMENT_BYTES
        chunk.append(name)
        room -= size
    if chunk:
        yield chunk


def _replacement(
    tower: nn.Module, recipe: Recipe, name: str, weight: IntegerWeight, roundings: Mapping[str, nn.Module]
) -> QuantizedLinear | QuantizedConv2d | PerTokenLinear:
    module = tower.get_submodule(name)
    if isinstance(module, nn.Conv2d):
        return (QuantizedPatches if reads_patches(module) else QuantizedConv2d)(module, weight, roundings[name])
    assert isinstance(module, nn.Linear)
    if name in roundings:
        return QuantizedLinear(module, weight, roundings[name])
    return PerTokenLinear(module, weight, _bits(recipe, name))


def _quantized_linear(tower: nn.Module, recipe: Recipe, name: str, linear: nn.Linear, seen: Tensor) -> nn.Module:
    """Return `linear` quantized for the inputs `seen` alone, or as it is where the recipe keeps it float."""
    if recipe.keeps_float(name):
        return linear
    scheme = replace(weight_scheme(tower, recipe, name), rounding="nearest")
    matrix = _matrix(linear)
    weight = round_nearest(matrix, weight_scales(matrix, scheme), scheme)
    if recipe.activations is not None and recipe.activations.ranges == "per-token":
        return PerTokenLinear(linear, weight, _bits(recipe, name))
    return QuantizedLinear(linear, weight, _linear_rounding(tower, recipe, name, seen))


def _linear_rounding(tower: nn.Module, recipe: Recipe, name: str, seen: Tensor) -> nn.Module:
    if recipe.activations is None or recipe.has_float_input(name):
        return nn.Identity()
    if recipe.activations.ranges == "whole-batch":
        return WholeBatchFakeQuantize(_bits(recipe, name))
    return _static_rounding(tower, recipe, name, histogram_of(seen))


def _token_tables(tower: nn.Module) -> list[str]:
    return [
        name
        for name, module in tower.named_modules()
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in TOKEN_TABLES
    ]
