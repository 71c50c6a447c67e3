"""Recipes: frozen values that say how weights and activations become integers, and the named presets."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any, Literal, get_args

from vlmquant.errors import RecipeError, unknown

Ranges = Literal["static", "per-token"]
Observer = Literal["minmax", "mse"]

COMPONENTS = ("image", "text")


@dataclass(frozen=True, kw_only=True)
class WeightScheme:
    """Symmetric integers with one scale per output channel; `bits` in 4..8, stored as INT8."""

    bits: int = 8

    def __post_init__(self) -> None:
        if not 4 <= self.bits <= 8:
            raise RecipeError(f"weight bits must be 4 to 8, got {self.bits}")


@dataclass(frozen=True, kw_only=True)
class ActivationScheme:
    """Asymmetric integers of `bits` (4..8) bits.

    `ranges`: "static" fixes one range per tensor on a calibration set, chosen by `observer`; "per-token" takes each
    row's own range at run time and needs no calibration. `observer`: "mse" clips where the squared rounding error over
    the calibration set is least, "minmax" never clips.
    """

    bits: int = 8
    ranges: Ranges = "static"
    observer: Observer = "mse"

    def __post_init__(self) -> None:
        if not 4 <= self.bits <= 8:
            raise RecipeError(f"activation bits must be 4 to 8, got {self.bits}")
        if self.ranges not in get_args(Ranges):
            raise unknown(RecipeError, "activation ranges", self.ranges, get_args(Ranges))
        if self.observer not in get_args(Observer):
            raise unknown(RecipeError, "observer", self.observer, get_args(Observer))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a float tower becomes an integer one.

    `keep_float` holds shell patterns of module names (`*.mlp.fc2`) that stay as they are. The token-embedding table,
    a look-up and no multiplication, is stored as per-row INT8 whatever the rest does.
    """

    name: str
    description: str
    weights: WeightScheme = WeightScheme()
    activations: ActivationScheme = ActivationScheme()
    keep_float: tuple[str, ...] = ()

    @property
    def needs_calibration(self) -> bool:
        """Whether activation ranges have to be measured on a calibration set."""
        return self.activations.ranges == "static"

    def keeps_float(self, module_name: str) -> bool:
        """Whether the module of this dotted name stays float."""
        return any(fnmatch(module_name, pattern) for pattern in self.keep_float)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain JSON values."""
        return {**dataclasses.asdict(self), "keep_float": list(self.keep_float)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """Read what `to_dict` wrote. Raises RecipeError on a key that does not exist."""
        fields = dict(values)
        weights = WeightScheme(**_checked(WeightScheme, fields.pop("weights", {})))
        activations = ActivationScheme(**_checked(ActivationScheme, fields.pop("activations", {})))
        keep_float = tuple(fields.pop("keep_float", ()))
        known = {"name", "description"}
        if extra := set(fields) - known:
            raise unknown(RecipeError, "recipe key", sorted(extra)[0], [f.name for f in dataclasses.fields(cls)])
        if missing := known - set(fields):
            raise RecipeError(f"recipe lacks {sorted(missing)}; every recipe has a name and a description")
        return cls(**fields, weights=weights, activations=activations, keep_float=keep_float)


def _checked(scheme: type[Any], values: Mapping[str, Any]) -> Mapping[str, Any]:
    known = [field.name for field in dataclasses.fields(scheme)]
    for key in values:
        if key not in known:
            raise unknown(RecipeError, f"{scheme.__name__} key", key, known)
    return values


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="static-int8",
            description="8-bit weights per channel, 8-bit activations on calibrated ranges; fastest on CPUs with VNNI",
        ),
        Recipe(
            name="static-int8-7bit-weights",
            description="the same with 7-bit weights: cannot overflow on x86 CPUs without VNNI",
            weights=WeightScheme(bits=7),
        ),
        Recipe(
            name="dynamic-int8",
            description="8-bit weights per channel, activations quantized per token at run time; needs no calibration",
            activations=ActivationScheme(ranges="per-token"),
        ),
    )
}


def get_recipe(name: str) -> Recipe:
    """Return the preset of this name. Raises RecipeError listing the presets."""
    if name not in RECIPES:
        raise unknown(RecipeError, "recipe", name, RECIPES)
    return RECIPES[name]


def check_components(components: tuple[str, ...]) -> tuple[str, ...]:
    """Return the components in their standard order. Raises RecipeError on an unknown or empty choice."""
    for component in components:
        if component not in COMPONENTS:
            raise unknown(RecipeError, "component", component, COMPONENTS)
    if not components:
        raise RecipeError(f"no component to quantize; choose from {', '.join(COMPONENTS)}")
    return tuple(component for component in COMPONENTS if component in components)
