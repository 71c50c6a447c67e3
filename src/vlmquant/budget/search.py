"""`quantize_within_budget`: the fastest recipe whose accuracy drop stays inside a budget, as a bundle.

Every candidate is built as a bundle and run on the engine, so the drop is that of what will be deployed. It is chosen
on one half of the labelled data and checked on the other, which the search never sees.
"""

import json
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from vlmquant.budget.ladder import climb
from vlmquant.budget.log import SEARCH, NothingInsideError, Rule, SearchLog, confirmation
from vlmquant.budget.trial import Workshop
from vlmquant.budget.yardstick import Texts, Yardstick
from vlmquant.build.build import check_exportable, check_free
from vlmquant.bundle.manifest import add_file
from vlmquant.bundle.runtime import open_bundle
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.data.sets import ImageSet
from vlmquant.errors import DataError
from vlmquant.models.prompts import BUILTIN_PROMPTS
from vlmquant.progress import Track, silent
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.quantize.recipes.recipe import COMPONENTS, Recipe, check_components
from vlmquant.tasks.templates import get_templates


@dataclass(frozen=True)
class Budget:
    """At most `max_drop_points` (percentage points) of `metric` lost; None takes what the data allow.

    The point estimate of the drop must be inside, or with `confident` the upper limit of its 95 % interval. A bundle
    may take at most `max_bytes`, and `max_latency_ms` for one image plus one text on the search's engine, when given.
    """

    max_drop_points: float
    metric: str | None = None
    confident: bool = False
    max_bytes: int | None = None
    max_latency_ms: float | None = None
    templates: str = "openai-7"

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop_points <= 100:
            raise DataError(
                f"the largest drop must be between 0 and 100 percentage points, got {self.max_drop_points:g}"
            )
        if self.max_latency_ms is not None and not self.max_latency_ms > 0:
            raise DataError(f"the largest latency must be above 0 ms, got {self.max_latency_ms:g}")

    @property
    def rule(self) -> Rule:
        """Which figure must be inside."""
        return "upper limit" if self.confident else "point estimate"


def quantize_within_budget(
    model: ClipModel,
    calibration: CalibrationSet | None,
    data: ImageSet,
    budget: Budget,
    output: str | Path,
    *,
    recipe: Recipe | None = None,
    components: tuple[str, ...] = COMPONENTS,
    engine: str = "auto",
    threads: int | None = None,
    overwrite: bool = False,
    track: Track = silent,
) -> SearchLog:
    """Write to `output` the bundle of the fastest candidate inside `budget`, with `search.json`, and return the log.

    Candidates are forms of `recipe` (static-int8) and, last, presets with float arithmetic; see `climb`. `data` should
    be a development set and not the one that results are reported on: half of it (up to 1,000 pictures) chooses, the
    other half checks. "Fastest" is the least median latency among those inside, measured in this process, which is
    good enough to order them and no benchmark.

    Raises NothingInsideError (with the log) where no candidate is inside or the held-out half contradicts the one
    chosen, DataError where the data do not fit the metric, and what `quantize_model` raises.
    """
    base = replace(get_recipe("static-int8") if recipe is None else recipe, outliers=None)
    chosen = check_components(components)
    check_exportable(model, base, calibration, chosen)
    check_free(Path(output), overwrite)
    started = time.perf_counter()
    texts = Texts(
        templates=get_templates(budget.templates),
        plain=BUILTIN_PROMPTS if calibration is None else calibration.texts,
    )
    yardstick = Yardstick(model.encoder(), data, budget.metric, texts, track)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{Path(output).name}.search-", dir=Path(output).parent) as scratch:
        workshop = Workshop(
            model=model,
            calibration=calibration,
            base=base,
            components=chosen,
            yardstick=yardstick,
            max_drop_points=budget.max_drop_points,
            rule=budget.rule,
            max_bytes=budget.max_bytes,
            max_latency_ms=budget.max_latency_ms,
            open_encoder=lambda folder: open_bundle(folder, engine=engine, threads=threads),
            scratch=Path(scratch),
            track=track,
        )
        tried = climb(
            workshop.try_step, workshop.rank, base.name, chosen, budget.rule, max_latency_ms=budget.max_latency_ms
        )
        finalists = workshop.fastest(tried)
        best = finalists[0] if finalists else None
        encoder = None if best is None else workshop.open_encoder(workshop.folder(best.name))
        held_out = None if encoder is None else yardstick.drop(encoder, "held-out")
        log = SearchLog(
            model=model.name,
            data=data.name,
            data_digest=data.digest,
            metric=yardstick.metric,
            max_drop_points=budget.max_drop_points,
            rule=budget.rule,
            engine=engine,
            tried=tuple(next((one for one in finalists if one.name == first.name), first) for first in tried),
            chosen=None if best is None else best.name,
            held_out=held_out,
            confirmed=None if held_out is None else confirmation(held_out, budget.max_drop_points, budget.rule),
            seconds=time.perf_counter() - started,
        )
        deliver(log, None if best is None else workshop.folder(best.name), Path(output))
    return log


def deliver(log: SearchLog, folder: Path | None, output: Path) -> None:
    """Move the chosen candidate's bundle in `folder` to `output`, with the log in it.

    Raises NothingInsideError where there is none or the held-out half contradicts it.
    """
    if folder is None or log.chosen is None or log.confirmed == "no":
        raise NothingInsideError(_why(log), log)
    add_file(folder, SEARCH, json.dumps(log.to_dict(), indent=1, sort_keys=True) + "\n")
    if output.exists():
        shutil.rmtree(output)
    folder.replace(output)


def _why(log: SearchLog) -> str:
    limit = f"{log.max_drop_points:g} points of {log.metric}"
    if log.held_out is not None:
        return (
            f"{log.chosen!r} was inside {limit} on the searched half of {log.data} but loses {log.held_out.points:.2f} "
            f"({log.held_out.low:.2f} to {log.held_out.high:.2f}) on the held-out half; give more pictures, or "
            "--confident to ask for certainty while searching"
        )
    nearest = log.nearest()
    return (
        f"none of {len(log.tried)} candidates is inside {limit} ({log.rule}); the nearest is {nearest.name!r} "
        f"with {nearest.drop.points:.2f} ({nearest.drop.low:.2f} to {nearest.drop.high:.2f}, "
        f"n = {nearest.drop.samples}), {nearest.decision}; loosen that limit, or give more pictures"
    )
