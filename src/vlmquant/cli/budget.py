"""`vlmquant budget`: the fastest or the smallest form of a recipe, within what may be lost."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.cli import show
from vlmquant.cli.groups import USUAL_RECIPE, CalibrationChoice, CheckpointChoice, made_of
from vlmquant.cli.manifest import print_bundle
from vlmquant.cli.options import Bundle, Json, Overwrite, Threads, words
from vlmquant.data.choice import DataChoice
from vlmquant.errors import CalibrationError, DataError, ExitCode, RecipeError
from vlmquant.files import check_writable
from vlmquant.quantize.recipes.recipe import COMPONENTS, check_components
from vlmquant.quantize.recipes.recipe_file import read_recipe
from vlmquant.text import megabytes

if TYPE_CHECKING:
    from vlmquant.budget.budget import Budget
    from vlmquant.budget.log import SearchLog
    from vlmquant.checkpoints.families import FloatModel
    from vlmquant.data.sets import ImageSet

EXIT_CODES = {"yes": ExitCode.OK, "undecided": ExitCode.UNDECIDED}
"""By what the held-out half says; that nothing was inside the budget is a BudgetError."""


@dataclass(frozen=True, kw_only=True)
class BundleOutput:
    """How a bundle is made: where to, and with how many threads; `max_tokens` is the longest text of a BLIP."""

    output: Bundle
    max_tokens: Annotated[int, typer.Option(help="The longest text that a BLIP may write, in tokens.")] = 40
    threads: Threads = None
    overwrite: Overwrite = False
    json_output: Json = False


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The budget as it was typed: with a drop a search, with a size alone the bits that reach it."""

    budget: "Budget | None"
    max_bytes: int | None


def limits(
    max_drop: Annotated[
        float | None, typer.Option(help="Lose at most so many points (hundredths of a CIDEr); needs --data.")
    ] = None,
    max_megabytes: Annotated[
        float | None,
        typer.Option(help="Store weights in 4 bits, the least sensitive first, until the bundle takes so many MB."),
    ] = None,
    max_latency_ms: Annotated[
        float | None,
        typer.Option(help="The longest that one image and one text may take together; of a BLIP, a picture's text."),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="top1, recall@1 or fidelity, by the data otherwise; of a BLIP cider, bleu-4 or vqa_accuracy, by its "
            "kind otherwise."
        ),
    ] = None,
    confident: Annotated[bool, typer.Option("--confident", help="The drop's upper 95 % limit must be inside.")] = False,
    templates: Annotated[str, typer.Option(help="Prompts of top1, as in `evaluate`.")] = "openai-7",
) -> Limits:
    """Return the budget. Raises DataError where nothing is bounded, or numbers that nothing is inside of."""
    from vlmquant.budget.budget import Budget
    from vlmquant.tasks.templates import get_templates

    get_templates(templates)
    if max_drop is None and max_megabytes is None:
        raise DataError("a budget needs a bound: give --max-drop POINTS with --data DIR, or --max-megabytes MB")
    if max_drop is None and max_latency_ms is not None:
        raise DataError("--max-latency-ms bounds a search; give --max-drop and --data too")
    if max_megabytes is not None and not 0 < max_megabytes < float("inf"):
        raise DataError(f"--max-megabytes must be above 0, got {max_megabytes:g}")
    max_bytes = None if max_megabytes is None else int(1e6 * max_megabytes)
    if max_drop is None:
        return Limits(budget=None, max_bytes=max_bytes)
    return Limits(budget=Budget(max_drop, metric, confident, max_bytes, max_latency_ms, templates), max_bytes=max_bytes)


def measured_on(
    data: Annotated[
        Path | None, typer.Option(help="Labelled, captioned or bare pictures to measure the drop on.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="The split of the data, never one that results are reported on; dev, where there are several."
        ),
    ] = None,
) -> DataChoice | None:
    """Make what says which data the drop is measured on."""
    return None if data is None else DataChoice(source=data, split=split, usual_split="dev")


@made_of(source=CheckpointChoice, bound=limits, data=measured_on, calibration=CalibrationChoice, run=BundleOutput)
def budget(
    source: CheckpointChoice, bound: Limits, data: DataChoice | None, calibration: CalibrationChoice, run: BundleOutput
) -> None:
    """Find the fastest form of a recipe inside a budget of accuracy, size and time, with a log of the search.

    Exit code: 0 a bundle inside the budget, 1 a crash, 2 a user's error, 4 the bundle was inside on the searched half
    of the data and the held-out half cannot tell, 6 there is none inside.
    """
    within(source, bound, data, calibration, run)


