"""`vlmquant recover`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmquant.bundle.manifest import Manifest
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.cli import show
from vlmquant.cli.groups import made_of
from vlmquant.cli.manifest import print_manifest
from vlmquant.cli.options import AllowPickle, Bundle, Device, Json, Overwrite, Prune, RecipeName, Texts, words
from vlmquant.files import check_writable
from vlmquant.quantize.recipes.recipe import check_components, pruned
from vlmquant.quantize.recipes.recipe_file import read_recipe

if TYPE_CHECKING:
    from vlmquant.quantize.recovery.tuning import RecoverySettings

UNLABELLED_IMAGES = 512


def tuning_settings(
    steps: Annotated[int, typer.Option(help="At most so many steps.")] = 400,
    minutes: Annotated[float | None, typer.Option(help="At most so many minutes of tuning.")] = None,
    device: Device = "auto",
) -> "RecoverySettings":
    """Make what says how long and where to tune; a device that is not there is refused."""
    from vlmquant.checkpoints.checkpoint import usable_device
    from vlmquant.quantize.recovery.tuning import RecoverySettings

    settings = RecoverySettings(steps=steps, minutes=minutes, device=device)
    usable_device(device)
    return settings


@made_of(settings=tuning_settings)
def recover(
    checkpoint: Annotated[str, typer.Argument(help="A Hugging Face folder or hub id of a CLIP.")],
    output: Bundle,
    images: Annotated[Path, typer.Option(help="Folder of unlabelled images to tune on, like those to come.")],
    *,
    recipe: RecipeName = "vanilla-w4a4",
    prune: Prune = None,
    texts: Texts = None,
    count: Annotated[int, typer.Option(help="How many images of the folder to use.")] = UNLABELLED_IMAGES,
    settings: "RecoverySettings",
    components: Annotated[str, typer.Option(help="Which towers to tune, comma-separated.")] = "image,text",
    overwrite: Overwrite = False,
    allow_pickle: AllowPickle = False,
    json_output: Json = False,
) -> None:
    """Quantize after a short tuning without labels: for bit-widths at which a recipe alone costs too much."""
    from vlmquant.build.recover import recover_model
    from vlmquant.checkpoints import load_model

    chosen = pruned(read_recipe(recipe), prune)
    towers = check_components(words(components))
    check_writable(output.parent)
    track = show.tracker(json_output)
    model = load_model(checkpoint, allow_pickle=allow_pickle)
    unlabelled = CalibrationSet.from_files(images, texts, count=count, track=track)
    recover_model(model, chosen, unlabelled, output, settings, components=towers, overwrite=overwrite, track=track)
    manifest = Manifest.read(output)
    if json_output:
        show.as_json(manifest.to_dict())
        return
    print_manifest(output, manifest)
    facts = manifest.source["recovered"]
    show.line(
        f"tuned for {facts['steps']} steps, {facts['seconds']:.0f} s, "
        f"on {facts['device']} (asked for: {settings.device})"
    )
    for component, before in facts["loss_before"].items():
        after = facts["loss_after"][component]
        verdict = "" if after < before else "; the tuning did not help, use `vlmquant quantize`"
        show.line(f"{component}: 1 - cosine on held-out inputs {before:.5f} before, {after:.5f} after{verdict}")
