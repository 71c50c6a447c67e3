"""The page, pictures and files of an analysis."""

from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from vlmquant.files import write_whole
from vlmquant.lab.analysis.run import SHOWN, Analysis, Similarities, TowerAnalysis
from vlmquant.lab.analysis.sites import SiteFacts, place_of
from vlmquant.output import results
from vlmquant.report.distributions import Sample, overlaid
from vlmquant.report.evaluation_tables import NOTHING
from vlmquant.report.matrices import Matrix, difference, side_by_side
from vlmquant.report.page import (
    Block,
    Details,
    Facts,
    Heading,
    KeyFigure,
    KeyFigures,
    Notice,
    Page,
    Picture,
    Table,
    Text,
    write_page,
)
from vlmquant.report.plots import png
from vlmquant.report.site_charts import (
    histograms_figure,
    ranking_figure,
    sensitivity_matrix,
    short,
    site_matrix,
)
from vlmquant.tasks.fidelity import evenly
from vlmquant.tasks.result import save_json

BEHIND_ACTIVATION = "mlp.fc2"

Charts = dict[str, Picture]
"""Pictures by the name of their PNG file, without its ending."""


VERB = "analyze"
FILES = ("analysis.json", "index.html")
"""What is written beside the charts."""
CHARTS = ("cosines.png", "similarities*.png", "image-*.png", "text-*.png")
"""Patterns of the names of all charts."""


def write_analysis(folder: Path, found: Analysis) -> list[Path]:
    """Write analysis.json, index.html and every chart as a PNG file into `folder`; return their paths."""
    charts: Charts = {}
    page = analysis_page(found, charts)
    pictures = {f"{name}.png": picture.data for name, picture in charts.items()}
    with results(folder, VERB, [*FILES, *pictures]):
        save_json(folder / "analysis.json", found.to_dict())
        written = [folder / "analysis.json", write_page(folder / "index.html", page)]
        return written + [write_whole(folder / name, data) for name, data in pictures.items()]


def analysis_page(found: Analysis, charts: Charts) -> Page:
    """Return the page, and put its pictures into `charts`."""
    blocks: list[Block] = []
    if found.random_weights:
        blocks.append(Notice("Read this first", ["The weights are random: what is shown says nothing about a model."]))
    blocks.append(_key_figures(found))
    blocks += [Heading("Similarities"), *_similarity_blocks(found, charts)]
    for component, tower in found.towers.items():
        if tower.sites:
            blocks += [Heading(f"The {component} tower"), *_tower_blocks(component, tower, charts)]
    calibration = found.calibration
    blocks += [
        Heading("How this was measured"),
        Facts(
            [
                ("Recipe", found.recipe),
                *((f"Carried out, {name}", _carried_out(tower)) for name, tower in found.towers.items()),
                ("Pictures", str(calibration["images_from"])),
                *(("Warning", warning) for warning in calibration.get("warnings", ())),
                ("Texts", f"{calibration['texts']} texts of {calibration['texts_from']}"),
                ("Weights", f"sha256 {found.weights_sha256[:12]}"),
            ]
        ),
        Text(
            "Everything on this page was measured on the pictures and texts on which the ranges were found too. "
            "Signal-to-noise ratios and clipping are of each site alone, on float inputs; the sensitivity of a layer "
            "is what quantizing it alone, weights and input, does to the final embedding."
        ),
    ]
    return Page(
        title=f"Inside {found.model}",
        subtitle=f"What {found.recipe} does to its layers, and what becomes of its similarities.",
        blocks=blocks,
    )


def _key_figures(found: Analysis) -> KeyFigures:
    quantized = found.similarities[1]
    figures = [
        KeyFigure("Cosine to float, images", f"{quantized.image_cosine:.5f}", f"mean, {found.recipe}"),
        KeyFigure("Cosine to float, texts", f"{quantized.text_cosine:.5f}", f"mean, {found.recipe}"),
        KeyFigure("Similarities moved by", f"{quantized.wasserstein:.5f}", "Wasserstein-1 distance of all cosines"),
    ]
    for component, tower in found.towers.items():
        if tower.sensitivity:
            worst = tower.sensitivity[0]
            note = f"1 - cosine when {_place(worst.site)} alone is quantized, the most sensitive layer"
            figures.append(KeyFigure(f"Worst layer, {component} tower", f"{worst.cosine_loss:.1e}", note))
    return KeyFigures(figures)


