"""What a method is: a step that says from the recipe whether it applies, and adds to a draft what it finds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from vlmquant.progress import Track, silent
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.weights import IntegerWeight


@dataclass(frozen=True, eq=False)
class Calibration:
    """The batches to measure on, what the work on them is called, and how its progress is shown."""

    inputs: Sequence[Tensor]
    description: str
    track: Track = silent


@dataclass(frozen=True, eq=False, kw_only=True)
class Draft:
    """What the steps so far have found for one tower.

    `tower` is a float copy that gives what the float tower gives; a step that rewrites it copies it first.
    `roundings` holds, by name, what rounds the input of each site, each operand of a MatMul and each stored tensor;
    nothing where rows are rounded at run time. `scales` (rows, groups) float32 and `weights` belong to sites.
    `modules` are what takes the places of the tower's own modules in the end.
    """

    tower: nn.Module
    roundings: Mapping[str, nn.Module] = field(default_factory=dict)
    scales: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    weights: Mapping[str, IntegerWeight] = field(default_factory=dict)
    modules: Mapping[str, nn.Module] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One method: `run` returns the draft with what it found, where `applies` says that the recipe asks for it.

    `run` changes nothing that it is given, and finds the same for the same arguments. `fits` says that it fits layers
    to the calibration inputs, so that others must tell how near they come.
    """

    applies: Callable[[Recipe], bool]
    run: Callable[[Draft, Recipe, Calibration], Draft]
    fits: bool = False
