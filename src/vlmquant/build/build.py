"""`quantize_model`: checkpoint, recipe and calibration set in, proved bundle out; one way for every family."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from vlmquant.build.prove import write_proved
from vlmquant.bundle.check import unlisted
from vlmquant.bundle.manifest import MANIFEST, Manifest
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.families import FloatModel
from vlmquant.checkpoints.part import BATCH, Part, Preparation
from vlmquant.errors import BundleError, CalibrationError, RecipeError, unknown
from vlmquant.files import new_folder
from vlmquant.progress import Track, silent
from vlmquant.quantize.apply import is_fitted, quantize_by_damage
from vlmquant.quantize.methods.pruning import check_share
from vlmquant.quantize.recipes.recipe import Recipe, check_patterns, simulation_only
from vlmquant.quantize.sites import multiplications


def quantize_model(
    model: FloatModel,
    recipe: Recipe | Mapping[str, Recipe],
    calibration: CalibrationSet | None,
    output: str | Path,
    *,
    components: tuple[str, ...] | None = None,
    overwrite: bool = False,
    track: Track = silent,
) -> Path:
    """Quantize `model` by `recipe`, prove the result on every installed engine, write it to `output`.

    One recipe is for all `components` (None: all that the model has), several are for those they are under. What has
    no recipe goes in as float32. `calibration` may be None only where no recipe measures anything. The folder appears
    whole or not at all, and an existing one is refused unless `overwrite` and a bundle. Raises CalibrationError,
    RecipeError, BundleError.
    """
    recipes = recipes_of(model, recipe, components)
    check_exportable(model, recipes, calibration)
    with new_bundle(output, overwrite) as folder:
        prepared = held_apart(model.prepare(calibration, track), recipes)
        quantized = {
            part.component: quantize_by_damage(
                part.tower,
                recipes[part.component],
                part.inputs,
                f"Calibrating {part.component.replace('_', ' ')}",
                track,
            )
            for part in prepared.parts
            if part.component in recipes
        }
        write_proved(folder, model, prepared, quantized, track=track)
    return Path(output)


def write_bundle(
    model: FloatModel,
    prepared: Preparation,
    quantized: Mapping[str, tuple[nn.Module, Recipe]],
    output: str | Path,
    *,
    recovered: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    track: Track = silent,
) -> Path:
    """Prove the `quantized` towers of `model` on every installed engine and write the bundle `output`.

    `quantized` holds, by component, the tower and the recipe that was carried out on it. `recovered` says how the
    weights were tuned before that, for the manifest's `source`. See `quantize_model`.
    """
    with new_bundle(output, overwrite) as folder:
        write_proved(folder, model, prepared, quantized, recovered=recovered, track=track)
    return Path(output)


JUDGED_EVERY = 5
"""One batch of calibration inputs in so many judges a recipe that is fitted to the others."""


def held_apart(prepared: Preparation, recipes: Mapping[str, Recipe]) -> Preparation:
    """Return `prepared` with some inputs kept for judging wherever a recipe is fitted to those it is measured on.

    Raises CalibrationError with too few for both, RecipeError where more is to be pruned than a component has.
    """
    parts = tuple(_apart(part, recipes.get(part.component)) for part in prepared.parts)
    return replace(prepared, parts=parts)


def _apart(part: Part, recipe: Recipe | None) -> Part:
    if recipe is None or not is_fitted(recipe):
        return part
    if recipe.prune:
        check_share(part.tower, recipe.prune, part.inputs[0], part.component)
    inputs = list(part.inputs)
    every = min(JUDGED_EVERY, len(inputs))
    if every < 2:
        raise CalibrationError(
            f"recipe {recipe.name!r} is fitted to some calibration inputs and judged on others; {part.component} has "
            f"one batch of {BATCH} or less, give at least {2 * BATCH} images and as many texts, 64 are better"
        )
    fitted = [batch for index, batch in enumerate(inputs) if index % every != every - 1]
    return replace(part, inputs=fitted, judged=inputs[every - 1 :: every])


def new_bundle(output: str | Path, overwrite: bool) -> AbstractContextManager[Path]:
    """Return a context with an empty folder that becomes the bundle `output`; see `files.new_folder`."""
    return new_folder(Path(output), partial(check_free, overwrite=overwrite))


def check_free(output: Path, overwrite: bool) -> None:
    """Raise BundleError where `output` exists, unless it is a bundle, with nothing else in it, and `overwrite`."""
    if not output.exists():
        return
    if not (output / MANIFEST).is_file():
        raise BundleError(f"{str(output)!r} exists and is not a bundle; choose another output folder")
    try:
        manifest = Manifest.read(output)
    except BundleError as error:
        raise BundleError(f"{str(output)!r} exists and is a bundle that cannot be read ({error}); remove it") from error
    if not overwrite:
        raise BundleError(f"bundle {str(output)!r} exists; pass --overwrite or choose another output folder")
    if strange := unlisted(output, manifest, hidden=True):
        raise BundleError(
            f"bundle {str(output)!r} also holds {', '.join(strange)}, which would be lost; move it elsewhere first"
        )


def recipes_of(
    model: FloatModel, recipe: Recipe | Mapping[str, Recipe], components: tuple[str, ...] | None = None
) -> dict[str, Recipe]:
    """Return the recipe of each component of `model` that has one, in the order in which the components run.

    Raises RecipeError for a component that `model` does not have, and where there is none.
    """
    if isinstance(recipe, Recipe):
        wanted = dict.fromkeys(model.components if components is None else components, recipe)
    else:
        wanted = {name: one for name, one in recipe.items() if components is None or name in components}
    for name in (*wanted, *(components or ())):
        if name not in model.components:
            raise unknown(RecipeError, f"component of a {model.head}", name, model.components)
    if not wanted:
        raise RecipeError(f"no component to quantize; choose from {', '.join(model.components)}")
    return {name: wanted[name] for name in model.components if name in wanted}


def check_exportable(model: FloatModel, recipes: Mapping[str, Recipe], calibration: CalibrationSet | None) -> None:
    """Raise RecipeError or CalibrationError where these recipes cannot make a bundle of `model`."""
    layers: dict[Recipe, list[str]] = {}
    for component, recipe in recipes.items():
        layers.setdefault(recipe, []).extend(multiplications(model.tower(component)))
    for recipe, names in layers.items():
        if reason := simulation_only(recipe):
            raise RecipeError(f"recipe {recipe.name!r} is simulation only: {reason}; it makes no bundle")
        check_patterns(recipe, names)
        if recipe.needs_calibration and calibration is None:
            raise CalibrationError(
                f"recipe {recipe.name!r} is measured on inputs; pass a calibration set (--calibrate)"
            )
