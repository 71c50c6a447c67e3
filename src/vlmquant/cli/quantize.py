"""`vlmquant quantize`, `verify` and `recipes`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmquant.bundle.manifest import Manifest
from vlmquant.checkpoints.calibration_set import DEFAULT_IMAGES, CalibrationSet
from vlmquant.cli import show
from vlmquant.cli.budget import EXIT_CODES, check_size, read_data, recipe_of_size, search_blip_within, search_within
from vlmquant.errors import DataError, RecipeError
from vlmquant.quantize.recipes.presets import RECIPES, get_recipe
from vlmquant.quantize.recipes.recipe import COMPONENTS
from vlmquant.quantize.recipes.recipe_file import read_recipe

if TYPE_CHECKING:
    from vlmquant.budget.log import SearchLog

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads of the engine; its own choice when left out.")]
Probe = Annotated[bool, typer.Option(help="Prove a bundle the first time it is opened on a machine.")]


def quantize(
    checkpoint: Annotated[str, typer.Argument(help="A Hugging Face folder or hub id of a CLIP or a BLIP.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle folder to write.")],
    recipe: Annotated[
        str, typer.Option(help="A preset (`vlmquant recipes` lists them) or a .json or .toml file.")
    ] = "static-int8",
    calibrate: Annotated[Path | None, typer.Option(help="Folder of images to measure activation ranges on.")] = None,
    texts: Annotated[
        Path | None,
        typer.Option(
            help="File with one text per line: prompts for a CLIP, questions for a BLIP that answers, captions for one "
            "that writes them; built-in ones otherwise."
        ),
    ] = None,
    images: Annotated[int, typer.Option(help="How many images of the folder to use.")] = DEFAULT_IMAGES,
    components: Annotated[
        str | None, typer.Option(help="Which components to quantize, comma-separated; all when left out.")
    ] = None,
    component_recipe: Annotated[
        list[str] | None,
        typer.Option(help="Another recipe for one component of a BLIP, as decoder=int8-weights; may be repeated."),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Search for the fastest form of the recipe that loses at most so many points (hundredths of a CIDEr)."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="With --max-drop: labelled, captioned or bare pictures to search on.")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="With --max-drop: top1, recall@1 or fidelity, by the data otherwise; of a BLIP cider, bleu-4 or "
            "vqa_accuracy, by its kind otherwise."
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="With --max-drop: the split of the data, never one that results are reported on.")
    ] = "dev",
    templates: Annotated[str, typer.Option(help="With --max-drop: prompts of top1, as in `evaluate`.")] = "openai-7",
    confident: Annotated[
        bool, typer.Option("--confident", help="With --max-drop: the drop's upper 95 % limit must be inside.")
    ] = False,
    max_megabytes: Annotated[
        float | None,
        typer.Option(help="Store weights in 4 bits, the least sensitive first, until the bundle takes so many MB."),
    ] = None,
    max_latency_ms: Annotated[
        float | None,
        typer.Option(help="With --max-drop: the longest that one image and one text may take together."),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(help="With --max-drop: the longest text that a BLIP may write, in tokens.")
    ] = 40,
    threads: Threads = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing bundle.")] = False,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read a pickled checkpoint; only from a source you trust.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Turn a float checkpoint into a verified integer bundle.

    With --max-drop, exit code: 0 a bundle inside the budget, 1 there is none, 2 a user's error, 4 the bundle was inside
    on the searched half of the data and the held-out half cannot tell.
    """
    from vlmquant.checkpoints import is_blip, load_model

    if (max_drop is None) != (data is None):
        raise DataError("--max-drop and --data go together: the drop is measured on the data")
    if max_latency_ms is not None and max_drop is None:
        raise DataError("--max-latency-ms bounds a search; give --max-drop and --data too")
    chosen = read_recipe(recipe)
    track = show.tracker(json_output)
    calibration = None if calibrate is None else CalibrationSet.from_files(calibrate, texts, count=images, track=track)
    named = None if components is None else tuple(name.strip() for name in components.split(",") if name.strip())
    by_component = {name: read_recipe(value) for name, value in map(_split_assignment, component_recipe or ())}
    log: SearchLog | None = None
    if is_blip(checkpoint, allow_pickle=allow_pickle):
        if max_megabytes is not None or max_latency_ms is not None:
            raise RecipeError("--max-megabytes and --max-latency-ms are for a CLIP; a BLIP takes --component-recipe")
        from vlmquant.build.blip_build import quantize_blip
        from vlmquant.checkpoints import load_blip
        from vlmquant.checkpoints.blip_inputs import components_of

        blip = load_blip(checkpoint, allow_pickle=allow_pickle)
        if max_drop is not None and data is not None:
            from vlmquant.budget.search import Budget

            if by_component or named is not None or chosen != get_recipe("static-int8"):
                raise RecipeError(
                    "--max-drop chooses the recipe of every component of a BLIP itself; leave --recipe, --components "
                    "and --component-recipe out"
                )
            log = search_blip_within(
                Budget(max_drop, metric, confident),
                blip,
                calibration,
                read_data(data, split, json_output),
                output,
                max_tokens=max_tokens,
                threads=threads,
                overwrite=overwrite,
                json_output=json_output,
            )
        else:
            recipes = {**dict.fromkeys(components_of(blip) if named is None else named, chosen), **by_component}
            quantize_blip(blip, recipes, calibration, output, overwrite=overwrite, track=track)
    elif by_component:
        raise RecipeError("--component-recipe is for a BLIP; a CLIP has one recipe and --components")
    else:
        from vlmquant.build.build import quantize_model

        clip = load_model(checkpoint, allow_pickle=allow_pickle)
        towers = COMPONENTS if named is None else named
        max_bytes = None if max_megabytes is None else int(1e6 * max_megabytes)
        if max_bytes is not None:
            chosen = recipe_of_size(clip, chosen, calibration, max_bytes, towers, track)
        if max_drop is not None and data is not None:
            from vlmquant.budget.search import Budget

            log = search_within(
                Budget(max_drop, metric, confident, max_bytes, max_latency_ms, templates),
                clip,
                calibration,
                read_data(data, split, json_output),
                output,
                recipe=chosen,
                components=towers,
                threads=threads,
                overwrite=overwrite,
                json_output=json_output,
            )
        else:
            quantize_model(clip, chosen, calibration, output, components=towers, overwrite=overwrite, track=track)
            check_size(output, max_bytes)
    manifest = Manifest.read(output)
    if json_output:
        show.as_json(dataclasses.asdict(manifest) if log is None else log.to_dict())
    else:
        print_manifest(output, manifest)
    if log is not None and (code := EXIT_CODES[str(log.confirmed)]):
        raise typer.Exit(code)


def _split_assignment(value: str) -> tuple[str, str]:
    component, separator, recipe = value.partition("=")
    if not separator or not component or not recipe:
        raise RecipeError(f"--component-recipe {value!r} is not COMPONENT=RECIPE; write decoder=int8-weights")
    return component, recipe


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
    for component, facts in manifest.components.items():
        if facts.kept_float:
            show.line(f"{component}: {len(facts.kept_float)} layers stay float: {', '.join(facts.kept_float)}")
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
