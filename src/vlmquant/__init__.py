"""Make a vision-language model small, fast and still right, and find events in video on an ordinary CPU.

The public names. Importing this loads nothing heavy: each name is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmquant.budget.budget import Budget as Budget
    from vlmquant.budget.search import quantize_within_budget as quantize_within_budget
    from vlmquant.build.build import quantize_model as quantize_model
    from vlmquant.bundle.manifest import Manifest as Manifest
    from vlmquant.bundle.open import open_bundle as open_bundle
    from vlmquant.bundle.verify import verify as verify
    from vlmquant.checkpoints import load_blip as load_blip
    from vlmquant.checkpoints import load_model as load_model
    from vlmquant.checkpoints.calibration_set import CalibrationSet as CalibrationSet
    from vlmquant.errors import VlmQuantError as VlmQuantError
    from vlmquant.models.generate import GenerationOptions as GenerationOptions
    from vlmquant.models.spec import Encoder as Encoder
    from vlmquant.quantize.recipes.presets import RECIPES as RECIPES
    from vlmquant.quantize.recipes.presets import get_recipe as get_recipe
    from vlmquant.quantize.recipes.recipe import Recipe as Recipe
    from vlmquant.quantize.sensitivity import layer_sensitivity as layer_sensitivity
    from vlmquant.tasks.classification import zero_shot as zero_shot
    from vlmquant.tasks.retrieval import retrieval as retrieval
    from vlmquant.video.detect import detect as detect
    from vlmquant.video.events import EventRule as EventRule
    from vlmquant.video.score import EventQuery as EventQuery
    from vlmquant.video.watch import watch as watch
    from vlmquant.video.write import write_detection as write_detection

_HOMES = {
    "Budget": "vlmquant.budget.budget",
    "CalibrationSet": "vlmquant.checkpoints.calibration_set",
    "Encoder": "vlmquant.models.spec",
    "EventQuery": "vlmquant.video.score",
    "EventRule": "vlmquant.video.events",
    "GenerationOptions": "vlmquant.models.generate",
    "Manifest": "vlmquant.bundle.manifest",
    "RECIPES": "vlmquant.quantize.recipes.presets",
    "Recipe": "vlmquant.quantize.recipes.recipe",
    "VlmQuantError": "vlmquant.errors",
    "detect": "vlmquant.video.detect",
    "get_recipe": "vlmquant.quantize.recipes.presets",
    "layer_sensitivity": "vlmquant.quantize.sensitivity",
    "load_blip": "vlmquant.checkpoints",
    "load_model": "vlmquant.checkpoints",
    "open_bundle": "vlmquant.bundle.open",
    "quantize_model": "vlmquant.build.build",
    "quantize_within_budget": "vlmquant.budget.search",
    "retrieval": "vlmquant.tasks.retrieval",
    "verify": "vlmquant.bundle.verify",
    "watch": "vlmquant.video.watch",
    "write_detection": "vlmquant.video.write",
    "zero_shot": "vlmquant.tasks.classification",
}

__all__ = sorted(_HOMES)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vlmquant' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
