"""A sweep from beginning to end; every finished point is kept at once, so a killed sweep goes on where it was."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vlmquant.bench.contenders import bundle_contender, float_contender
from vlmquant.bench.environment import Environment, this_environment
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.data.sets import CaptionedImages, ImageSet, LabelledImages
from vlmquant.engines import installed_engines
from vlmquant.errors import CalibrationError, DataError
from vlmquant.files import digest
from vlmquant.lab.sweep.latency import Latency, TimedTower, Timing, latencies
from vlmquant.lab.sweep.plan import FLOAT, Pair, SweepPlan
from vlmquant.lab.sweep.point import SCHEMA, Point, PointStore, Score
from vlmquant.lab.sweep.towers import COMPONENTS, Towers
from vlmquant.limits import available_cores
from vlmquant.metrics.fidelity import cosines, rank_agreement, top1_agreement
from vlmquant.metrics.intervals import bootstrap_mean
from vlmquant.models.spec import FloatArray
from vlmquant.progress import Track, silent
from vlmquant.quantize.recipes.recipe import check_patterns
from vlmquant.quantize.sites import multiplications
from vlmquant.tasks.catalogue import choose_tasks
from vlmquant.tasks.compare import Comparison, compare
from vlmquant.tasks.embeddings import unit_rows
from vlmquant.tasks.evaluate import run_tasks
from vlmquant.tasks.fidelity import GALLERY, evenly
from vlmquant.tasks.result import Outcomes, TaskResult
from vlmquant.tasks.task import Work
from vlmquant.tasks.templates import get_templates

FLOAT_IN_TORCH = "float, torch"


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a sweep found. The first point is float.

    `latencies` are by component and precision, measured in one race per component; "float" is the float graph on an
    engine, "float, torch" the checkpoint in torch. Empty where nothing was timed. `computed` points were computed in
    this call, the others were there.
    """

    model: str
    weights_sha256: str
    random_weights: bool
    data: Mapping[str, Any]
    calibration: Mapping[str, Any] | None
    protocols: Mapping[str, str]
    plan: SweepPlan
    points: tuple[Point, ...]
    latencies: Mapping[str, Mapping[str, Latency]]
    timing: Timing
    environment: Environment
    computed: int

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of all metrics."""
        return tuple(self.points[0].scores)

    def latency_ms(self, point: Point, component: str = "image") -> float | None:
        """Return the median latency of one image or text by the tower of a point; None where it was not measured."""
        name = point.image if component == "image" else point.text
        found = self.latencies.get(component, {}).get(name)
        return None if found is None or point.why_simulated else found.median_ms

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = asdict(self)
        rows = [
            {
                **asdict(point),
                "recipe": point.recipe,
                "place": point.place,
                **{f"{component}_latency_ms": self.latency_ms(point, component) for component in COMPONENTS},
            }
            for point in self.points
        ]
        return {"schema": SCHEMA, **values, "points": rows}


def sweep(
    model: ClipModel,
    data: ImageSet,
    calibration: CalibrationSet | None,
    plan: SweepPlan,
    folder: Path,
    *,
    tasks: Sequence[str] | None = None,
    templates: str = "openai-7",
    timing: Timing | None = None,
    track: Track = silent,
) -> Sweep:
    """Score every pair of `plan` on `data`, time what runs on an engine, and keep everything in `folder`.

    Each tower is encoded once per precision; a pair costs only the product of its embeddings. A point found in
    `folder` under the same weights, recipes, calibration and data is taken from there. `tasks` defaults to zero-shot
    with labels and retrieval with captions; `timing` with 0 rounds times nothing. Raises CalibrationError,
    RecipeError, DataError and EngineError before anything is computed where they can be known.
    """
    timing = Timing(threads=available_cores()) if timing is None else timing
    chosen = _tasks(data, tasks)
    precisions = plan.precisions()
    for precision in precisions.values():
        check_patterns(precision.recipe, [*multiplications(model.image_tower), *multiplications(model.text_tower)])
        if precision.recipe.needs_calibration and calibration is None:
            raise CalibrationError(
                f"recipe {precision.recipe.name!r} is measured on inputs; pass a calibration set (--calibrate)"
            )
    towers = Towers(
        model=model,
        precisions=precisions,
        calibration=calibration,
        data=data,
        templates=get_templates(templates),
        folder=folder,
        threads=timing.threads,
        track=track,
    )
    store, pairs, points, computed = PointStore(folder / "points"), plan.pairs(), [], 0
    reference = _Reference(towers, chosen)
    for pair in track(pairs, "Sweeping", len(pairs)):
        key = _key(towers, pair, chosen, templates)
        point = store.get(key)
        if point is None:
            point = _compute(towers, pair, reference, key)
            store.put(point)
            computed += 1
        points.append(point)
    return Sweep(
        model=model.name,
        weights_sha256=model.weights_sha256,
        random_weights=model.random_weights,
        data={"name": data.name, "digest": data.digest, "images": len(data), "problems": len(data.problems)},
        calibration=None if calibration is None else calibration.to_dict(),
        protocols={task: str(result.protocol) for task, result in reference.results.items()},
        plan=plan,
        points=tuple(points),
        latencies=_latencies(towers, points, timing) if timing.rounds and points[0].bytes_on_disk else {},
        timing=timing,
        environment=this_environment(),
        computed=computed,
    )


def _tasks(data: ImageSet, wanted: Sequence[str] | None) -> tuple[str, ...]:
    if wanted is None:
        labelled, captioned = isinstance(data, LabelledImages), isinstance(data, CaptionedImages)
        wanted = ["zero-shot"] * labelled + ["retrieval"] * captioned
    if not wanted:
        raise DataError(f"{data.name} has neither labels nor captions; a sweep scores zero-shot or retrieval")
    return choose_tasks("dual-encoder", data, wanted, has_reference=False)[0]


class _Reference:
    """The float model's results, made when they are first needed: a finished sweep encodes nothing."""

    def __init__(self, towers: Towers, tasks: tuple[str, ...]) -> None:
        self.towers, self.tasks = towers, tasks
        self._results: dict[str, TaskResult] = {}

    @property
    def results(self) -> dict[str, TaskResult]:
        if not self._results:
            self._results = _results(self.towers, Pair(FLOAT, FLOAT), self.tasks)
        return self._results


