"""Building the candidates of a search as bundles, scoring them and timing them, whatever family the model is of."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from vlmquant.budget.budget import Budget
from vlmquant.budget.ladder import Ladder, Rung
from vlmquant.budget.log import Tried
from vlmquant.budget.yardstick import Metric, Yardstick
from vlmquant.bundle.manifest import Manifest
from vlmquant.data.sets import ImageSet


def medians_in_turns(runs: Sequence[Callable[[int], float]], warm_up: int, timed: int) -> list[float]:
    """Return the median of each of `runs`, which take the number of the turn and return how long they took.

    They take turns, so that a slow spell of the machine hits all of them; the first `warm_up` turns do not count.
    """
    taken: list[list[float]] = [[] for _ in runs]
    for turn in range(warm_up + timed):
        for run, own in zip(runs, taken, strict=True):
            own.append(run(turn))
    return [median(own[warm_up:]) for own in taken]


class Candidates(Protocol):
    """What a family of models supplies to a search: its candidates, and how one is built, opened and timed."""

    @property
    def name(self) -> str:
        """The model's name."""
        ...

    @property
    def engine(self) -> str:
        """What the candidates are opened with: "auto" or an engine's name."""
        ...

    @property
    def ladder(self) -> Ladder:
        """The candidates."""
        ...

    def check(self) -> None:
        """Raise RecipeError or CalibrationError where a candidate cannot be built, before any work."""
        ...

    def metrics(self, budget: Budget) -> Mapping[str, Metric]:
        """Return what the drop can be measured by, by name; the first that the data allow is the usual one."""
        ...

    def reference(self) -> Any:
        """Return what runs the float model."""
        ...

    def build(self, step: Rung, folder: Path) -> None:
        """Write the bundle of a candidate to `folder`, which does not exist."""
        ...

    def open(self, folder: Path) -> Any:
        """Return what runs the bundle in `folder` on the search's engine."""
        ...

    def latencies_ms(self, runners: Sequence[Any], data: ImageSet) -> list[float]:
        """Return the median milliseconds of each, in turns: good enough to order candidates, and no benchmark."""
        ...

    def rank(self, smoothing: bool) -> Sequence[str]:
        """Return all layers, the one whose quantization alone does most damage first."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class Workshop:
    """Tries the steps of one search. `scratch` is an empty folder for bundles; those not inside are removed at once."""

    family: Candidates
    yardstick: Yardstick
    budget: Budget
    scratch: Path
    _folders: dict[str, Path] = field(default_factory=dict)

    def try_step(self, step: Rung) -> Tried:
        """Build, score and time one candidate."""
        started = time.perf_counter()
        folder = self.scratch / f"{len(list(self.scratch.iterdir()))}-{time.monotonic_ns()}"
        self.family.build(step, folder)
        runner = self.family.open(folder)
        drop = self.yardstick.drop(runner, "search")
        (latency_ms,) = self._latencies_ms([runner])
        manifest = Manifest.read(folder)
        refusal = self.budget.refusal(drop, manifest.total_bytes, latency_ms)
        if refusal is None:
            self._folders[step.name] = folder
        else:
            shutil.rmtree(folder)
        rule = self.budget.rule
        return Tried(
            name=step.name,
            recipe=manifest.recipes,
            float_layers=len({layer for graph in manifest.components.values() for layer in graph.kept_float}),
            drop=drop,
            latency_ms=latency_ms,
            bytes=manifest.total_bytes,
            inside=refusal is None,
            decision=refusal or f"inside: the {rule} {drop.counted(rule):.2f} is small enough",
            seconds=time.perf_counter() - started,
        )

    def fastest(self, tried: Sequence[Tried]) -> tuple[Tried, ...]:
        """Return those of `tried` that are inside, timed again in turns, the fastest first."""
        inside = [one for one in tried if one.inside]
        if len(inside) > 1:
            latencies = self._latencies_ms([self.family.open(self.folder(one.name)) for one in inside])
            inside = [replace(one, latency_ms=ms) for one, ms in zip(inside, latencies, strict=True)]
        return tuple(sorted(inside, key=lambda one: one.latency_ms))

    def folder(self, name: str) -> Path:
        """Return the bundle of a candidate that was inside the budget."""
        return self._folders[name]

    def _latencies_ms(self, runners: Sequence[Any]) -> list[float]:
        return self.family.latencies_ms(runners, self.yardstick.half("search"))
