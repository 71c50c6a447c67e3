"""The forms of a CLIP that `ptq4clip` compares: FP32, both of the source's methods by bit-width, and static-int8."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

from torch import nn

from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.checkpoints.clip.inputs import calibration_inputs
from vlmquant.checkpoints.clip.model import ImageTower
from vlmquant.files import digest
from vlmquant.models.spec import FloatArray
from vlmquant.opening import Opened, opened_checkpoint
from vlmquant.progress import Track, silent
from vlmquant.quantize.apply import quantize_tower
from vlmquant.quantize.recipes.presets import RECIPES, get_recipe
from vlmquant.quantize.recipes.recipe import Recipe

CALIBRATION_IMAGES = 32
"""As many as the source takes."""
FLOAT_BITS = 32
VANILLA_BITS = (16, 8, 6, 4, 3, 2)
TWIN_BITS = (8, 6, 4, 3)
"""At 2 bits each of two ranges has one bit: a GELU's negative half and its positive one become one value each."""
VANILLA, TWIN, OURS_METHOD = "vanilla", "twin + Hessian", "static-int8"
NEAREST_PRESET = {
    "vanilla-w16a16": "vanilla-w8a8",
    "twin-hessian-w3a3": "twin-hessian-w4a4",
}
"""Widths without a preset, and the preset that they are otherwise like."""

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Form:
    """The CLIP by one method at one bit-width of weights and activations; FP32 has no recipe."""

    name: str
    method: str
    bits: int
    recipe: Recipe | None


FLOAT = Form("FP32", "FP32", FLOAT_BITS, None)
OURS = Form("static-int8", OURS_METHOD, 8, get_recipe("static-int8"))


def recipe_at(name: str, bits: int) -> Recipe:
    """Return the recipe called `name`; where no preset is of `bits` bits, another width's with these."""
    if name in RECIPES:
        return get_recipe(name)
    preset = get_recipe(NEAREST_PRESET[name])
    assert preset.activations is not None
    return replace(
        preset,
        name=name,
        description=f"{preset.name} with {bits} bits",
        weights=replace(preset.weights, bits=bits),
        activations=replace(preset.activations, bits=bits),
    )


def vanilla(bits: int) -> Form:
    """Return the source's baseline."""
    name = f"vanilla-w{bits}a{bits}"
    return Form(name, VANILLA, bits, recipe_at(name, bits))


def twin(bits: int) -> Form:
    """Return the source's method."""
    name = f"twin-hessian-w{bits}a{bits}"
    return Form(name, TWIN, bits, recipe_at(name, bits))


def forms_of(model: ClipModel) -> tuple[Form, ...]:
    """Return the forms of `model`, FP32 first; a ResNet has no GELU to give two ranges to, and the source did not."""
    twins = [twin(bits) for bits in TWIN_BITS] if isinstance(model.image_tower, ImageTower) else []
    return (FLOAT, OURS, *(vanilla(bits) for bits in VANILLA_BITS), *twins)


class SimulatedClip:
    """One form of a CLIP in torch; a tower is quantized when it is first called."""

    def __init__(self, model: ClipModel, form: Form, calibration: CalibrationSet, track: Track = silent) -> None:
        self._float, self.form, self._calibration, self._track = model, form, calibration, track

    @property
    def name(self) -> str:
        """What to call it in progress lines."""
        return f"{self._float.name} {self.form.name}"

    @cached_property
    def image_tower(self) -> nn.Module:
        """The image tower."""
        return self._tower("image")

    @cached_property
    def text_tower(self) -> nn.Module:
        """The text tower."""
        return self._tower("text")

    @cached_property
    def opened(self) -> Opened:
        """The encoder, under an identity of its own."""
        opened = opened_checkpoint(self._float)
        if self.form.recipe is None:
            return opened
        encoder = replace(
            opened.encoder,
            name=self.name,
            image_tower=_lazily(lambda: replace(self._float, image_tower=self.image_tower).encoder().image_tower),
            text_tower=_lazily(lambda: replace(self._float, text_tower=self.text_tower).encoder().text_tower),
        )
        identity = digest(opened.identity, self.form.recipe.to_dict(), self._calibration.digest)
        return replace(opened, runner=encoder, identity=identity)

    def _tower(self, component: str) -> nn.Module:
        tower = self._float.tower(component)
        if self.form.recipe is None:
            return tower
        inputs = calibration_inputs(self._float, self._calibration, component)
        return quantize_tower(tower, self.form.recipe, inputs, f"{self.form.name}, {component} tower", self._track)


def _lazily(make: Callable[[], Callable[[Batch], FloatArray]]) -> Callable[[Batch], FloatArray]:
    return lambda batch: make()(batch)
