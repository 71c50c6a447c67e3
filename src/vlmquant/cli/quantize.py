"""`vlmquant quantize`, `verify` and `recipes`."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from vlmquant.cli import show
from vlmquant.cli.budget import BundleOutput, limits, measured_on, within
from vlmquant.cli.groups import CalibrationChoice, CheckpointChoice, made_of
from vlmquant.cli.manifest import print_bundle
from vlmquant.cli.options import Bundle, Json, Overwrite, Prune, Threads, words
from vlmquant.engines import ENGINES
from vlmquant.errors import CalibrationError, RecipeError
from vlmquant.files import check_writable
from vlmquant.quantize.recipes.presets import RECIPES
from vlmquant.quantize.recipes.recipe import Recipe, pruned
from vlmquant.quantize.recipes.recipe_file import read_recipe
from vlmquant.text import counted


@made_of(source=CheckpointChoice, calibration=CalibrationChoice)
def quantize(
    source: CheckpointChoice,
    output: Bundle,
    *,
    calibration: CalibrationChoice,
    component_recipe: Annotated[
        list[str] | None,
        typer.Option(help="Another recipe for one component, as decoder=int8-weights; may be repeated."),
    ] = None,
    prune: Prune = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Short for `vlmquant budget --max-drop`, which has more options; needs --data.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="With --max-drop: pictures to measure the drop on.")] = None,
    max_megabytes: Annotated[float | None, typer.Option(help="Short for `vlmquant budget --max-megabytes`.")] = None,
    overwrite: Overwrite = False,
    json_output: Json = False,
) -> None:
    """Turn a float checkpoint into a verified integer bundle."""
    run = BundleOutput(output=output, overwrite=overwrite, json_output=json_output)
    if max_drop is None and data is None and max_megabytes is None:
        _quantize(source, component_recipe or (), prune, calibration, run)
        return
    if component_recipe:
        raise RecipeError("a budget chooses the recipe of every component itself; leave --component-recipe out")
    if prune is not None:
        raise RecipeError("a budget tries whole components only; leave --prune out, or the budget")
    within(source, limits(max_drop, max_megabytes), measured_on(data), calibration, run)


def _quantize(
    source: CheckpointChoice,
    component_recipe: Sequence[str],
    prune: float | None,
    calibration: CalibrationChoice,
    run: BundleOutput,
) -> None:
    from vlmquant.build.build import quantize_model
    from vlmquant.checkpoints import load_checkpoint

    chosen = pruned(read_recipe(source.recipe), prune)
    by_component = {name: pruned(recipe, prune) for name, recipe in _by_component(component_recipe).items()}
    if calibration.calibrate is None:
        check_measures_nothing([chosen, *by_component.values()])
    check_writable(run.output.parent)
    track = show.tracker(run.json_output)
    inputs = calibration.read(track)
    model = load_checkpoint(source.checkpoint, allow_pickle=source.allow_pickle)
    named = model.components if source.components is None else words(source.components)
    recipes = {**dict.fromkeys(named, chosen), **by_component}
    quantize_model(model, recipes, inputs, run.output, overwrite=run.overwrite, track=track)
    print_bundle(run.output, json_output=run.json_output)


def check_measures_nothing(recipes: Iterable[Recipe]) -> None:
    """Raise CalibrationError where a recipe is measured on inputs and none were named."""
    for recipe in recipes:
        if recipe.needs_calibration:
            raise CalibrationError(
                f"recipe {recipe.name!r} is measured on inputs; pass a folder of images (--calibrate)"
            )


def _by_component(assignments: Sequence[str]) -> dict[str, Recipe]:
    """Read the recipe of each component. Raises RecipeError where one is named twice."""
    found: dict[str, Recipe] = {}
    for name, value in map(_split_assignment, assignments):
        if name in found:
            raise RecipeError(f"--component-recipe names {name!r} twice; give each component one recipe")
        found[name] = read_recipe(value)
    return found


def _split_assignment(value: str) -> tuple[str, str]:
    component, separator, recipe = value.partition("=")
    if not separator or not component or not recipe:
        raise RecipeError(f"--component-recipe {value!r} is not COMPONENT=RECIPE; write decoder=int8-weights")
    return component, recipe


def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.")],
    engine: Annotated[str, typer.Option(help=f"all, {' or '.join(ENGINES)}.")] = "all",
    threads: Threads = None,
    json_output: Json = False,
) -> None:
    """Re-hash a bundle's files and re-run its stored probes on the engines."""
    from vlmquant.bundle import verify as prove

    report = prove(bundle, engine=engine, threads=threads)
    if json_output:
        show.as_json([dataclasses.asdict(row) for row in report.rows])
        return
    rows = [
        (row.engine, row.component, f"{row.cosine_min:.6f}", f"{row.cosine_to_float_min:.6f}", row.max_abs_difference)
        for row in report.rows
    ]
    columns = ("engine", "component", "cosine to stored", "cosine to float", "max difference")
    show.table(
        f"{report.manifest.name}: {counted(len(report.manifest.files), 'file')} unaltered, probes agree", columns, rows
    )


def recipes(json_output: Json = False) -> None:
    """List the recipe presets."""
    if json_output:
        show.as_json({name: recipe.to_dict() for name, recipe in RECIPES.items()})
        return
    show.table("Recipes", ("name", "what"), [(recipe.name, recipe.description) for recipe in RECIPES.values()])
