"""`vlmquant quantize`, `verify` and `recipes`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from vlmquant.bundle.manifest import Manifest
from vlmquant.cli import show
from vlmquant.quantize.calibration_set import DEFAULT_IMAGES, CalibrationSet
from vlmquant.quantize.recipe import RECIPES, get_recipe

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads of the engine; its own choice when left out.")]


def quantize(
    checkpoint: Annotated[str, typer.Argument(help="A Hugging Face folder or hub id of a CLIP.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle folder to write.")],
    recipe: Annotated[str, typer.Option(help="A preset; `vlmquant recipes` lists them.")] = "static-int8",
    calibrate: Annotated[Path | None, typer.Option(help="Folder of images to measure activation ranges on.")] = None,
    texts: Annotated[
        Path | None, typer.Option(help="File with one text per line for the text tower; built-in prompts otherwise.")
    ] = None,
    images: Annotated[int, typer.Option(help="How many images of the folder to use.")] = DEFAULT_IMAGES,
    components: Annotated[str, typer.Option(help="Which towers to quantize, comma-separated.")] = "image,text",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing bundle.")] = False,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read a pickled checkpoint; only from a source you trust.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Turn a float checkpoint into a verified integer bundle."""
    from vlmquant.bundle.build import quantize_model
    from vlmquant.models import load_model

    chosen = get_recipe(recipe)
    track = show.tracker(json_output)
    calibration = None if calibrate is None else CalibrationSet.from_files(calibrate, texts, count=images, track=track)
    model = load_model(checkpoint, allow_pickle=allow_pickle)
    quantize_model(
        model,
        chosen,
        calibration,
        output,
        components=tuple(name.strip() for name in components.split(",") if name.strip()),
        overwrite=overwrite,
        track=track,
    )
    manifest = Manifest.read(output)
    if json_output:
        show.as_json(dataclasses.asdict(manifest))
        return
    print_manifest(output, manifest)


def print_manifest(folder: Path, manifest: Manifest) -> None:
    """Print what a new bundle is and what was proved about it."""
    rows = [
        (
            component,
            facts.precision,
            show.megabytes(manifest.files[facts.file].bytes),
            f"{facts.fidelity['cosine_mean']:.5f}",
            f"{facts.fidelity['cosine_min']:.5f}",
            ", ".join(f"{engine} {share:.1%}" for engine, share in facts.integer_mac_share.items()),
            f"{min(parity['cosine_min'] for parity in facts.parity.values()):.6f}",
        )
        for component, facts in manifest.components.items()
    ]
    columns = ("component", "precision", "size", "cosine to float", "worst", "MACs in INT8 kernels", "engine parity")
    show.table(f"{manifest.name}: {show.megabytes(manifest.total_bytes)} in {folder}", columns, rows)
    if manifest.calibration is not None:
        about = manifest.calibration
        show.line(f"calibrated on {about['images_from']} and {about['texts']} texts of {about['texts_from']}")
    if manifest.source["random_weights"]:
        show.line("the weights of this checkpoint are random: sizes and speeds mean something, embeddings nothing")


def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.")],
    engine: Annotated[str, typer.Option(help="all, openvino or onnxruntime.")] = "all",
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
    show.table(f"{report.manifest.name}: {len(report.manifest.files)} files unaltered, probes agree", columns, rows)


def recipes(json_output: Json = False) -> None:
    """List the recipe presets."""
    if json_output:
        show.as_json({name: recipe.to_dict() for name, recipe in RECIPES.items()})
        return
    show.table("Recipes", ("name", "what"), [(recipe.name, recipe.description) for recipe in RECIPES.values()])
