"""The part of `vlmquant quantize` that searches: what `--max-drop` does, and how its log is printed."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vlmquant.bundle.manifest import Manifest
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.cli import show
from vlmquant.errors import BudgetError, CalibrationError, DataError, RecipeError
from vlmquant.progress import Track
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.quantize.recipes.recipe import Recipe

if TYPE_CHECKING:
    from vlmquant.budget.log import SearchLog
    from vlmquant.budget.search import Budget
    from vlmquant.checkpoints.blip import BlipModel
    from vlmquant.checkpoints.clip import ClipModel
    from vlmquant.data.sets import ImageSet

EXIT_CODES = {"yes": 0, "undecided": 4}
"""By what the held-out half says; 1 is that nothing was inside the budget, 2 a user's error."""


def read_data(folder: Path, split: str, json_output: bool) -> "ImageSet":
    """Read the data to search on; an error names the split too."""
    from vlmquant.data.detect import read

    try:
        return read(folder, split=split, track=show.tracker(json_output))
    except DataError as error:
        raise DataError(f"{error} (looked for the split {split!r}; --split names another)") from error


def recipe_of_size(
    model: "ClipModel",
    recipe: Recipe,
    calibration: CalibrationSet | None,
    max_bytes: int,
    components: tuple[str, ...],
    track: Track,
) -> Recipe:
    """Return `recipe`, which must be static-int8, with as many weights in 4 bits as `max_bytes` ask for."""
    from vlmquant.budget.mixed import mixed_precision

    if recipe != get_recipe("static-int8"):
        raise RecipeError(f"--max-megabytes chooses the bits of static-int8 itself; leave --recipe {recipe.name!r} out")
    if calibration is None:
        raise CalibrationError("--max-megabytes measures layers on inputs; pass a calibration set (--calibrate)")
    return mixed_precision(model, calibration, max_bytes, components=components, track=track)


def check_size(bundle: Path, max_bytes: int | None) -> None:
    """Raise BudgetError where the bundle came out larger than it was planned to be; it stays where it is."""
    total = Manifest.read(bundle).total_bytes
    if max_bytes is not None and total > max_bytes:
        raise BudgetError(f"{bundle} is sound but takes {total / 1e6:.1f} MB, more than {max_bytes / 1e6:.1f}")


def search_within(
    budget: "Budget",
    model: "ClipModel",
    calibration: CalibrationSet | None,
    data: "ImageSet",
    output: Path,
    *,
    recipe: Recipe,
    components: tuple[str, ...],
    threads: int | None,
    overwrite: bool,
    json_output: bool,
) -> "SearchLog":
    """Search over a CLIP, and print the log."""
    from vlmquant.budget.search import quantize_within_budget

    return _printed(
        lambda: quantize_within_budget(
            model,
            calibration,
            data,
            budget,
            output,
            recipe=recipe,
            components=components,
            threads=threads,
            overwrite=overwrite,
            track=show.tracker(json_output),
        ),
        json_output,
    )


def search_blip_within(
    budget: "Budget",
    model: "BlipModel",
    calibration: CalibrationSet | None,
    data: "ImageSet",
    output: Path,
    *,
    max_tokens: int,
    threads: int | None,
    overwrite: bool,
    json_output: bool,
) -> "SearchLog":
    """Search over a BLIP that writes at most `max_tokens` tokens, and print the log."""
    from vlmquant.budget.blip import quantize_blip_within_budget
    from vlmquant.models.generate import GenerationOptions

    return _printed(
        lambda: quantize_blip_within_budget(
            model,
            calibration,
            data,
            output,
            max_drop_points=budget.max_drop_points,
            metric=budget.metric,
            confident=budget.confident,
            options=GenerationOptions(max_new_tokens=max_tokens),
            threads=threads,
            overwrite=overwrite,
            track=show.tracker(json_output),
        ),
        json_output,
    )


def _printed(search: Callable[[], "SearchLog"], json_output: bool) -> "SearchLog":
    """Run `search` and print its log as a table; where nothing is inside, print it before the error goes on."""
    from vlmquant.budget.log import NothingInsideError

    try:
        log = search()
    except NothingInsideError as error:
        if json_output:
            show.as_json(error.log.to_dict())
        else:
            print_log(error.log)
        raise
    if not json_output:
        print_log(log)
    return log


def print_log(log: "SearchLog") -> None:
    """Print every candidate, the outcome, and what the held-out half says."""
    rows = [
        (
            one.name,
            f"{one.drop.points:+.2f}",
            f"{one.drop.low:+.2f} to {one.drop.high:+.2f}",
            f"{one.latency_ms:.1f}",
            show.megabytes(one.bytes),
            "chosen" if one.name == log.chosen else one.decision.partition(":")[0],
            f"{one.seconds:.0f}",
        )
        for one in log.tried
    ]
    n = log.tried[0].drop.samples
    title = f"{log.model}: at most {log.max_drop_points:g} points of {log.metric} lost, {log.rule}; n = {n}"
    columns = ("candidate", "drop", "95 % interval", "ms one at a time", "size", "decision", "seconds")
    show.table(title, columns, rows)
    show.line(f"searched on one half of {log.data} in {log.seconds:.0f} s; latencies order candidates, nothing more")
    if log.held_out is not None:
        held = log.held_out
        show.line(
            f"on the held-out half {log.chosen!r} loses {held.points:+.2f} points "
            f"({held.low:+.2f} to {held.high:+.2f}, n = {held.samples}); confirmed: {log.confirmed}"
        )
