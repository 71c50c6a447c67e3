"""`vlmquant bench`."""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from vlmquant.bench import BenchResult, BenchTargets, bench
from vlmquant.bench.run import check_schedule
from vlmquant.bench.table import absences, circumstances, rich_tables
from vlmquant.bench.targets import named_targets, random_targets
from vlmquant.cli import show
from vlmquant.cli.groups import USUAL_RECIPE
from vlmquant.cli.options import AllowPickle, Json, Threads
from vlmquant.errors import ModelError
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.text import megabytes


def bench_command(
    target: Annotated[str | None, typer.Argument(help="A bundle, or a float checkpoint folder or hub id.")] = None,
    against: Annotated[str | None, typer.Option(help="The float checkpoint to compare a bundle with.")] = None,
    random_weights: Annotated[
        str | None, typer.Option(help="Bench this architecture with random weights, such as ViT-B-32; offline.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="With --random-weights: the preset to quantize by; static-int8 when left out.")
    ] = None,
    component: Annotated[
        str | None, typer.Option(help="image (the usual one) or text; of a BLIP all of it, from picture to text.")
    ] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Batch sizes; may be repeated. 1 and 8 by default.")] = None,
    rounds: Annotated[int, typer.Option(help="How often the turn goes round.")] = 10,
    iterations: Annotated[int, typer.Option(help="Batches per turn.")] = 5,
    threads: Threads = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for bench.json and bench.png.")] = None,
    allow_pickle: AllowPickle = False,
    json_output: Json = False,
) -> None:
    """Time a bundle beside its float original, each contender in its own process, rounds alternated."""
    track = show.tracker(json_output)
    batches = tuple(batch or (1, 8))
    check_schedule(batches, rounds, iterations)
    _check_named(target, against, random_weights, recipe)
    if output is not None:
        from vlmquant.output import OutputFolder
        from vlmquant.report.bench_chart import FILES, VERB, write_bench

        OutputFolder(output, VERB).check(FILES)
    with ExitStack() as stack:
        targets: BenchTargets
        if random_weights is not None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vlmquant-random-")))
            targets = random_targets(random_weights, recipe or USUAL_RECIPE, component, folder, track=track)
        else:
            targets = named_targets(str(target), against, component, allow_pickle=allow_pickle)
        result = bench(targets, batches=batches, rounds=rounds, iterations=iterations, threads=threads, track=track)
    if output is not None:
        write_bench(result, output)
    if json_output:
        show.as_json(result.to_dict())
        return
    print_result(result)


def _check_named(target: str | None, against: str | None, random_weights: str | None, recipe: str | None) -> None:
    """Raise ModelError where nothing is named to bench, or two things are."""
    if random_weights is None:
        if target is None:
            raise ModelError("nothing to bench; name a bundle or a checkpoint, or pass --random-weights ViT-B-32")
        if recipe is not None:
            raise ModelError(f"--recipe {recipe} goes with --random-weights; {target} is benched as it is")
        return
    for given in (target, against):
        if given is not None:
            raise ModelError(
                f"--random-weights {random_weights} makes its own checkpoint and bundle; leave {given} out"
            )
    get_recipe(recipe or USUAL_RECIPE)


def print_result(result: BenchResult) -> None:
    """Print one table per batch size, what did not run and why, and the circumstances."""
    for drawn in rich_tables(result):
        show.console().print(drawn)
    for sentence in (*absences(result), *result.notes, circumstances(result)):
        show.line(sentence)
    if result.bundle_bytes is not None:
        show.line(f"whole bundle: {megabytes(result.bundle_bytes)} on disk")
