"""`quantize_within_budget`: the fastest recipe whose accuracy drop stays inside a budget, as a bundle.

Every candidate is built as a bundle and run on the engine, so the drop is that of what will be deployed. It is chosen
on one half of the data and checked on the other, which the search never sees.
"""

import json
import shutil
import time
from pathlib import Path

from vlmquant.budget.budget import Budget
from vlmquant.budget.by_component import ComponentCandidates
from vlmquant.budget.by_layer import LayerCandidates
from vlmquant.budget.ladder import climb
from vlmquant.budget.log import SEARCH, NothingInsideError, SearchLog, confirmation
from vlmquant.budget.trial import Candidates, Workshop
from vlmquant.budget.yardstick import Yardstick
from vlmquant.build.build import new_bundle
from vlmquant.bundle.manifest import add_file
from vlmquant.checkpoints.blip import BlipModel
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.checkpoints.families import FloatModel
from vlmquant.data.sets import ImageSet
from vlmquant.errors import RecipeError
from vlmquant.models.generate import GenerationOptions
from vlmquant.progress import Track, silent
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.quantize.recipes.recipe import COMPONENTS, Recipe, check_components


def quantize_within_budget(
    model: FloatModel,
    calibration: CalibrationSet | None,
    data: ImageSet,
    budget: Budget,
    output: str | Path,
    *,
    recipe: Recipe | None = None,
    components: tuple[str, ...] | None = None,
    options: GenerationOptions | None = None,
    engine: str = "auto",
    threads: int | None = None,
    overwrite: bool = False,
    track: Track = silent,
) -> SearchLog:
    """Write to `output` the bundle of the fastest candidate inside `budget`, with `search.json`, and return the log.

    Of a CLIP, candidates are forms of `recipe` (static-int8) on `components` (both) and, last, presets with float
    arithmetic. Of a BLIP, they are mixes of presets over its components; `options` are those of its decoding. `data`
    should be a development set and not the one that results are reported on: half of it (up to 1,000 pictures)
    chooses, the other half checks.

    Raises what `search` raises, and RecipeError where a BLIP is given a recipe or components.
    """
    family: Candidates
    if isinstance(model, BlipModel):
        if recipe is not None or components is not None:
            raise RecipeError(
                "the search chooses the recipe of every component of a BLIP; leave recipe and components out"
            )
        family = ComponentCandidates(
            model=model,
            calibration=calibration,
            options=options or GenerationOptions(),
            engine=engine,
            threads=threads,
            track=track,
        )
    elif isinstance(model, ClipModel):
        family = LayerCandidates(
            model=model,
            calibration=calibration,
            base=get_recipe("static-int8") if recipe is None else recipe,
            components=check_components(COMPONENTS if components is None else components),
            engine=engine,
            threads=threads,
            track=track,
        )
    else:
        raise RecipeError(
            f"{model.name!r} is a {model.head}, which a search cannot choose a recipe for; quantize it with one"
        )
    return search(family, data, budget, output, overwrite=overwrite, track=track)


def search(
    family: Candidates,
    data: ImageSet,
    budget: Budget,
    output: str | Path,
    *,
    overwrite: bool = False,
    track: Track = silent,
) -> SearchLog:
    """Climb the ladder of `family` and write the fastest candidate inside `budget`, with the log in it, to `output`.

    "Fastest" is the least median latency among those inside, measured in this process, which is good enough to order
    them and no benchmark.

    Raises NothingInsideError (a BudgetError, with the log) where no candidate is inside or the held-out half
    contradicts the one chosen, and writes nothing then; DataError where the data do not fit the metric; what `check`
    and `build` of the family raise.
    """
    family.check()
    started = time.perf_counter()
    yardstick = Yardstick(family.reference(), data, budget.metric, family.metrics(budget), track)
    with new_bundle(output, overwrite) as final:
        scratch = final / "candidates"
        scratch.mkdir()
        workshop = Workshop(family=family, yardstick=yardstick, budget=budget, scratch=scratch)
        tried = climb(family.ladder, workshop.try_step, family.rank, budget.rule, max_latency_ms=budget.max_latency_ms)
        finalists = workshop.fastest(tried)
        best = finalists[0] if finalists else None
        folder = None if best is None else workshop.folder(best.name)
        held_out = None if folder is None else yardstick.drop(family.open(folder), "held-out")
        log = SearchLog(
            model=family.name,
            data=data.name,
            data_digest=data.digest,
            metric=yardstick.metric,
            max_drop_points=budget.max_drop_points,
            rule=budget.rule,
            engine=family.engine,
            tried=tuple(next((one for one in finalists if one.name == first.name), first) for first in tried),
            chosen=None if best is None else best.name,
            held_out=held_out,
            confirmed=None if held_out is None else confirmation(held_out, budget.max_drop_points, budget.rule),
            seconds=time.perf_counter() - started,
        )
        _deliver(log, folder, final)
    return log


def _deliver(log: SearchLog, folder: Path | None, final: Path) -> None:
    """Move the chosen candidate's bundle from `folder`, inside `final`, to `final` itself, with the log in it.

    Raises NothingInsideError where there is none or the held-out half contradicts it.
    """
    if folder is None or log.chosen is None or log.confirmed == "no":
        raise NothingInsideError(_why(log), log)
    add_file(folder, SEARCH, json.dumps(log.to_dict(), indent=1, sort_keys=True) + "\n")
    for path in folder.iterdir():
        path.replace(final / path.name)
    for rest in [path for path in final.iterdir() if path.is_dir()]:
        shutil.rmtree(rest)


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
