"""`vlmquant sweep`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmquant.cli import show
from vlmquant.cli.groups import CalibrationChoice, made_of
from vlmquant.cli.options import AllowPickle, Json, Split, Threads, words
from vlmquant.cli.quantize import check_measures_nothing
from vlmquant.errors import DataError

if TYPE_CHECKING:
    from vlmquant.lab.sweep.latency import Timing
    from vlmquant.lab.sweep.plan import SweepPlan
    from vlmquant.lab.sweep.run import Sweep


def choose_plan(
    recipes: Annotated[
        str | None, typer.Option(help="Presets, comma-separated; `vlmquant recipes` lists them. A wide choice if none.")
    ] = None,
    components: Annotated[str, typer.Option(help="Where to put each recipe, comma-separated.")] = "image,text,both",
    bits: Annotated[
        str, typer.Option(help="Bit-widths of the vision-bits x text-bits map, comma-separated; '' for no map.")
    ] = "8,6,4,3,2",
) -> "SweepPlan":
    """Make what says which recipes are tried where."""
    from vlmquant.lab.sweep.plan import DEFAULT_RECIPES, SweepPlan

    return SweepPlan(
        recipes=DEFAULT_RECIPES if recipes is None else words(recipes),
        components=words(components),
        grid_bits=_numbers(bits),
    )


def choose_timing(
    rounds: Annotated[int, typer.Option(help="How often the turn of the timings goes round; 0 times nothing.")] = 8,
    iterations: Annotated[int, typer.Option(help="Images per turn.")] = 10,
    threads: Threads = None,
) -> "Timing":
    """Make what says how long and with how many threads the towers are timed."""
    from vlmquant.lab.sweep.latency import Timing
    from vlmquant.limits import available_cores

    return Timing(rounds=rounds, iterations=iterations, threads=available_cores() if threads is None else threads)


@made_of(calibration=CalibrationChoice, plan=choose_plan, timing=choose_timing)
def sweep(
    checkpoint: Annotated[str, typer.Argument(help="A Hugging Face folder or hub id of a CLIP.")],
    data: Annotated[Path, typer.Option(help="Folder of a data set with classes or captions to score on.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for all results; run again to go on.")],
    *,
    calibration: CalibrationChoice,
    plan: "SweepPlan",
    templates: Annotated[
        str, typer.Option(help="Prompts of zero-shot: none, one, openai-7, cifar-18 or openai-80.")
    ] = "openai-7",
    split: Split = None,
    timing: "Timing",
    allow_pickle: AllowPickle = False,
    json_output: Json = False,
) -> None:
    """Try recipes x bit-widths x towers: score, closeness, size and latency of each, and which are worth having."""
    from vlmquant.checkpoints import load_model
    from vlmquant.data.reader import read
    from vlmquant.lab.sweep.run import sweep as run
    from vlmquant.output import OutputFolder, there
    from vlmquant.report.sweep import CHARTS, FILES, VERB, to_dict, write_sweep
    from vlmquant.tasks.templates import get_templates

    get_templates(templates)
    if calibration.calibrate is None:
        check_measures_nothing(precision.recipe for precision in plan.precisions().values())
    read_from = [folder for folder in (data, calibration.calibrate) if folder is not None]
    OutputFolder(output, VERB).check([*FILES, *there(output, CHARTS)], read_from)
    track = show.tracker(json_output)
    inputs = calibration.read(track)
    model = load_model(checkpoint, allow_pickle=allow_pickle)
    found = run(
        model,
        read(data, split=split, track=track),
        inputs,
        plan,
        output,
        templates=templates,
        timing=timing,
        track=track,
    )
    (written,) = [write_sweep(output, found) for _ in track(["page"], "Drawing the page")]
    if json_output:
        show.as_json({"files": [str(path) for path in written], **to_dict(found)})
        return
    print_sweep(found, written)


def print_sweep(found: "Sweep", written: Sequence[Path]) -> None:
    """Print one row per point, what was not timed, and the files."""
    from vlmquant.report.sweep_tables import COLUMNS, headline_metrics, point_rows, title_of

    show.calibration_warnings(found.calibration)
    for metric in headline_metrics(found):
        show.table(title_of(found, metric), COLUMNS, point_rows(found, metric))
    show.line(
        f"{found.computed} of {len(found.points)} points computed now, {len(found.points) - found.computed} were there"
    )
    for path in written:
        show.line(f"{path} ({path.stat().st_size / 1024:.0f} KiB)")


def _numbers(text: str) -> tuple[int, ...]:
    listed = words(text)
    if bad := next((word for word in listed if not word.isdecimal()), None):
        raise DataError(f"--bits takes whole numbers such as 8,6,4, got {bad!r}")
    return tuple(int(word) for word in listed)
