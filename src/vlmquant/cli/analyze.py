"""`vlmquant analyze`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmquant.checkpoints.calibration_set import DEFAULT_IMAGES, CalibrationSet
from vlmquant.cli import show
from vlmquant.cli.options import AllowPickle, Json, RecipeName, Texts, words
from vlmquant.quantize.recipes.presets import get_recipe
from vlmquant.quantize.recipes.recipe_file import read_recipe
from vlmquant.text import counted

if TYPE_CHECKING:
    from vlmquant.lab.analysis.run import Analysis
    from vlmquant.lab.analysis.sites import SiteFacts

MOST_PRINTED = 8


def analyze(
    checkpoint: Annotated[str, typer.Argument(help="A Hugging Face folder or hub id of a CLIP.")],
    calibrate: Annotated[Path, typer.Option(help="Folder of images to measure on.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the page, its pictures and the JSON.")],
    texts: Texts = None,
    images: Annotated[int, typer.Option(help="How many images of the folder to use.")] = DEFAULT_IMAGES,
    recipe: RecipeName = "static-int8",
    recipes: Annotated[
        str | None,
        typer.Option(help="Presets whose similarities stand beside, comma-separated; vanilla 8 to 2 bits if none."),
    ] = None,
    allow_pickle: AllowPickle = False,
    json_output: Json = False,
) -> None:
    """Show what a recipe does inside a checkpoint: distributions, noise, sensitive layers, similarities."""
    from vlmquant.checkpoints import load_model
    from vlmquant.lab.analysis.run import COMPARED
    from vlmquant.lab.analysis.run import analyze as run
    from vlmquant.output import OutputFolder, there
    from vlmquant.report.analysis import CHARTS, FILES, VERB, write_analysis

    chosen = read_recipe(recipe)
    compared = COMPARED if recipes is None else words(recipes)
    for name in compared:
        get_recipe(name)
    OutputFolder(output, VERB).check([*FILES, *there(output, CHARTS)], [calibrate])
    track = show.tracker(json_output)
    calibration = CalibrationSet.from_files(calibrate, texts, count=images, track=track)
    found = run(load_model(checkpoint, allow_pickle=allow_pickle), calibration, chosen, compared, track)
    (written,) = [write_analysis(output, found) for _ in track(["page"], "Drawing the page")]
    if json_output:
        show.as_json({"files": [str(path) for path in written], **found.to_dict()})
        return
    print_analysis(found, written)


def print_analysis(found: "Analysis", written: Sequence[Path]) -> None:
    """Print the distances of the similarities, the most sensitive layers and the files."""
    rows = [
        (
            one.name,
            f"{one.wasserstein:.5f}",
            f"{one.kolmogorov_smirnov:.4f}",
            f"{one.image_cosine:.5f}",
            f"{one.text_cosine:.5f}",
        )
        for one in found.similarities
    ]
    show.calibration_warnings(found.calibration)
    columns = ("precision", "Wasserstein-1", "Kolmogorov-Smirnov", "image cosine", "text cosine")
    pairs = found.similarities[0].cosines.size
    show.table(f"{found.model}: cosines of {pairs} pairs of a picture and a text, distance to float", columns, rows)
    for component, tower in found.towers.items():
        noise = {site.site: site for site in tower.sites}
        layers = [
            (layer.site, f"{layer.cosine_loss:.2e}", f"{layer.rank_agreement:.5f}", _decibels(noise[layer.site]))
            for layer in tower.sensitivity[:MOST_PRINTED]
        ]
        title = f"{component} tower: the {len(layers)} most sensitive of {len(tower.sensitivity)} layers"
        show.table(title, ("layer", "1 - cosine", "rank agreement", "output SQNR dB"), layers)
    show.line(f"{written[1]}: the page; {counted(len(written) - 2, 'picture')} and {written[0].name} beside it")


def _decibels(site: "SiteFacts") -> str:
    return "-" if site.output_sqnr_db is None else f"{site.output_sqnr_db:.1f}"
