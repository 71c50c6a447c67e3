"""`quantize_blip_within_budget`: the fastest mix of recipes for a BLIP whose texts stay good enough, as a bundle.

As in the search over a CLIP, every candidate is built as a bundle and run on the engine, chosen on one half of the
data and checked on the other. The candidates are mixes of whole components instead of layers left in float.
"""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from vlmquant.budget.log import Drop, SearchLog, Tried, confirmation
from vlmquant.budget.search import Budget, deliver
from vlmquant.budget.yardstick import Half, halves, points_lost
from vlmquant.build.blip_build import check_recipes, quantize_blip
from vlmquant.build.build import check_free
from vlmquant.bundle.blip_runtime import open_blip
from vlmquant.bundle.manifest import Manifest
from vlmquant.checkpoints.blip import BlipModel
from vlmquant.checkpoints.blip_inputs import components_of
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.data.sets import CaptionedImages, ImageSet, QuestionedImages
from vlmquant.errors import DataError, unknown
from vlmquant.models.blip_runner import BlipRunner
from vlmquant.models.generate import GenerationOptions
from vlmquant.progress import Track, silent
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.tasks.answering import METRIC as VQA_ACCURACY
from vlmquant.tasks.answering import score_answers, write_answers
from vlmquant.tasks.captioning import score_captions, write_captions
from vlmquant.tasks.evaluate_blip import score_changes
from vlmquant.tasks.result import TaskResult

CANDIDATES: Mapping[str, tuple[str, str]] = {
    "static-int8": ("static-int8", "static-int8"),
    "static-int8 vision, dynamic-int8 text": ("static-int8", "dynamic-int8"),
    "static-int8 vision, int8-weights text": ("static-int8", "int8-weights"),
    "dynamic-int8": ("dynamic-int8", "dynamic-int8"),
    "int8-weights": ("int8-weights", "int8-weights"),
    "fp16": ("fp16", "fp16"),
}
"""Recipe of the vision component, and of every one that reads or writes text; expected fastest first, safest last."""
WARM_UP_RUNS, TIMED_RUNS = 1, 5


@dataclass(frozen=True)
class _Metric:
    """The `score` among a task's results, the `kind` of BLIP it is of, and what the data need for it."""

    score: str
    kind: str
    data: type[ImageSet]
    needs: str


METRICS: Mapping[str, _Metric] = {
    "cider": _Metric("CIDEr", "captioning", CaptionedImages, "captions"),
    "bleu-4": _Metric("BLEU-4", "captioning", CaptionedImages, "captions"),
    VQA_ACCURACY: _Metric(VQA_ACCURACY, "vqa", QuestionedImages, "questions"),
}
"""What `--metric` can name for a BLIP. A point is a hundredth of the score: a CIDEr from 1.10 to 1.09 loses one."""


def quantize_blip_within_budget(
    model: BlipModel,
    calibration: CalibrationSet | None,
    data: ImageSet,
    output: str | Path,
    *,
    max_drop_points: float,
    metric: str | None = None,
    confident: bool = False,
    candidates: Mapping[str, tuple[str, str]] = CANDIDATES,
    options: GenerationOptions | None = None,
    engine: str = "auto",
    threads: int | None = None,
    overwrite: bool = False,
    track: Track = silent,
) -> SearchLog:
    """Write to `output` the bundle of the first candidate inside the budget, with `search.json`; return the log.

    `metric` is one of `METRICS` (by the model's kind when None) and may lose `max_drop_points` hundredths: the point
    estimate, or with `confident` the upper limit of its 95 % interval. `candidates` are tried in their order, which
    should be from the fastest to the safest; measured latencies are in the log. `options` are those of decoding, the
    same for the float model. `data` should be a development set: half of its pictures (at most 1,000) chooses, the
    other half checks.

    Raises NothingInsideError (a BudgetError, with the log) where no candidate is inside or the held-out half
    contradicts the one chosen, and writes nothing then; DataError where the data or the model do not fit the metric,
    and what `quantize_blip` raises.
    """
    output = Path(output)
    budget = Budget(max_drop_points, _checked_metric(model, data, metric), confident)
    mixes = {name: _by_component(model, *mix) for name, mix in candidates.items()}
    for recipes in mixes.values():
        check_recipes(model, recipes, calibration)
    check_free(output, overwrite)
    started = time.perf_counter()
    options = options or GenerationOptions()
    yardstick = _Yardstick(model.runner(options), data, str(budget.metric), track)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.search-", dir=output.parent) as scratch:
        folder = Path(scratch) / "candidate"

        def opened() -> BlipRunner:
            return open_blip(folder, engine=engine, threads=threads, options=options)

        tried: list[Tried] = []
        for name, recipes in mixes.items():
            begun = time.perf_counter()
            quantize_blip(model, recipes, calibration, folder, overwrite=True, track=track)
            tried.append(_tried(name, opened(), Manifest.read(folder), yardstick, budget, begun))
            if tried[-1].inside:
                break
        chosen = tried[-1].name if tried[-1].inside else None
        held_out = None if chosen is None else yardstick.drop(opened(), "held-out")
        log = SearchLog(
            model=model.name,
            data=data.name,
            data_digest=data.digest,
            metric=str(budget.metric),
            max_drop_points=budget.max_drop_points,
            rule=budget.rule,
            engine=engine,
            tried=tuple(tried),
            chosen=chosen,
            held_out=held_out,
            confirmed=None if held_out is None else confirmation(held_out, budget.max_drop_points, budget.rule),
            seconds=time.perf_counter() - started,
        )
        deliver(log, folder, output)
    return log


