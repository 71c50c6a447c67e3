"""Recipes: frozen values that say how weights and activations become integers."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from typing import Any, Literal

from vlmquant.errors import RecipeError, unknown
from vlmquant.quantize.recipes.schemes import (
    ActivationScheme,
    OutlierHandling,
    SiteBits,
    WeightScheme,
    check_choice,
)

Search = Literal["none", "hessian"]

COMPONENTS = ("image", "text")
NAMES = ("keep_float", "float_inputs", "steps")
SWITCHES = ("attention_matmuls", "smoothing", "bias_correction", "twin", "byte_pixels")
PROJECTION = "*_projection"
# The first layer sees raw pixels and the last makes the embedding: little work, and much harm below 8 bits.
ENDS_IN_8_BITS = (
    SiteBits(pattern="*patch_embedding", weights=8, activations=8),
    SiteBits(pattern=PROJECTION, weights=8, activations=8),
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a float tower becomes a quantized one.

    What is quantized:
    - `activations` None leaves activations float, so that only weights become integers.
    - `keep_float` holds shell patterns (`*.mlp.fc2`) of modules that stay as they are, `float_inputs` of those whose
      weights alone become integers. `overrides` gives some sites other bit-widths; the last match counts.
    - `attention_matmuls` quantizes both products inside attention too.
    - `byte_pixels` lets a CLIP's patch embedding read pixels as the bytes that they are, without rounding, where its
      activations have 8 bits.
    - `token_table_bits` stores the token table, which is looked up and not multiplied, as integers with one scale per
      row, whatever the other weights are; None leaves it float. With half-precision weights it is halved as well.
    - `prune` leaves out heads of attentions and channels of MLPs that make up so much of a component's work (its
      multiply-accumulates, 0 to 1), before anything is rounded.

    How the numbers are chosen:
    - `smoothing` moves outlier channels from activations into weights. `outliers` does so, and leaves the worst layers
      float, only where outliers do damage.
    - `search` "hessian" chooses scales by the output error, weighted with its effect on the embedding.
    - `twin` gives the inputs after a GELU and a softmax two step sizes.
    - `bias_correction` takes the mean error of each output out of its bias.
    - `steps` switches on by name those steps of `quantize.methods.STEPS` that have no field here.
    """

    name: str
    description: str
    weights: WeightScheme = field(default_factory=WeightScheme)
    activations: ActivationScheme | None = field(default_factory=ActivationScheme)
    keep_float: tuple[str, ...] = ()
    float_inputs: tuple[str, ...] = ()
    overrides: tuple[SiteBits, ...] = ()
    attention_matmuls: bool = False
    smoothing: bool = False
    outliers: OutlierHandling | None = None
    bias_correction: bool = False
    search: Search = "none"
    twin: bool = False
    byte_pixels: bool = False
    token_table_bits: Literal[8] | None = 8
    steps: tuple[str, ...] = ()
    prune: float = 0.0

    def __post_init__(self) -> None:
        check_choice("search", self.search, Search)
        for name in SWITCHES:
            if not isinstance(value := getattr(self, name), bool):
                raise RecipeError(f"{name} must be true or false, got {value!r}")
        for name in NAMES:
            value = getattr(self, name)
            if not isinstance(value, tuple) or not all(isinstance(entry, str) for entry in value):
                raise RecipeError(f"{name} must be a tuple of strings, got {value!r}")
        if self.token_table_bits not in (8, None):
            raise RecipeError(f"token_table_bits must be 8 or null, got {self.token_table_bits!r}")
        if isinstance(self.prune, bool) or not isinstance(self.prune, int | float) or not 0 <= self.prune < 1:
            raise RecipeError(f"prune is a share of the work from 0 to below 1, got {self.prune!r}")
        for contradiction in self._contradictions():
            raise RecipeError(f"recipe {self.name!r}: {contradiction}")

    def _contradictions(self) -> Iterator[str]:
        hessian = self.search == "hessian"
        wanted = {name: getattr(self, name) for name in SWITCHES} | {"search hessian": hessian}
        for name in ("attention_matmuls", "twin", "search hessian", "byte_pixels"):
            if wanted[name] and not self.static:
                yield f"{name} needs static activation ranges"
        number = self.weights.number
        if not self.integer_weights:
            if self.activations is not None or self.overrides:
                yield f"{number} weights go with float activations only"
            if self.smoothing or self.outliers or self.bias_correction or self._second_order:
                yield f"{number} weights are rounded as they are; only integers are smoothed, corrected or learned"
        if self.float_inputs and (not self.static or hessian):
            yield "float_inputs need static ranges elsewhere, and no hessian search"
        if self.activations and self.activations.granularity == "head" and not self.attention_matmuls:
            yield "ranges per head need attention_matmuls; only they have heads"
        if self.activations and self.activations.ranges == "per-token" and self.weights.granularity == "group":
            yield "per-token ranges need one weight scale per channel or tensor"

    @property
    def static(self) -> bool:
        """Whether activation ranges are fixed in advance."""
        return self.activations is not None and self.activations.ranges == "static"

    @property
    def integer_weights(self) -> bool:
        """Whether weights become integers, and not 16-bit floats."""
        return self.weights.number == "integer"

    @property
    def needs_calibration(self) -> bool:
        """Whether anything has to be measured on a calibration set."""
        adapted = self.smoothing or self.outliers is not None
        return (
            self.static or adapted or self.bias_correction or self._second_order or bool(self.steps) or self.prune > 0
        )

    @property
    def _second_order(self) -> bool:
        return {self.weights.rounding, self.weights.kernel_rounding} != {"nearest"}

    def keeps_float(self, module_name: str) -> bool:
        """Whether the module of this dotted name stays float."""
        return any(fnmatch(module_name, pattern) for pattern in self.keep_float)

    def has_float_input(self, module_name: str) -> bool:
        """Whether only the weights of the module of this dotted name become integers."""
        return any(fnmatch(module_name, pattern) for pattern in self.float_inputs)

    def weights_at(self, module_name: str) -> WeightScheme:
        """Return the weight scheme of one site."""
        widths = [o.weights for o in self.overrides if o.weights is not None and fnmatch(module_name, o.pattern)]
        return replace(self.weights, bits=widths[-1]) if widths else self.weights

    def activations_at(self, module_name: str) -> ActivationScheme | None:
        """Return the activation scheme of one site; None where they stay float."""
        widths = [
            o.activations for o in self.overrides if o.activations is not None and fnmatch(module_name, o.pattern)
        ]
        if self.activations is None or not widths:
            return self.activations
        return replace(self.activations, bits=widths[-1])

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain JSON values."""
        values = dataclasses.asdict(self)
        values |= {name: list(values[name]) for name in (*NAMES, "overrides")}
        for later in ("steps", "prune"):
            if not values[later]:
                del values[later]  # so that recipes without are written as they always were
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """Read what `to_dict` wrote. Raises RecipeError on a key that does not exist."""
        fields = dict(_checked(cls, values))
        if missing := {"name", "description"} - set(fields):
            raise RecipeError(f"recipe lacks {sorted(missing)}; every recipe has a name and a description")
        fields["weights"] = WeightScheme(**_checked(WeightScheme, fields.get("weights", {})))
        activations = fields.get("activations", {})
        if activations is not None:
            fields["activations"] = ActivationScheme(**_checked(ActivationScheme, activations))
        outliers = fields.get("outliers")
        if outliers is not None:
            fields["outliers"] = OutlierHandling(**_checked(OutlierHandling, outliers))
        for name in (*NAMES, "overrides"):
            if not isinstance(listed := fields.get(name, ()), list | tuple):
                raise RecipeError(f"{name} must be a list, got {listed!r}")
            fields[name] = tuple(listed)
        fields["overrides"] = tuple(SiteBits(**_checked(SiteBits, item)) for item in fields["overrides"])
        return cls(**fields)


def pruned(recipe: Recipe, share: float | None) -> Recipe:
    """Return `recipe` with `share` of each component's work left out first, and a name that says so.

    None leaves what the recipe says. Raises RecipeError where that is another share already.
    """
    if share is None or share == recipe.prune:
        return recipe
    if recipe.prune:
        raise RecipeError(f"recipe {recipe.name!r} has prune {recipe.prune:g} and not {share:g}; give one of the two")
    return replace(recipe, prune=share, name=f"{recipe.name}-pruned-{100 * share:g}")


def simulation_only(recipe: Recipe) -> str | None:
    """Return why `recipe` cannot become a file for integer kernels; None when it can."""
    widths = {recipe.weights.bits, *(o.weights for o in recipe.overrides)}
    if recipe.activations is not None:
        widths |= {recipe.activations.bits, *(o.activations for o in recipe.overrides)}
        if recipe.activations.ranges == "whole-batch":
            return "ranges over a whole batch are simulated for comparison with torch's dynamic quantization"
        if recipe.activations.granularity == "head":
            return "engines' integer kernels multiply all heads of an attention on one grid, not one per head"
    if 16 in widths and recipe.integer_weights:
        return "no engine has kernels for 16-bit integers"
    if recipe.twin:
        return "no engine has kernels for two steps in one tensor (twin)"
    return None


def check_patterns(recipe: Recipe, module_names: Iterable[str]) -> None:
    """Raise RecipeError naming the first pattern of `recipe` that matches none of `module_names`.

    The presets' own patterns for a model's two ends may match nothing: a decoder has no patches.
    """
    names = list(module_names)
    ends = [site.pattern for site in ENDS_IN_8_BITS]
    for pattern in (*recipe.keep_float, *recipe.float_inputs, *(override.pattern for override in recipe.overrides)):
        if pattern not in ends and not any(fnmatch(name, pattern) for name in names):
            some = ", ".join(names[:3])
            raise RecipeError(f"recipe {recipe.name!r}: pattern {pattern!r} matches no layer; layers are like {some}")


def check_components(components: tuple[str, ...]) -> tuple[str, ...]:
    """Return the components in their standard order. Raises RecipeError on an unknown or empty choice."""
    for component in components:
        if component not in COMPONENTS:
            raise unknown(RecipeError, "component", component, COMPONENTS)
    if not components:
        raise RecipeError(f"no component to quantize; choose from {', '.join(COMPONENTS)}")
    return tuple(component for component in COMPONENTS if component in components)


def _checked(scheme: type[Any], values: Mapping[str, Any]) -> Mapping[str, Any]:
    known = [entry.name for entry in dataclasses.fields(scheme)]
    if not isinstance(values, Mapping):
        raise RecipeError(f"a {scheme.__name__} must be an object with keys such as {known[0]!r}, got {values!r}")
    for key in values:
        if key not in known:
            raise unknown(RecipeError, f"{scheme.__name__} key", key, known)
    return values