def _similarity_blocks(found: Analysis, charts: Charts) -> list[Block]:
    reference, quantized = found.similarities[:2]
    size = f"{reference.cosines.size:,} pairs"
    samples = [Sample(label=one.name, values=one.cosines.astype(np.float64).ravel()) for one in found.similarities]
    rows = [
        (
            one.name,
            f"{one.cosines.mean():.4f}",
            f"{one.cosines.std():.4f}",
            f"{one.wasserstein:.5f}",
            f"{one.kolmogorov_smirnov:.4f}",
            f"{one.image_cosine:.5f}",
            f"{one.text_cosine:.5f}",
        )
        for one in found.similarities
    ]
    columns = ("Precision", "Mean", "Standard deviation", "Wasserstein-1", "Kolmogorov-Smirnov")
    both, change = _similarity_figures(found, reference, quantized)
    caption = "Cosines of every picture with every text. The distance in the legend is Wasserstein-1."
    return [
        _chart(
            charts,
            "cosines",
            overlaid([(f"every picture with every text, {size}", samples)], "cosine similarity"),
            "Distributions of cosine similarities by precision",
            caption,
        ),
        Table(
            columns=(*columns, "Image cosine", "Text cosine"),
            rows=rows,
            caption="Mean, spread and distance to float of the cosines between pictures and texts; the last two "
            "columns are the mean cosines of the embeddings themselves to the float ones.",
        ),
        _chart(charts, "similarities", both, f"Similarity matrices, float and {quantized.name}", "The same pairs."),
        Details(
            "Where the similarities differ",
            [_chart(charts, "similarities-difference", change, "Difference of the similarities", "")],
        ),
    ]


def _similarity_figures(found: Analysis, reference: Similarities, quantized: Similarities) -> tuple[Figure, Figure]:
    images, texts = (evenly(count, SHOWN) for count in reference.cosines.shape)
    rows, columns = tuple(f"picture {i}" for i in images), tuple(found.texts[i] for i in texts)
    shown = [one.cosines[np.ix_(images, texts)].astype(np.float64) for one in (reference, quantized)]
    n = f"{len(rows)} of {reference.cosines.shape[0]} pictures, {len(columns)} of {len(found.texts)} texts"
    before, after = (
        Matrix(title=one.name, values=values, rows=rows, columns=columns)
        for one, values in zip((reference, quantized), shown, strict=True)
    )
    change = Matrix(title=f"{quantized.name} minus float", values=shown[1] - shown[0], rows=rows, columns=columns)
    return (
        side_by_side([before, after], "cosine similarity", rows_are="pictures", columns_are="texts", n=n),
        difference(change, "difference of the cosines", rows_are="pictures", columns_are="texts", n=n),
    )


def _tower_blocks(component: str, tower: TowerAnalysis, charts: Charts) -> list[Block]:
    blocks: list[Block] = []
    sensitivity = sensitivity_matrix("log10 of 1 - cosine", tower.sensitivity, tower.sites)
    if sensitivity is not None:
        figure = _map(sensitivity, "log10 of 1 - cosine; higher is worse", f"{len(tower.sensitivity)} layers")
        words = f"Sensitivity of each layer of the {component} tower"
        outside = [
            f"{layer.site.rpartition('.')[2]} {np.log10(layer.cosine_loss):.2f}"
            for layer in tower.sensitivity
            if layer.cosine_loss > 0 and not place_of(layer.site)[0]
        ]
        caption = "What quantizing one layer alone does to the final embedding."
        caption += f" Outside of the blocks: {', '.join(outside)}." if outside else ""
        blocks.append(_chart(charts, f"{component}-sensitivity", figure, words, caption))
    if tower.sensitivity:
        words = f"The most sensitive layers of the {component} tower"
        figure = ranking_figure(tower.sensitivity)
        ranking: list[Block] = [_chart(charts, f"{component}-ranking", figure, words, ""), _sensitivity_table(tower)]
        blocks.append(Details("Ranking of the layers", ranking))
    blocks += _noise_blocks(component, tower.sites, charts)
    behind = [site for site in tower.sites if site.kind.endswith(BEHIND_ACTIVATION)]
    if behind:
        figure = histograms_figure(behind, "input")
        words = f"Outputs of the activation function in each block of the {component} tower"
        caption = "What comes out of GELU (the input of fc2). Orange: the ends of the grid; beyond them is clipped."
        blocks.append(_chart(charts, f"{component}-inputs-gelu", figure, words, caption))
    others = [site for site in tower.sites if site not in behind]
    blocks.append(Details("Inputs of the other sites", _all_histograms(component, others, "input", charts)))
    blocks.append(Details("Weights of every layer", _all_histograms(component, tower.sites, "weight", charts)))
    blocks.append(Details("Every site in numbers", [_site_table(tower.sites)]))
    return blocks


