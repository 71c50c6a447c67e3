"""Bias correction: the mean error of each output of a quantized layer, taken out of its bias.

Nagel et al. 2019 (arXiv 1906.04721, section 4.2), with errors measured on calibration inputs.
"""

import copy
from dataclasses import replace

from torch import Tensor, nn

from vlmquant.quantize.calibrate import mean_output_errors
from vlmquant.quantize.methods.step import Calibration, Draft, Step
from vlmquant.quantize.recipes.recipe import Recipe


def _run(draft: Draft, _: Recipe, calibration: Calibration) -> Draft:
    layers = {name: draft.modules[name] for name in draft.weights}
    description = f"{calibration.description}: bias correction"
    errors = mean_output_errors(draft.tower, layers, calibration.inputs, description, calibration.track)
    corrected = {name: _corrected(layers[name], error) for name, error in errors.items()}
    return replace(draft, modules={**draft.modules, **corrected})


def _corrected(layer: nn.Module, error: Tensor) -> nn.Module:
    result = copy.deepcopy(layer)
    bias: Tensor | None = result._parameters.get("bias")
    result.bias = nn.Parameter(-error if bias is None else bias - error, requires_grad=False)
    return result


STEP = Step(applies=lambda recipe: recipe.bias_correction, run=_run)
