"""Where a recipe quantizes a tower: the names of its sites, and the scheme of each one's weights."""

from dataclasses import replace

from torch import nn

from vlmquant.checkpoints.clip.resnet import StoredTensor
from vlmquant.quantize.affine import Floats
from vlmquant.quantize.attention import PRODUCTS, is_attention, is_fused_attention
from vlmquant.quantize.modules import MatMul, reads_patches
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.recipes.schemes import WeightScheme
from vlmquant.quantize.weights import paired

# Names that checkpoints give to the table that turns token ids into vectors.
TOKEN_TABLES = ("token_embedding", "word_embeddings")
# What a recipe can name, with the two products of attention, which become modules only when a recipe asks.
NAMEABLE = nn.Linear | nn.Conv2d | MatMul | StoredTensor


def sites(tower: nn.Module, recipe: Recipe) -> list[str]:
    """Return the names of the Linear and Conv2d modules that `recipe` quantizes, in forward order of definition.

    A Conv2d stays float under ranges found at run time: before the convolution there are no tokens.
    """
    kinds = nn.Linear | nn.Conv2d if recipe.static or recipe.activations is None else nn.Linear
    return _named(tower, recipe, kinds)


def matmuls(tower: nn.Module, recipe: Recipe) -> list[str]:
    """Return the names of the products of two activations that `recipe` quantizes."""
    return _named(tower, recipe, MatMul)


def stored_tensors(tower: nn.Module, recipe: Recipe) -> list[str]:
    """Return the names of the `StoredTensor` modules that `recipe` quantizes."""
    return _named(tower, recipe, StoredTensor)


def operands(tower: nn.Module, recipe: Recipe) -> list[str]:
    """Return the names of what rounds the operands of `matmuls`, `product.left` or `product.left.heads.0`."""
    found = []
    for name in matmuls(tower, recipe):
        product = tower.get_submodule(name)
        assert isinstance(product, MatMul)
        found += [f"{name}.{operand}" for pair in product.roundings for operand in pair]
    return found


def multiplications(tower: nn.Module) -> list[str]:
    """Return the names of all modules that a recipe can name, attention's two products among them."""
    names = [name for name, module in tower.named_modules() if isinstance(module, NAMEABLE)]
    attentions = [name for name, module in tower.named_modules() if is_attention(module) or is_fused_attention(module)]
    return names + [f"{name}.{product}" for name in attentions for product in PRODUCTS]


def token_tables(tower: nn.Module) -> list[str]:
    """Return the names of the look-up tables that turn token ids into vectors."""
    return [
        name
        for name, module in tower.named_modules()
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in TOKEN_TABLES
    ]


def tied_table(tower: nn.Module, name: str) -> nn.Embedding | None:
    """Return the token table whose weight the Linear called `name`, an output head, shares."""
    weight = tower.get_submodule(name).weight
    tables = (tower.get_submodule(table) for table in token_tables(tower))
    return next((table for table in tables if isinstance(table, nn.Embedding) and table.weight is weight), None)


def activation_bits(recipe: Recipe, name: str) -> int:
    """Return the bit-width of the activations at the site called `name`, which `recipe` rounds."""
    scheme = recipe.activations_at(name)
    assert scheme is not None
    return scheme.bits


def weight_matrix(module: nn.Module) -> Floats:
    """Return the weight of a Linear or Conv2d as a matrix (out, in), a kernel flattened to one row per output."""
    assert isinstance(module, nn.Linear | nn.Conv2d)
    matrix: Floats = module.weight.detach().flatten(1).numpy()
    return matrix


def weight_scheme(tower: nn.Module, recipe: Recipe, name: str) -> WeightScheme:
    """Return how the weight of the site called `name` becomes integers, given what kind of module it is."""
    scheme = recipe.weights_at(name)
    if recipe.activations is None or recipe.has_float_input(name):
        scheme = replace(scheme, portable=False)  # integers meet no integers
    if recipe.token_table_bits is not None and tied_table(tower, name) is not None:
        # One table for both, and looking up needs plain rows.
        return WeightScheme(bits=recipe.token_table_bits, portable=scheme.portable)
    module = tower.get_submodule(name)
    if not isinstance(module, nn.Conv2d):
        return scheme
    scheme = replace(scheme, granularity="channel" if scheme.granularity == "group" else scheme.granularity)
    if module.kernel_size == (1, 1) or not paired(scheme):
        return replace(scheme, rounding="nearest")
    return replace(scheme, bits=8 if reads_patches(module) else 7, rounding=scheme.kernel_rounding)


def _named(tower: nn.Module, recipe: Recipe, kinds: type | object) -> list[str]:
    return [
        name
        for name, module in tower.named_modules()
        if isinstance(module, kinds) and not recipe.keeps_float(name)  # type: ignore[arg-type]
    ]
