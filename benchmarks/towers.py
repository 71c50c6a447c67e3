"""Both towers of a CLIP by a recipe, simulated in torch."""

from dataclasses import replace

from torch import nn

from vlmquant import CalibrationSet
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.checkpoints.clip.inputs import calibration_inputs
from vlmquant.progress import bar
from vlmquant.quantize.apply import quantize_tower
from vlmquant.quantize.recipes.recipe import COMPONENTS, Recipe


def tower_of(model: ClipModel, component: str) -> nn.Module:
    """Return one tower of the model."""
    return model.image_tower if component == "image" else model.text_tower


def simulated_tower(model: ClipModel, component: str, recipe: Recipe, calibration: CalibrationSet) -> nn.Module:
    """Return a copy of one tower quantized by `recipe`, which measures what it needs on `calibration`."""
    inputs = calibration_inputs(model, calibration, component)
    return quantize_tower(tower_of(model, component), recipe, inputs, f"{recipe.name}, {component}", bar)


def simulated(model: ClipModel, recipe: Recipe, calibration: CalibrationSet) -> ClipModel:
    """Return the model with both towers quantized by `recipe`; its name says so."""
    towers = {component: simulated_tower(model, component, recipe, calibration) for component in COMPONENTS}
    return with_towers(model, towers["image"], towers["text"], f"{model.name} {recipe.name} simulated")


def with_towers(model: ClipModel, image: nn.Module, text: nn.Module, name: str) -> ClipModel:
    """Return the model with other towers and another name."""
    return replace(model, name=name, image_tower=image, text_tower=text)
