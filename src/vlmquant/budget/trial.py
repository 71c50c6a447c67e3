"""Building one candidate of a search as a bundle, scoring it and timing it."""

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from torch import Tensor

from vlmquant.budget.ladder import Step
from vlmquant.budget.log import Drop, Rule, Tried
from vlmquant.budget.yardstick import Yardstick
from vlmquant.build.build import calibration_inputs, model_tower, write_bundle
from vlmquant.bundle.manifest import Manifest
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.models.encoder import DualEncoder
from vlmquant.progress import Track
from vlmquant.quantize.apply import plan_tower
from vlmquant.quantize.damage import Plan, swapped
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.sensitivity import LayerSensitivity, plan_sensitivity

WARM_UP_RUNS, TIMED_RUNS = 3, 15


@dataclass(frozen=True, eq=False, kw_only=True)
class Workshop:
    """Tries steps of a search over one model; calibration and smoothing are done once and shared by all that need them.

    `scratch` is an empty folder for bundles; those that are not inside the budget are removed at once.
    """

    model: ClipModel
    calibration: CalibrationSet | None
    base: Recipe
    components: tuple[str, ...]
    yardstick: Yardstick
    max_drop_points: float
    rule: Rule
    max_bytes: int | None
    max_latency_ms: float | None
    open_encoder: Callable[[Path], DualEncoder]
    scratch: Path
    track: Track
    _plans: dict[tuple[Recipe, str], Plan] = field(default_factory=dict)
    _folders: dict[str, Path] = field(default_factory=dict)

    def try_step(self, step: Step) -> Tried:
        """Build, score and time one candidate."""
        started = time.perf_counter()
        folder = self._build(step)
        encoder = self.open_encoder(folder)
        drop = self.yardstick.drop(encoder, "search")
        (latency_ms,) = pair_latencies_ms([encoder])
        manifest = Manifest.read(folder)
        refusal = self._refusal(drop, manifest.total_bytes, latency_ms)
        inside = refusal is None
        if inside:
            self._folders[step.name] = folder
        else:
            shutil.rmtree(folder)
        return Tried(
            name=step.name,
            recipe=manifest.recipe,
            float_layers=len(step.kept_float),
            drop=drop,
            latency_ms=latency_ms,
            bytes=manifest.total_bytes,
            inside=inside,
            decision=refusal or f"inside: the {self.rule} {drop.counted(self.rule):.2f} is small enough",
            seconds=time.perf_counter() - started,
        )

    def rank(self, smoothing: bool) -> tuple[str, ...]:
        """Return all layers of all components, the one first whose quantization alone does most damage."""
        recipe = replace(self.base, smoothing=smoothing)
        found: list[LayerSensitivity] = []
        for component in self.components:
            plan = self._plan(recipe, component)
            found += plan_sensitivity(
                plan, recipe, self._inputs(component), f"Ranking the {component} tower", self.track
            )
        return tuple(layer.site for layer in sorted(found, key=lambda layer: -layer.cosine_loss))

    def fastest(self, tried: Sequence[Tried]) -> tuple[Tried, ...]:
        """Return those of `tried` that are inside, timed again in turns, the fastest first."""
        inside = [one for one in tried if one.inside]
        if len(inside) > 1:
            latencies = pair_latencies_ms([self.open_encoder(self.folder(one.name)) for one in inside])
            inside = [replace(one, latency_ms=ms) for one, ms in zip(inside, latencies, strict=True)]
        return tuple(sorted(inside, key=lambda one: one.latency_ms))

    def folder(self, name: str) -> Path:
        """Return the bundle of a candidate that was inside the budget."""
        return self._folders[name]

    def _refusal(self, drop: Drop, total_bytes: int, latency_ms: float) -> str | None:
        counted = drop.counted(self.rule)
        if counted > self.max_drop_points:
            return f"beyond: the {self.rule} {counted:.2f} is more than {self.max_drop_points:g}"
        if self.max_bytes is not None and total_bytes > self.max_bytes:
            return f"too large: {total_bytes / 1e6:.1f} MB are more than {self.max_bytes / 1e6:.1f}"
        if self.max_latency_ms is not None and latency_ms > self.max_latency_ms:
            return f"too slow: {latency_ms:.1f} ms are more than {self.max_latency_ms:g}"
        return None

    def _build(self, step: Step) -> Path:
        recipe = self.base if step.preset is None else replace(get_recipe(step.preset), outliers=None)
        recipe = replace(recipe, smoothing=step.smoothing)
        components = self.components if step.components is None else step.components
        folder = self.scratch / f"{len(list(self.scratch.iterdir()))}-{time.monotonic_ns()}"
        with ExitStack() as stack:
            quantized: dict[str, Any] = {}
            for component in components:
                plan = self._plan(recipe, component).without(step.kept_float)
                names = dict(plan.tower.named_modules())
                kept = tuple(name for name in step.kept_float if name in names)
                stack.enter_context(swapped(plan.tower, plan.modules))
                quantized[component] = (plan.tower, replace(recipe, keep_float=(*recipe.keep_float, *kept)))
            write_bundle(self.model, recipe, self.calibration, quantized, folder, track=self.track)
        return folder

    def _plan(self, recipe: Recipe, component: str) -> Plan:
        if (recipe, component) not in self._plans:
            tower = model_tower(self.model, component)
            title = f"Calibrating the {component} tower"
            self._plans[recipe, component] = plan_tower(tower, recipe, self._inputs(component), title, self.track)
        return self._plans[recipe, component]

    def _inputs(self, component: str) -> list[Tensor]:
        return calibration_inputs(self.model, self.calibration, component)


def pair_latencies_ms(encoders: Sequence[DualEncoder]) -> list[float]:
    """Return for each encoder the median milliseconds for one image and one text, through the towers alone.

    The encoders take turns, so that a slow spell of the machine hits all of them. In this process, which disturbs
    their caches: good enough to order candidates, and no benchmark.
    """
    taken: list[list[float]] = [[] for _ in encoders]
    for _ in range(WARM_UP_RUNS + TIMED_RUNS):
        for encoder, own in zip(encoders, taken, strict=True):
            own.append(_pair_ms(encoder))
    return [median(own[WARM_UP_RUNS:]) for own in taken]


def _pair_ms(encoder: DualEncoder) -> float:
    spec = encoder.image_spec
    pixels = np.zeros((1, 3, spec.crop_height, spec.crop_width), dtype=np.float32)
    ids = encoder.tokenizer.encode_batch(["a photo of a street"])
    started = time.perf_counter()
    encoder.image_tower(pixels)
    encoder.text_tower(ids)
    return 1000 * (time.perf_counter() - started)