def within(
    source: CheckpointChoice, bound: Limits, data: DataChoice | None, calibration: CalibrationChoice, run: BundleOutput
) -> None:
    """Make the bundle that `budget` promises, and print it and its log."""
    from vlmquant.checkpoints import load_checkpoint

    if (bound.budget is None) != (data is None):
        raise DataError("--max-drop and --data go together: the drop is measured on the data")
    read_recipe(source.recipe)
    check_writable(run.output.parent)
    model = load_checkpoint(source.checkpoint, allow_pickle=source.allow_pickle)
    inputs = calibration.read(show.tracker(run.json_output))
    if bound.budget is None or data is None:
        assert bound.max_bytes is not None
        _to_size(source, model, inputs, bound.max_bytes, run)
        return
    log = _searched(source, model, inputs, _read(data, run), bound.budget, run)
    if run.json_output:
        show.as_json(log.to_dict())
    else:
        print_log(log)
        print_bundle(run.output)
    if code := EXIT_CODES[str(log.confirmed)]:
        raise typer.Exit(code)


def _read(data: DataChoice, run: BundleOutput) -> "ImageSet":
    """Read the data; an error names the split too, which is not the one that other commands read."""
    try:
        return data.read(show.tracker(run.json_output))
    except DataError as error:
        looked_for = data.split or data.usual_split
        raise DataError(f"{error} (looked for the split {looked_for!r}; --split names another)") from error


def _to_size(
    source: CheckpointChoice, model: "FloatModel", calibration: CalibrationSet | None, max_bytes: int, run: BundleOutput
) -> None:
    from vlmquant.budget.mixed import quantize_to_size
    from vlmquant.checkpoints.clip import ClipModel

    if not isinstance(model, ClipModel):
        raise RecipeError("--max-megabytes alone chooses the bits of a CLIP's weights; a BLIP needs --max-drop too")
    if source.recipe != USUAL_RECIPE:
        raise RecipeError(f"--max-megabytes chooses the bits of {USUAL_RECIPE} itself; leave --recipe out")
    if calibration is None:
        raise CalibrationError("--max-megabytes measures layers on inputs; pass a calibration set (--calibrate)")
    quantize_to_size(
        model,
        calibration,
        max_bytes,
        run.output,
        components=_towers(source),
        overwrite=run.overwrite,
        track=show.tracker(run.json_output),
    )
    print_bundle(run.output, json_output=run.json_output)


def _searched(
    source: CheckpointChoice,
    model: "FloatModel",
    calibration: CalibrationSet | None,
    data: "ImageSet",
    bound: "Budget",
    run: BundleOutput,
) -> "SearchLog":
    """Search; where nothing is inside, print the log before the error goes on."""
    from vlmquant.budget.log import NothingInsideError
    from vlmquant.budget.mixed import mixed_precision
    from vlmquant.budget.search import quantize_within_budget
    from vlmquant.checkpoints.clip import ClipModel
    from vlmquant.models.generate import GenerationOptions

    track = show.tracker(run.json_output)
    recipe = None if source.recipe == USUAL_RECIPE else read_recipe(source.recipe)
    components = None if source.components is None else words(source.components)
    if bound.max_bytes is not None and isinstance(model, ClipModel):
        if recipe is not None or calibration is None:
            raise RecipeError(
                f"--max-megabytes chooses the bits of {USUAL_RECIPE} by measuring layers on inputs; leave --recipe out "
                "and pass --calibrate"
            )
        recipe = mixed_precision(model, calibration, bound.max_bytes, components=_towers(source), track=track)
    try:
        return quantize_within_budget(
            model,
            calibration,
            data,
            bound,
            run.output,
            recipe=recipe,
            components=components,
            options=GenerationOptions(max_new_tokens=run.max_tokens),
            threads=run.threads,
            overwrite=run.overwrite,
            track=track,
        )
    except NothingInsideError as error:
        if run.json_output:
            show.as_json(error.log.to_dict())
        else:
            print_log(error.log)
        raise


def _towers(source: CheckpointChoice) -> tuple[str, ...]:
    return COMPONENTS if source.components is None else check_components(words(source.components))


def print_log(log: "SearchLog") -> None:
    """Print every candidate, the outcome, and what the held-out half says."""
    rows = [
        (
            one.name,
            f"{one.drop.points:+.2f}",
            f"{one.drop.low:+.2f} to {one.drop.high:+.2f}",
            f"{one.latency_ms:.1f}",
            megabytes(one.bytes),
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