def _checked_metric(model: BlipModel, data: ImageSet, metric: str | None) -> str:
    own = [name for name, known in METRICS.items() if known.kind == model.kind]
    if not own:
        raise DataError(
            f"{model.name!r} is a BLIP for {model.kind}; a search needs one that writes captions or answers questions"
        )
    name = own[0] if metric is None else metric
    if name not in METRICS:
        raise unknown(DataError, "metric of a BLIP", name, METRICS)
    if not isinstance(data, METRICS[name].data):
        raise DataError(f"metric {name} is not possible on {data.name}: it has no {METRICS[name].needs}")
    if name not in own:
        raise DataError(
            f"metric {name} is of a BLIP for {METRICS[name].kind}, and {model.name!r} is one for {model.kind}; "
            f"use {' or '.join(own)}"
        )
    return name


def _by_component(model: BlipModel, vision: str, text: str) -> dict[str, Recipe]:
    return {name: get_recipe(vision if name == "vision" else text) for name in components_of(model)}


def _tried(
    name: str, runner: BlipRunner, manifest: Manifest, yardstick: "_Yardstick", budget: Budget, begun: float
) -> Tried:
    """Score and time the candidate that `runner` runs; work on it `begun` at that `perf_counter`."""
    drop = yardstick.drop(runner, "search")
    counted, limit = drop.counted(budget.rule), budget.max_drop_points
    inside = counted <= limit
    return Tried(
        name=name,
        recipe=manifest.recipe,
        float_layers=len({layer for graph in manifest.components.values() for layer in graph.kept_float}),
        drop=drop,
        latency_ms=yardstick.latency_ms(runner),
        bytes=manifest.total_bytes,
        inside=inside,
        decision=f"inside: the {budget.rule} {counted:.2f} is small enough"
        if inside
        else f"beyond: the {budget.rule} {counted:.2f} is more than {limit:g}",
        seconds=time.perf_counter() - begun,
    )


class _Yardstick:
    """Scores runners on either half of `data` and compares them with the float `reference`, scored once per half."""

    def __init__(self, reference: BlipRunner, data: ImageSet, metric: str, track: Track) -> None:
        self._reference, self._metric, self._track = reference, METRICS[metric].score, track
        self._halves = halves(data)
        self._expected: dict[Half, TaskResult] = {}

    def drop(self, runner: BlipRunner, half: Half) -> Drop:
        """Return by how many hundredths `runner` scores lower than the float model."""
        if half not in self._expected:
            self._expected[half] = self._score(self._reference, half)
        changes = score_changes(self._score(runner, half), self._expected[half], None)
        (change,) = [change for change in changes if change.metric == self._metric]
        return points_lost(change.metric, change.difference, -100.0, change.samples)

    def latency_ms(self, runner: BlipRunner) -> float:
        """Return the median milliseconds from one decoded picture (and question) to its text, one at a time.

        In this process: good enough to compare candidates, and no benchmark.
        """
        data, taken = self._halves["search"], []
        for turn in range(WARM_UP_RUNS + TIMED_RUNS):
            if isinstance(data, QuestionedImages):
                question = data.questions[turn % len(data.questions)]
                image = data.images[question.image_index]
                started = time.perf_counter()
                runner.answer([image], [question.text])
            else:
                image = data.images[turn % len(data)]
                started = time.perf_counter()
                runner.caption([image])
            taken.append(1000 * (time.perf_counter() - started))
        return median(taken[WARM_UP_RUNS:])

    def _score(self, runner: BlipRunner, half: Half) -> TaskResult:
        data = self._halves[half]
        if isinstance(data, QuestionedImages):
            return score_answers(runner.name, write_answers(runner, data, track=self._track), data)
        assert isinstance(data, CaptionedImages)
        captions = write_captions(runner, data.images, data.ids, track=self._track)
        return score_captions(runner.name, captions, data.captions, ids=data.ids, dataset=data.digest)
