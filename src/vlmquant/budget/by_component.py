"""The candidates of a BLIP: mixes of recipes over whole components."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from vlmquant.budget.budget import Budget
from vlmquant.budget.ladder import Ladder, Rung
from vlmquant.budget.trial import medians_in_turns
from vlmquant.budget.yardstick import TEXT_METRICS, Metric
from vlmquant.build.build import check_exportable, quantize_model
from vlmquant.bundle.open import open_bundle
from vlmquant.checkpoints.blip import BlipModel
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.data.sets import ImageSet, QuestionedImages
from vlmquant.errors import DataError
from vlmquant.models.generate import GenerationOptions
from vlmquant.models.heads import as_writer
from vlmquant.models.writer import Writer
from vlmquant.progress import Track, silent
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.quantize.recipes.recipe import Recipe

MIXES: Mapping[str, tuple[str, str]] = {
    "static-int8": ("static-int8", "static-int8"),
    "static-int8 vision, dynamic-int8 text": ("static-int8", "dynamic-int8"),
    "static-int8 vision, int8-weights text": ("static-int8", "int8-weights"),
    "dynamic-int8": ("dynamic-int8", "dynamic-int8"),
    "int8-weights": ("int8-weights", "int8-weights"),
    "fp16": ("fp16", "fp16"),
}
"""Recipe of the vision component, and of every one that reads or writes text; expected fastest first, safest last."""
WARM_UP_RUNS, TIMED_RUNS = 1, 5


@dataclass(frozen=True, eq=False, kw_only=True)
class ComponentCandidates:
    """See `trial.Candidates`. `options` are those of decoding, the same for the float model."""

    model: BlipModel
    calibration: CalibrationSet | None
    mixes: Mapping[str, tuple[str, str]] = field(default_factory=lambda: MIXES)
    options: GenerationOptions = field(default_factory=GenerationOptions)
    engine: str = "auto"
    threads: int | None = None
    track: Track = silent

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def ladder(self) -> Ladder:
        """The mixes, in their order."""
        first, *rest = (Rung(name=name) for name in self.mixes)
        return Ladder(first=first, safe=tuple(rest))

    def check(self) -> None:
        """Raise RecipeError or CalibrationError where a mix cannot make a bundle."""
        for name in self.mixes:
            check_exportable(self.model, self._recipes(name), self.calibration)

    def metrics(self, budget: Budget) -> Mapping[str, Metric]:
        """Return what a BLIP of this kind is measured by. Raises DataError where it writes no text."""
        if self.model.kind not in TEXT_METRICS:
            raise DataError(
                f"{self.model.name!r} is a BLIP for {self.model.kind}; a search needs one that writes captions or "
                "answers questions"
            )
        return TEXT_METRICS[self.model.kind]

    def reference(self) -> Writer:
        """Return the float model."""
        return self.model.runner(self.options)

    def build(self, step: Rung, folder: Path) -> None:
        """Write the bundle of a mix."""
        quantize_model(self.model, self._recipes(step.name), self.calibration, folder, track=self.track)

    def open(self, folder: Path) -> Writer:
        """Return what runs a candidate's bundle."""
        return as_writer(open_bundle(folder, engine=self.engine, threads=self.threads, options=self.options))

    def latencies_ms(self, runners: Sequence[Writer], data: ImageSet) -> list[float]:
        """Return the median milliseconds from one decoded picture (and question) to its text, one at a time."""
        return medians_in_turns([partial(_text_ms, runner, data) for runner in runners], WARM_UP_RUNS, TIMED_RUNS)

    def rank(self, smoothing: bool) -> Sequence[str]:
        """Return nothing: the candidates differ by whole components."""
        del smoothing
        return ()

    def _recipes(self, name: str) -> dict[str, Recipe]:
        vision, text = self.mixes[name]
        return {part: get_recipe(vision if part == "vision" else text) for part in self.model.components}


def _text_ms(runner: Writer, data: ImageSet, turn: int) -> float:
    if isinstance(data, QuestionedImages):
        question = data.questions[turn % len(data.questions)]
        image = data.images[question.image_index]
        started = time.perf_counter()
        runner.answer([image], [question.text])
    else:
        image = data.images[turn % len(data)]
        started = time.perf_counter()
        runner.caption([image])
    return 1000 * (time.perf_counter() - started)
