"""The named recipes."""

from vlmquant.errors import RecipeError, unknown
from vlmquant.quantize.recipes.recipe import ENDS_IN_8_BITS, PROJECTION, Recipe
from vlmquant.quantize.recipes.schemes import ActivationScheme, Number, OutlierHandling, SiteBits, WeightScheme

HALVES: dict[str, Number] = {"fp16": "float16", "bf16": "bfloat16"}


def _vanilla(bits: int) -> Recipe:
    return Recipe(
        name=f"vanilla-w{bits}a{bits}",
        description=f"the plain {bits}-bit baseline: weights per channel, min/max ranges, nearest rounding",
        weights=WeightScheme(bits=bits),
        activations=ActivationScheme(bits=bits, observer="minmax"),
    )


def _twin_hessian(bits: int) -> Recipe:
    # At 4 bits the products of attention lose more than all else; in float they cost nothing (docs/results.md).
    products = bits > 4
    behind = "GELU and softmax" if products else "GELU"
    return Recipe(
        name=f"twin-hessian-w{bits}a{bits}",
        description=f"{bits} bits with two steps behind {behind} and searched scales; simulation only",
        weights=WeightScheme(bits=bits, portable=False),
        activations=ActivationScheme(bits=bits),
        overrides=ENDS_IN_8_BITS if bits < 8 else (),
        attention_matmuls=products,
        search="hessian",
        twin=True,
    )


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="static-int8",
            description="8-bit weights per channel and activations on calibrated ranges; right and fast on every CPU",
            weights=WeightScheme(kernel_rounding="gptq"),
            # At 8 bits clipping shifts what it clips more than the finer grid saves (docs/design.md).
            activations=ActivationScheme(observer="minmax"),
            float_inputs=(PROJECTION,),
            outliers=OutlierHandling(),
            byte_pixels=True,
        ),
        Recipe(
            name="dynamic-int8",
            description="8-bit weights per channel, activations quantized per token at run time; needs no calibration",
            activations=ActivationScheme(ranges="per-token"),
        ),
        Recipe(
            name="w4a8",
            description="4-bit weights per channel stored in 4 bits, 8-bit activations, INT8 kernels",
            weights=WeightScheme(bits=4, scales="mse", rounding="gptq", kernel_rounding="gptq"),
            activations=ActivationScheme(observer="minmax"),
            overrides=ENDS_IN_8_BITS,
            float_inputs=(PROJECTION,),
            # Rounding to 4 bits does some damage everywhere; that of outliers is far beyond it.
            outliers=OutlierHandling(tolerated_damage=0.005, least_layer_damage=0.001),
            bias_correction=True,
            byte_pixels=True,
        ),
        Recipe(
            name="int8-weights",
            description="8-bit weights per channel, float activations",
            activations=None,
        ),
        Recipe(
            name="int4-weights",
            description="4-bit weights in groups of 64 stored in 4 bits, float activations",
            weights=WeightScheme(bits=4, granularity="group", scales="mse", rounding="gptq"),
            activations=None,
            overrides=tuple(SiteBits(pattern=site.pattern, weights=8) for site in ENDS_IN_8_BITS),
        ),
        *(
            Recipe(
                name=name,
                description=f"weights in {number}, computed with in float32: half the size, next to no loss",
                weights=WeightScheme(bits=16, number=number),
                activations=None,
            )
            for name, number in HALVES.items()
        ),
        *(_vanilla(bits) for bits in (8, 6, 4, 3, 2)),
        Recipe(
            name="torch-dynamic",
            description="torch's dynamic quantization to the number: 7-bit whole-batch activations; simulation only",
            weights=WeightScheme(granularity="tensor", portable=False),
            activations=ActivationScheme(bits=7, ranges="whole-batch"),
            token_table_bits=None,
        ),
        *(_twin_hessian(bits) for bits in (8, 6, 4)),
    )
}


FORMER_NAMES = {"static-int8-7bit-weights": "static-int8"}
"""Presets that became another one: every preset is safe on CPUs without VNNI now."""


def get_recipe(name: str) -> Recipe:
    """Return the preset of this name, also of a former one. Raises RecipeError listing the presets."""
    name = FORMER_NAMES.get(name, name)
    if name not in RECIPES:
        raise unknown(RecipeError, "recipe", name, RECIPES)
    return RECIPES[name]
