"""`vlmquant recover`."""

from pathlib import Path
from typing import Annotated

import typer

from vlmquant.bundle.manifest import Manifest
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.cli import show
from vlmquant.cli.quantize import Json, print_manifest
from vlmquant.quantize.recipes.recipe_file import read_recipe

UNLABELLED_IMAGES = 512


def recover(
    checkpoint: Annotated[str, typer.Argument(help="A Hugging Face folder or hub id of a CLIP.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle folder to write.")],
    images: Annotated[Path, typer.Option(help="Folder of unlabelled images to tune on, like those to come.")],
    recipe: Annotated[
        str, typer.Option(help="A preset (`vlmquant recipes` lists them) or a .json or .toml file.")
    ] = "vanilla-w4a4",
    texts: Annotated[
        Path | None, typer.Option(help="File with one text per line for the text tower; built-in prompts otherwise.")
    ] = None,
    count: Annotated[int, typer.Option(help="How many images of the folder to use.")] = UNLABELLED_IMAGES,
    steps: Annotated[int, typer.Option(help="At most so many steps.")] = 400,
    minutes: Annotated[float | None, typer.Option(help="At most so many minutes of tuning.")] = None,
    device: Annotated[str, typer.Option(help="auto (CUDA when present), cpu, cuda or cuda:1.")] = "auto",
    components: Annotated[str, typer.Option(help="Which towers to tune, comma-separated.")] = "image,text",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing bundle.")] = False,
    json_output: Json = False,
) -> None:
    """Quantize after a short tuning without labels: for bit-widths at which a recipe alone costs too much."""
    from vlmquant.build.recover import recover_model
    from vlmquant.checkpoints import load_model
    from vlmquant.quantize.recovery.tuning import RecoverySettings

    chosen = read_recipe(recipe)
    settings = RecoverySettings(steps=steps, minutes=minutes, device=device)
    track = show.tracker(json_output)
    unlabelled = CalibrationSet.from_files(images, texts, count=count, track=track)
    recover_model(
        load_model(checkpoint),
        chosen,
        unlabelled,
        output,
        settings,
        components=tuple(name.strip() for name in components.split(",") if name.strip()),
        overwrite=overwrite,
        track=track,
    )
    manifest = Manifest.read(output)
    if json_output:
        show.as_json(manifest.to_dict())
        return
    print_manifest(output, manifest)
    facts = manifest.source["recovered"]
    show.line(f"tuned for {facts['steps']} steps, {facts['seconds']:.0f} s, on {facts['device']} (asked for: {device})")
    for component, before in facts["loss_before"].items():
        after = facts["loss_after"][component]
        verdict = "" if after < before else "; the tuning did not help, use `vlmquant quantize`"
        show.line(f"{component}: 1 - cosine on held-out inputs {before:.5f} before, {after:.5f} after{verdict}")
