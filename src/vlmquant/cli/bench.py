"""`vlmquant bench`."""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from vlmquant.bench import BenchResult, BenchTargets, bench
from vlmquant.bench.table import absences, circumstances, rich_tables
from vlmquant.bundle.manifest import MANIFEST
from vlmquant.cli import show
from vlmquant.cli.quantize import Json
from vlmquant.errors import ModelError
from vlmquant.files import write_whole
from vlmquant.progress import Track


def bench_command(
    target: Annotated[str | None, typer.Argument(help="A bundle, or a float checkpoint folder or hub id.")] = None,
    against: Annotated[str | None, typer.Option(help="The float checkpoint to hold a bundle against.")] = None,
    random_weights: Annotated[
        str | None, typer.Option(help="Bench this architecture with random weights, such as ViT-B-32; offline.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="The recipe for --random-weights.")] = "static-int8",
    component: Annotated[str, typer.Option(help="image or text.")] = "image",
    batch: Annotated[list[int] | None, typer.Option(help="Batch sizes; may be repeated. 1 and 8 by default.")] = None,
    rounds: Annotated[int, typer.Option(help="How often the turn goes round.")] = 10,
    iterations: Annotated[int, typer.Option(help="Batches per turn.")] = 5,
    threads: Annotated[int | None, typer.Option(help="CPU threads of each contender; all cores when left out.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for bench.json and bench.png.")] = None,
    json_output: Json = False,
) -> None:
    """Time a bundle beside its float original, each contender in its own process, rounds alternated."""
    track = show.tracker(json_output)
    with ExitStack() as stack:
        if random_weights is not None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vlmquant-random-")))
            targets = _random_targets(random_weights, recipe, component, folder, track)
        else:
            targets = _targets(target, against, component)
        result = bench(
            targets,
            batches=tuple(batch or (1, 8)),
            rounds=rounds,
            iterations=iterations,
            threads=threads,
            track=track,
        )
    if output is not None:
        write(result, output)
    if json_output:
        show.as_json(result.to_dict())
        return
    print_result(result)


def _targets(target: str | None, against: str | None, component: str) -> BenchTargets:
    if target is None:
        raise ModelError("nothing to bench; name a bundle or a checkpoint, or pass --random-weights ViT-B-32")
    from vlmquant.checkpoints.hub import resolve

    if (Path(target) / MANIFEST).is_file():
        checkpoint = None if against is None else resolve(against)
        return BenchTargets(bundle=Path(target), checkpoint=checkpoint, component=component)
    if against is not None:
        raise ModelError(f"{target!r} is not a bundle; --against takes the float original of a bundle")
    return BenchTargets(checkpoint=resolve(target), component=component)


def _random_targets(architecture: str, recipe: str, component: str, folder: Path, track: Track) -> BenchTargets:
    """Make a checkpoint with random weights and its bundle; dense speed and size do not depend on the values."""
    from vlmquant.build.build import quantize_model
    from vlmquant.checkpoints import load_model
    from vlmquant.checkpoints.architectures import random_checkpoint
    from vlmquant.checkpoints.calibration_set import CalibrationSet
    from vlmquant.models.prompts import BUILTIN_PROMPTS, BUILTIN_PROMPTS_NAME
    from vlmquant.quantize.recipes.presets import get_recipe

    chosen = get_recipe(recipe)
    checkpoint = folder / architecture
    random_checkpoint(architecture, checkpoint)
    model = load_model(checkpoint)
    generator = np.random.default_rng(0)
    shape = (model.image_spec.crop_height, model.image_spec.crop_width, 3)
    noise = tuple(generator.integers(0, 256, shape, dtype=np.uint8) for _ in range(8))
    calibration = CalibrationSet(noise, BUILTIN_PROMPTS[:16], "8 images of noise", BUILTIN_PROMPTS_NAME)
    bundle = quantize_model(model, chosen, calibration, folder / "bundle", track=track)
    return BenchTargets(bundle=bundle, checkpoint=checkpoint, component=component)


def write(result: BenchResult, folder: Path) -> None:
    """Write bench.json and the bar chart bench.png into `folder`."""
    from vlmquant.report.bench_chart import bench_png

    folder.mkdir(parents=True, exist_ok=True)
    result.write(folder / "bench.json")
    write_whole(folder / "bench.png", bench_png(result))


def print_result(result: BenchResult) -> None:
    """Print one table per batch size, what did not run and why, and the circumstances."""
    for drawn in rich_tables(result):
        show.console().print(drawn)
    for sentence in (*absences(result), *result.notes, circumstances(result)):
        show.line(sentence)
    if result.bundle_bytes is not None:
        show.line(f"whole bundle, both towers: {show.megabytes(result.bundle_bytes)} on disk")