def _noise_blocks(component: str, sites: Sequence[SiteFacts], charts: Charts) -> list[Block]:
    blocks: list[Block] = []
    for what in ("inputs", "weights", "outputs"):
        ratio = attrgetter(f"{what[:-1]}_sqnr_db")
        matrix = site_matrix(what, sites, ratio)
        if matrix is not None:
            figure = _map(matrix, "signal-to-noise (dB)", f"{what} of {len(sites)} sites; higher is better")
            words = f"Signal-to-quantization-noise ratio of the {what} in the {component} tower"
            picture = _chart(charts, f"{component}-sqnr-{what}", figure, words, f"{words}, in dB.")
            blocks.append(picture if what == "outputs" else Details(words, [picture]))
    clipped = site_matrix(
        "clipped", sites, lambda site: None if site.clipped_share is None else 100 * site.clipped_share
    )
    if clipped is not None:
        figure = _map(clipped, "clipped (%)", f"inputs of {len(sites)} sites")
        words = f"Share of the input values that are clipped in the {component} tower"
        blocks.append(Details(words, [_chart(charts, f"{component}-clipped", figure, words, "")]))
    return blocks


def _all_histograms(component: str, sites: Sequence[SiteFacts], what: str, charts: Charts) -> list[Block]:
    kinds: dict[str, list[SiteFacts]] = {}
    for site in sites:
        if getattr(site, what) is not None:
            kinds.setdefault(site.kind if site.block else "outside of the blocks", []).append(site)
    return [
        _chart(
            charts,
            f"{component}-{what}s-{kind.replace('.', '-').replace(' ', '-')}",
            histograms_figure(of_kind, what),
            f"Distributions of the {what}s of {kind} in the {component} tower",
            kind,
        )
        for kind, of_kind in kinds.items()
    ]


def _sensitivity_table(tower: TowerAnalysis) -> Table:
    return Table(
        columns=("Layer", "1 - cosine", "Rank agreement", "MMACs", "KiB", "KiB as float32"),
        rows=[
            (
                layer.site,
                f"{layer.cosine_loss:.2e}",
                f"{layer.rank_agreement:.5f}",
                f"{layer.macs / 1e6:.2f}",
                f"{layer.weight_bytes / 1024:.1f}",
                f"{layer.float_bytes / 1024:.1f}",
            )
            for layer in tower.sensitivity
        ],
        caption="Every layer quantized alone, the most sensitive first. MMACs: million multiply-accumulates for one "
        "input. Rank agreement: Spearman's rho of how the inputs rank each other.",
    )


def _site_table(sites: Sequence[SiteFacts]) -> Table:
    return Table(
        columns=("Site", "Grid from", "Grid to", "Clipped (%)", "Input (dB)", "Weight (dB)", "Output (dB)"),
        rows=[
            (
                site.site,
                _number(site.grid_low, ".4g"),
                _number(site.grid_high, ".4g"),
                _number(None if site.clipped_share is None else 100 * site.clipped_share, ".4f"),
                *(
                    "exact" if name in site.exact else _number(getattr(site, f"{name}_sqnr_db"), ".1f")
                    for name in ("input", "weight", "output")
                ),
            )
            for site in sites
        ],
        caption="Signal-to-quantization-noise ratios in dB. A dash: not rounded, or with a range found at run time.",
    )


def _place(site: str) -> str:
    block, kind = place_of(site)
    return f"{short(block)} {kind}" if block else site.rpartition(".")[2]


def _carried_out(tower: TowerAnalysis) -> str:
    recipe = tower.recipe
    kept = f"; in float: {', '.join(recipe.keep_float)}" if recipe.keep_float else ""
    return f"smoothing {'on' if recipe.smoothing else 'off'}{kept}"


def _map(matrix: Matrix, unit: str, n: str) -> Figure:
    return side_by_side([matrix], unit, rows_are="blocks", columns_are="", n=n)


def _chart(charts: Charts, name: str, figure: Figure, words: str, caption: str) -> Picture:
    charts[name] = Picture(png(figure), alt=words, caption=caption)
    return charts[name]


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)
