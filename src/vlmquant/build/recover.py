"""`recover_model`: from a checkpoint and unlabelled data to a bundle whose weights were tuned for their recipe."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from vlmquant.build.build import check_exportable, new_bundle, recipes_of
from vlmquant.build.prove import write_proved
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.errors import CalibrationError
from vlmquant.progress import Track, silent
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.recovery.recover import STATE, recover, split_inputs
from vlmquant.quantize.recovery.tuning import RecoverySettings


def recover_model(
    model: ClipModel,
    recipe: Recipe,
    unlabelled: CalibrationSet,
    output: str | Path,
    settings: RecoverySettings | None = None,
    *,
    components: tuple[str, ...] | None = None,
    overwrite: bool = False,
    track: Track = silent,
) -> Path:
    """Tune `model` for `recipe` on the images and texts of `unlabelled`, and write the bundle of the result.

    The bundle's fidelity is against `model`, not against what it was tuned to. The state of the tuning lies in
    `<output>.recovery` until the bundle is written, so that a stopped call goes on. Raises what `recover` and
    `quantize_model` raise.
    """
    output = Path(output)
    recipes = recipes_of(model, recipe, components)
    check_exportable(model, recipes, unlabelled)
    if "image" in recipes and not unlabelled.images:
        raise CalibrationError("the unlabelled set holds no image to tune the image tower on; pass --images")
    with new_bundle(output, overwrite) as folder:
        prepared = model.prepare(unlabelled)
        inputs = {part.component: part.inputs for part in prepared.parts if part.component in recipes}
        # Judged on what was not tuned on.
        parts = tuple(
            replace(part, judged=split_inputs(part.component, part.inputs)[1]) if part.component in recipes else part
            for part in prepared.parts
        )
        work = output.with_name(f"{output.name}.recovery")
        recovered = recover(model, recipe, inputs, settings, work=work, track=track)
        tuned = replace(recovered.recipe, name=f"{recipe.name} recovered")
        towers = {component: (tower, tuned) for component, tower in recovered.towers.items()}
        write_proved(folder, model, replace(prepared, parts=parts), towers, recovered=recovered.facts, track=track)
    (work / STATE).unlink(missing_ok=True)
    with suppress(OSError):  # something of the user's is in it as well
        work.rmdir()
    return output
