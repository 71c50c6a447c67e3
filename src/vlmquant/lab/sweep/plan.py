"""What a sweep tries: which recipe in which tower."""

from dataclasses import dataclass

from vlmquant.errors import RecipeError, unknown
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.quantize.recipes.recipe import Recipe, simulation_only

FLOAT = "float"
FLOAT_BITS = 32
GRID_BITS = (8, 6, 4, 3, 2)
GRID_REASON = "part of the study of bit-widths, which is simulated"
DEFAULT_RECIPES = (
    "static-int8",
    "dynamic-int8",
    "int8-weights",
    "fp16",
    "w4a8",
    "int4-weights",
    "torch-dynamic",
    "twin-hessian-w8a8",
    "twin-hessian-w6a6",
    "twin-hessian-w4a4",
)

Bits = tuple[int, int]
"""Bits of weights and of activations; 32 for float."""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """A recipe as the sweep runs it: in a bundle on an engine, or in simulation with the reason in words."""

    recipe: Recipe
    why_simulated: str | None

    @property
    def bits(self) -> Bits:
        """Bits of the weights and of the activations."""
        activations = self.recipe.activations
        return self.recipe.weights.bits, FLOAT_BITS if activations is None else activations.bits


@dataclass(frozen=True)
class Pair:
    """The precision of each tower, by name; "float" is the checkpoint's own."""

    image: str
    text: str


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """Every recipe of `recipes` in the towers that `components` name, and vanilla bit-widths tower against tower.

    `components` holds "image", "text" and "both". `grid_bits` are the widths of the vanilla recipes whose every
    combination over the two towers is scored; empty for none. Raises RecipeError for unknown names and when there is
    nothing to try.
    """

    recipes: tuple[str, ...] = DEFAULT_RECIPES
    components: tuple[str, ...] = ("image", "text", "both")
    grid_bits: tuple[int, ...] = GRID_BITS

    def __post_init__(self) -> None:
        for component in self.components:
            if component not in PLACES:
                raise unknown(RecipeError, "component", component, PLACES)
        if not self.grid_bits and not (self.recipes and self.components):
            raise RecipeError("a sweep without recipes and without a grid of bit-widths has nothing to try")
        self.precisions()

    def precisions(self) -> dict[str, Precision]:
        """Return every precision by the name of its recipe, those of the grid last."""
        found = {}
        for recipe in map(get_recipe, dict.fromkeys(self.recipes)):
            found[recipe.name] = Precision(recipe=recipe, why_simulated=simulation_only(recipe))
        for name in self.grid_names():
            found.setdefault(name, Precision(recipe=get_recipe(name), why_simulated=GRID_REASON))
        return found

    def grid_names(self) -> tuple[str, ...]:
        """Return the vanilla recipes of the grid, in the order of `grid_bits`."""
        return tuple(f"vanilla-w{bits}a{bits}" for bits in dict.fromkeys(self.grid_bits))

    def pairs(self) -> tuple[Pair, ...]:
        """Return what is scored, each pair once: float first, then recipe by recipe, then the rest of the grid."""
        listed = [Pair(FLOAT, FLOAT)]
        listed += [PLACES[place](name) for name in self.recipes for place in self.components]
        grid = (FLOAT, *self.grid_names()) if self.grid_bits else ()
        listed += [Pair(image, text) for image in grid for text in grid]
        return tuple(dict.fromkeys(listed))


PLACES = {
    "image": lambda name: Pair(name, FLOAT),
    "text": lambda name: Pair(FLOAT, name),
    "both": lambda name: Pair(name, name),
}
