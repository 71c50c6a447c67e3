"""Charts of the sites of a tower: what they hold, how noisy rounding makes them, which layers matter."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vlmquant.lab.analysis.sites import Distribution, SiteFacts
from vlmquant.quantize.sensitivity import LayerSensitivity
from vlmquant.report.matrices import Matrix
from vlmquant.report.plots import AFTER, LINE, plain
from vlmquant.text import counted

MOST_RANKED = 20
COLUMNS = 4


def histograms_figure(sites: Sequence[SiteFacts], what: str) -> Figure:
    """Draw the inputs ("input") or weights ("weight") of sites, one panel each, with the ends of each input's grid.

    Raises ValueError without a site that has such a distribution.
    """
    shown = [(site, found) for site in sites if (found := getattr(site, what)) is not None]
    if not shown:
        raise ValueError(f"expected at least one site with a distribution of its {what}")
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    height = 0.8 + 1.9 * rows
    figure = Figure(figsize=(11, height))
    # Fixed margins: a layout engine takes seconds for so many panels.
    figure.subplots_adjust(left=0.07, right=0.99, top=1 - 0.25 / height, bottom=0.6 / height, wspace=0.25, hspace=0.45)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (site, found) in zip(panels, shown, strict=False):
        _histogram(axes, found)
        clipped = ""
        if what == "input" and site.grid_low is not None and site.grid_high is not None:
            for end in (site.grid_low, site.grid_high):
                axes.axvline(end, color=LINE, linewidth=1.2)
            clipped = f", {100 * (site.clipped_share or 0):.3f} % clipped"
        axes.set_title(f"{short(site.block) or site.kind}{clipped}", loc="left", fontsize=8)
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    figure.supxlabel(f"value of the {what}", fontsize=9)
    figure.supylabel("number of values (log)", fontsize=9)
    return figure


def _histogram(axes: Axes, found: Distribution) -> None:
    edges = np.linspace(found.low, found.high, len(found.counts) + 1)
    axes.stairs(found.counts, edges, fill=True, color=AFTER, alpha=0.85)
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.5)
    plain(axes)
    axes.tick_params(labelsize=7)


def site_matrix(title: str, sites: Sequence[SiteFacts], value_of: Callable[[SiteFacts], float | None]) -> Matrix | None:
    """Return a number of each site over blocks (rows) and what a block has (columns); None without blocks."""
    cells = {(site.block, site.kind): value for site in sites if (value := value_of(site)) is not None}
    return _matrix(title, cells)


def sensitivity_matrix(title: str, layers: Sequence[LayerSensitivity], sites: Sequence[SiteFacts]) -> Matrix | None:
    """Return log10 of each layer's cosine loss over blocks and what a block has; None without blocks."""
    losses = {layer.site: layer.cosine_loss for layer in layers if layer.cosine_loss > 0}
    cells = {(site.block, site.kind): float(np.log10(losses[site.site])) for site in sites if site.site in losses}
    return _matrix(title, cells)


def ranking_figure(layers: Sequence[LayerSensitivity]) -> Figure:
    """Draw the most sensitive layers, at most 20. Raises ValueError without one."""
    if not layers:
        raise ValueError("expected at least one layer to rank")
    shown = layers[:MOST_RANKED]
    figure = Figure(figsize=(11, 1.0 + 0.27 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(shown)), [layer.cosine_loss for layer in shown], color=AFTER, height=0.7)
    axes.set_yticks(range(len(shown)), [layer.site for layer in shown])
    axes.invert_yaxis()
    axes.set_xlabel("1 - mean cosine of the embeddings to float, this layer alone quantized")
    axes.set_title(f"{len(shown)} of {counted(len(layers), 'layer')}", loc="left", fontsize=10)
    plain(axes)
    axes.tick_params(axis="y", labelsize=7.5)
    return figure


def short(block: str) -> str:
    """Return the end of a block's name: "vision_model.encoder.layers.3" -> "layers.3"."""
    return ".".join(block.split(".")[-2:])


def _matrix(title: str, cells: dict[tuple[str, str], float]) -> Matrix | None:
    inside = {place: value for place, value in cells.items() if place[0]}
    if not inside:
        return None
    blocks, kinds = (list(dict.fromkeys(place[i] for place in inside)) for i in (0, 1))
    values = np.array([[inside.get((block, kind), np.nan) for kind in kinds] for block in blocks], dtype=np.float64)
    return Matrix(title=title, values=values, rows=tuple(map(short, blocks)), columns=tuple(kinds))
