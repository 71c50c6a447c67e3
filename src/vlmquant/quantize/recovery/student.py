"""A tower under training that rounds as its recipe does.

Rounding passes the gradient on as if it were the identity (Bengio et al. 2013, arXiv 1308.3432).
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from vlmquant.progress import Track
from vlmquant.quantize.apply import plan_tower, quantize_by_damage
from vlmquant.quantize.damage import up_to
from vlmquant.quantize.modules import PerTokenLinear, QuantizedConv2d, QuantizedLinear
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.rounding import round_inputs, round_straight
from vlmquant.quantize.sites import token_tables, weight_scheme
from vlmquant.quantize.weights import integer_range

CALIBRATION_INPUTS = 64


class Student:
    """A tower under training: its float weights (`latent`), and how the recipe rounds them as they are now."""

    def __init__(
        self, tower: nn.Module, recipe: Recipe, inputs: Sequence[Tensor], device: torch.device, track: Track
    ) -> None:
        self.calibration = up_to(inputs, CALIBRATION_INPUTS)
        spelled_out = recipe
        if recipe.outliers is not None:
            _, spelled_out = quantize_by_damage(tower, recipe, self.calibration, "Outliers", track)
        self.recipe = without_moving_weights(spelled_out)
        self.latent = copy.deepcopy(tower)
        if spelled_out.smoothing:
            smoothed = plan_tower(
                tower, replace(spelled_out, byte_pixels=False), self.calibration, "Smoothing", track
            ).tower
            self.latent.load_state_dict(smoothed.state_dict())
        self.latent.requires_grad_(True)
        for name in token_tables(self.latent):
            self.latent.get_submodule(name).requires_grad_(False)
        self.latent.to(device)
        self.device = device
        self._skeleton: nn.Module = self.latent
        self._steps: dict[str, Tensor] = {}
        self._ranges: dict[str, tuple[int, int]] = {}

    def refresh(self) -> None:
        """Measure ranges and scales on the weights as they are now, exactly as the recipe does."""
        plan = plan_tower(copy.deepcopy(self.latent).cpu(), self.recipe, self.calibration, "Ranges")
        self._steps = {}
        for name, module in plan.modules.items():
            if isinstance(module, QuantizedLinear | QuantizedConv2d | PerTokenLinear):
                self._steps[f"{name}.weight"] = _steps_of(module).to(self.device)
                self._ranges[f"{name}.weight"] = integer_range(weight_scheme(plan.tower, self.recipe, name))
                round_inputs(plan.tower.get_submodule(name), module.rounding)
            else:
                plan.tower.set_submodule(name, module)
        self._skeleton = plan.tower.to(self.device)

    def __call__(self, batch: Tensor) -> Tensor:
        """Return the unit rows (n, d) of a batch, all weights and sites rounded; gradients reach `latent`."""
        weights: dict[str, Tensor] = dict(self.latent.named_parameters())
        for name, steps in self._steps.items():
            integers = torch.clamp(round_straight(weights[name].flatten(1) / steps), *self._ranges[name])
            weights[name] = (integers * steps).reshape(weights[name].shape)
        return functional.normalize(cast(Tensor, functional_call(self._skeleton, weights, (batch,))), dim=-1)


def _steps_of(module: QuantizedLinear | QuantizedConv2d | PerTokenLinear) -> Tensor:
    """Return the scale of every weight, in a shape that broadcasts against (rows, columns)."""
    if isinstance(module, QuantizedLinear) and module.group_size is not None:
        columns = len(module.weight_integers)
        return module.scales.repeat_interleave(module.group_size, dim=0)[:columns].t().contiguous()
    return module.scales[:, None]


def without_moving_weights(recipe: Recipe) -> Recipe:
    """Return what is left of `recipe` for weights that were tuned for it: no step that would move them again."""
    weights = replace(recipe.weights, rounding="nearest", kernel_rounding="nearest")
    return replace(recipe, weights=weights, smoothing=False, outliers=None, bias_correction=False, byte_pixels=False)