@dataclass(frozen=True, kw_only=True)
class _PairWork(Work):
    """The work of an encoder whose towers have different precisions: each embeds what the other does not."""

    towers: Towers
    pair: Pair

    @cached_property
    def features(self) -> FloatArray:
        """The features of the image tower's precision."""
        return self.towers.features(self.pair.image)

    @cached_property
    def texts(self) -> FloatArray:
        """The unit rows of the text tower's precision."""
        return self.towers.texts(self.pair.text)


def _results(towers: Towers, pair: Pair, tasks: tuple[str, ...]) -> dict[str, TaskResult]:
    work = _PairWork(
        opened=towers.opened(pair.image),
        data=towers.data,
        templates=towers.templates,
        store=towers.store,
        track=towers.track,
        towers=towers,
        pair=pair,
    )
    return run_tasks(tasks, work)


def _key(towers: Towers, pair: Pair, tasks: tuple[str, ...], templates: str) -> str:
    identities = [towers.opened(name).identity for name in (pair.image, pair.text)]
    asked = [list(tasks), get_templates(templates), towers.sized(pair)]
    return digest(SCHEMA, identities, towers.data.digest, asked)


def _compute(towers: Towers, pair: Pair, reference: _Reference, key: str) -> Point:
    started = time.monotonic()
    results = _results(towers, pair, reference.tasks)
    scores = {
        found.metric: _score(task, results[task].outcomes[found.metric], found)
        for task in reference.tasks
        for found in compare(results[task], reference.results[task])
    }
    return Point(
        key=key,
        image=pair.image,
        text=pair.text,
        bits={"image": towers.bits(pair.image), "text": towers.bits(pair.text)},
        runs_on={"image": towers.runs_on(pair.image), "text": towers.runs_on(pair.text)},
        why_simulated=towers.why_simulated(pair),
        bytes_on_disk=towers.bytes_on_disk(pair),
        scores=scores,
        fidelity=_fidelity(towers, pair),
        seconds=time.monotonic() - started,
    )


def _score(task: str, outcomes: Outcomes, found: Comparison) -> Score:
    _, clusters = np.unique(np.asarray(outcomes.clusters), return_inverse=True)
    return Score(
        task=task,
        score=bootstrap_mean(outcomes.values, clusters.astype(np.int64)),
        difference=found.difference,
        p_value=found.p_value,
        losses=len(found.flips.losses),
        gains=len(found.flips.gains),
        agreement=found.agreement,
        samples=found.samples,
    )


def _fidelity(towers: Towers, pair: Pair) -> dict[str, float]:
    data = towers.data
    images, expected_images = (unit_rows(towers.features(name), data) for name in (pair.image, FLOAT))
    texts, expected_texts = towers.texts(pair.text), towers.texts(FLOAT)
    gallery = evenly(len(texts), GALLERY)
    found = {
        "image_cosine": cosines(images, expected_images),
        "text_cosine": cosines(texts, expected_texts),
        "top1_agreement": top1_agreement(expected_images @ expected_texts[gallery].T, images @ texts[gallery].T),
    }
    if len(gallery) > 1:
        found["rank_agreement"] = rank_agreement(images, expected_images, texts[gallery], expected_texts[gallery])
    return {name: float(values.mean()) for name, values in found.items()}


def _latencies(towers: Towers, points: Sequence[Point], timing: Timing) -> dict[str, dict[str, Latency]]:
    deployed = [point for point in points if not point.why_simulated]
    engine = installed_engines()[0]
    found = {}
    for component in COMPONENTS:
        names = dict.fromkeys(point.image if component == "image" else point.text for point in deployed)
        contenders = {FLOAT_IN_TORCH: TimedTower(runner="torch-fp32", path=towers.model.folder)}
        for name in names:
            runner = float_contender(engine, "f32") if name == FLOAT else bundle_contender(towers.runs_on(name))
            contenders[name] = TimedTower(runner=runner, path=towers.graph(name, component))
        folder = towers.folder / "latencies"
        found[component] = latencies(contenders, towers.model.folder, component, timing, folder, towers.track)
    return found
