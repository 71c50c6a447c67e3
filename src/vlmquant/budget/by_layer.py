"""The candidates of a CLIP: forms of one recipe with ever more layers in float, then presets with float arithmetic."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vlmquant.budget.budget import Budget
from vlmquant.budget.ladder import Ladder, Rung
from vlmquant.budget.trial import medians_in_turns
from vlmquant.budget.yardstick import Metric, Texts, encoder_metrics
from vlmquant.build.build import check_exportable, recipes_of, write_bundle
from vlmquant.bundle.open import open_bundle
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.checkpoints.part import Preparation
from vlmquant.data.sets import ImageSet
from vlmquant.models.encoder import DualEncoder
from vlmquant.models.heads import as_encoder
from vlmquant.models.prompts import BUILTIN_PROMPTS
from vlmquant.progress import Track, silent
from vlmquant.quantize.apply import plan_tower
from vlmquant.quantize.damage import TowerPlan, swapped
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.quantize.recipes.recipe import COMPONENTS, Recipe
from vlmquant.quantize.sensitivity import LayerSensitivity, plan_sensitivity
from vlmquant.tasks.templates import get_templates

SAFE_PRESETS = ("int8-weights", "fp16")
"""Small and close to float, but no faster: the last things to try."""
WARM_UP_RUNS, TIMED_RUNS = 3, 15


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerCandidates:
    """See `trial.Candidates`. Calibration and smoothing are done once and shared by all candidates that need them."""

    model: ClipModel
    calibration: CalibrationSet | None
    base: Recipe = field(default_factory=lambda: get_recipe("static-int8"))
    components: tuple[str, ...] = COMPONENTS
    engine: str = "auto"
    threads: int | None = None
    track: Track = silent
    _plans: dict[tuple[Recipe, str], TowerPlan] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def ladder(self) -> Ladder:
        """All in integers, then layer by layer, then the safe presets."""
        safe = tuple(Rung(name=preset, preset=preset) for preset in SAFE_PRESETS)
        return Ladder(first=Rung(name=self.base.name), safe=safe, by_layer=True, components=self.components)

    def check(self) -> None:
        """Raise RecipeError or CalibrationError where the base recipe cannot make a bundle."""
        check_exportable(self.model, recipes_of(self.model, self._base, self.components), self.calibration)

    def metrics(self, budget: Budget) -> Mapping[str, Metric]:
        """Return what an encoder is measured by."""
        plain = BUILTIN_PROMPTS if self.calibration is None else self.calibration.texts
        return encoder_metrics(Texts(templates=get_templates(budget.templates), plain=plain))

    def reference(self) -> DualEncoder:
        """Return the float encoder."""
        return self.model.encoder()

    def build(self, step: Rung, folder: Path) -> None:
        """Write the bundle of a candidate."""
        recipe = self._base if step.preset is None else replace(get_recipe(step.preset), outliers=None)
        recipe = replace(recipe, smoothing=step.smoothing)
        with ExitStack() as stack:
            quantized: dict[str, Any] = {}
            for component in self.components if step.components is None else step.components:
                plan = self._plan(recipe, component).without(step.kept_float)
                names = dict(plan.tower.named_modules())
                kept = tuple(name for name in step.kept_float if name in names)
                stack.enter_context(swapped(plan.tower, plan.modules))
                quantized[component] = (plan.tower, replace(recipe, keep_float=(*recipe.keep_float, *kept)))
            write_bundle(self.model, self._prepared, quantized, folder, track=self.track)

    def open(self, folder: Path) -> DualEncoder:
        """Return the encoder that runs a candidate's bundle."""
        return as_encoder(open_bundle(folder, engine=self.engine, threads=self.threads))

    def latencies_ms(self, runners: Sequence[DualEncoder], data: ImageSet) -> list[float]:
        """Return for each encoder the median milliseconds for one image and one text, through the towers alone."""
        del data
        return medians_in_turns([partial(_pair_ms, encoder) for encoder in runners], WARM_UP_RUNS, TIMED_RUNS)

    def rank(self, smoothing: bool) -> tuple[str, ...]:
        """Return all layers of all components, the one first whose quantization alone does most damage."""
        recipe = replace(self._base, smoothing=smoothing)
        found: list[LayerSensitivity] = []
        for component in self.components:
            plan = self._plan(recipe, component)
            found += plan_sensitivity(
                plan, recipe, self._inputs(component), f"Ranking the {component} tower", self.track
            )
        return tuple(layer.site for layer in sorted(found, key=lambda layer: -layer.cosine_loss))

    @property
    def _base(self) -> Recipe:
        """The base recipe without its own handling of outliers: the search handles them."""
        return replace(self.base, outliers=None)

    def _plan(self, recipe: Recipe, component: str) -> TowerPlan:
        if (recipe, component) not in self._plans:
            tower = self.model.tower(component)
            title = f"Calibrating the {component} tower"
            self._plans[recipe, component] = plan_tower(tower, recipe, self._inputs(component), title, self.track)
        return self._plans[recipe, component]

    def _inputs(self, component: str) -> Sequence[Tensor]:
        (inputs,) = [part.inputs for part in self._prepared.parts if part.component == component]
        return inputs

    @cached_property
    def _prepared(self) -> Preparation:
        return self.model.prepare(self.calibration, self.track)


def _pair_ms(encoder: DualEncoder, turn: int) -> float:
    del turn  # a tower takes as long for one picture as for another
    spec = encoder.image_spec
    pixels = np.zeros((1, 3, spec.crop_height, spec.crop_width), dtype=np.float32)
    ids = encoder.tokenizer.encode_batch(["a photo of a street"])
    started = time.perf_counter()
    encoder.image_tower(pixels)
    encoder.text_tower(ids)
    return 1000 * (time.perf_counter() - started)
