"""The parts of a recipe: how weights become integers, how activations do, and where the widths differ."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from vlmquant.errors import RecipeError, unknown

Number = Literal["integer", "float16", "bfloat16"]
Granularity = Literal["channel", "tensor", "group"]
Scales = Literal["max", "mse"]
Rounding = Literal["nearest", "gptq", "reconstruction"]
KernelRounding = Literal["nearest", "gptq"]
Ranges = Literal["static", "per-token", "whole-batch"]
ActivationGranularity = Literal["tensor", "head"]
Observer = Literal["minmax", "percentile", "mse", "kl"]

BITS = (*range(2, 9), 16)


@dataclass(frozen=True, kw_only=True)
class WeightScheme:
    """Symmetric integers of `bits` (2..8 or 16) bits, or with `number` "float16" or "bfloat16" 16-bit floats.

    `granularity`: one scale per output channel, per tensor, or per `group_size` inputs of each output channel (the
    last group of a row may be shorter; a convolution has one group per channel). `scales`: "max" covers the largest
    magnitude, "mse" clips where the squared rounding error is least. `rounding`: "nearest"; "gptq", which lets later
    columns make up for the rounding of earlier ones (Frantar et al. 2022); or "reconstruction", which goes on from
    there below 8 bits and learns the integers block by block (Li et al. 2021).

    `portable` 8-bit weights are multiplied correctly on every CPU (see `quantize.portable`): matrices keep to a limit
    on neighbours, and kernels of more than one pixel to 7 bits, rounded by `kernel_rounding`, "nearest" or "gptq".
    Other widths stay as they are, and so do weights that meet float activations.
    """

    bits: int = 8
    number: Number = "integer"
    granularity: Granularity = "channel"
    group_size: int = 64
    scales: Scales = "max"
    rounding: Rounding = "nearest"
    portable: bool = True
    kernel_rounding: KernelRounding = "nearest"

    def __post_init__(self) -> None:
        check_bits("weight", self.bits)
        check_choice("weight number", self.number, Number)
        if self.number != "integer" and self.bits != 16:
            raise RecipeError(f"{self.number} weights have 16 bits, got {self.bits}")
        check_choice("weight granularity", self.granularity, Granularity)
        check_choice("weight scales", self.scales, Scales)
        check_choice("weight rounding", self.rounding, Rounding)
        check_choice("kernel rounding", self.kernel_rounding, KernelRounding)
        if self.group_size < 16 or self.group_size & (self.group_size - 1):
            raise RecipeError(f"group_size must be a power of two, at least 16, got {self.group_size}")


@dataclass(frozen=True, kw_only=True)
class ActivationScheme:
    """Asymmetric integers of `bits` (2..8 or 16) bits.

    `ranges`: "static" fixes one range per tensor on a calibration set, chosen by `observer`; "per-token" takes each
    row's own range at run time; "whole-batch" takes one range over everything a site sees in one call, as torch's
    dynamic quantization does. `observer`: "minmax" never clips, "percentile" keeps 99.99 % of the values, "mse" clips
    where the squared rounding error is least, "kl" where the distribution changes least. `granularity` is that of
    static ranges: one per "tensor", or one per "head" for the operands of attention's products (a Linear sums over all
    heads, so its input has one range either way).
    """

    bits: int = 8
    ranges: Ranges = "static"
    observer: Observer = "mse"
    granularity: ActivationGranularity = "tensor"

    def __post_init__(self) -> None:
        check_bits("activation", self.bits)
        check_choice("activation granularity", self.granularity, ActivationGranularity)
        if self.granularity == "head" and self.ranges != "static":
            raise RecipeError(f"ranges per head are static ones, got ranges {self.ranges!r}")
        check_choice("activation ranges", self.ranges, Ranges)
        check_choice("observer", self.observer, Observer)


@dataclass(frozen=True, kw_only=True)
class SiteBits:
    """Other bit-widths for the sites whose name matches the shell `pattern`; None leaves the recipe's."""

    pattern: str
    weights: int | None = None
    activations: int | None = None

    def __post_init__(self) -> None:
        for kind, bits in (("weight", self.weights), ("activation", self.activations)):
            if bits is not None:
                check_bits(kind, bits)
        if self.weights is self.activations is None:
            raise RecipeError(f"the override of {self.pattern!r} changes nothing; give weights or activations a width")


@dataclass(frozen=True, kw_only=True)
class OutlierHandling:
    """What to do where outliers do damage, which is 1 - mean cosine of the final embedding to the float model's.

    Up to `tolerated_damage` nothing is done. Beyond it the tower is smoothed. Where that is not enough, layers stay
    float until the damage is tolerable, the most damaging first: at most `worst_layers_float` of them, and only those
    that alone do `least_layer_damage` or more.
    """

    tolerated_damage: float = 0.002
    least_layer_damage: float = 0.0005
    worst_layers_float: int = 4

    def __post_init__(self) -> None:
        for name, value in (("tolerated", self.tolerated_damage), ("least layer", self.least_layer_damage)):
            if not 0 <= value <= 1:
                raise RecipeError(f"{name} damage must be between 0 and 1 (1 - cosine), got {value}")
        if self.worst_layers_float < 0:
            raise RecipeError(f"worst_layers_float must not be negative, got {self.worst_layers_float}")


def check_bits(kind: str, bits: int) -> None:
    """Raise RecipeError for a width that does not exist."""
    if type(bits) is not int or bits not in BITS:
        raise RecipeError(f"{kind} bits must be 2 to 8 or 16, got {bits!r}")


def check_choice(kind: str, value: str, choices: Any) -> None:
    """Raise RecipeError for a value that is not one of the Literal `choices`."""
    if value not in get_args(choices):
        raise unknown(RecipeError, kind, value, get_args(choices))
