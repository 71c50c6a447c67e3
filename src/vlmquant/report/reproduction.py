"""The page of a reproduction: the source's figures with ours beside them, and the charts."""

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from vlmquant import __version__
from vlmquant.files import write_whole
from vlmquant.lab.reproduce.outcome import Chart, Heatmap, Reproduction
from vlmquant.output import results
from vlmquant.report.matrices import Matrix, side_by_side
from vlmquant.report.page import Block, Details, Facts, Heading, Notice, Page, Picture, Table, Text, write_page
from vlmquant.report.plots import plain, png

VERB = "reproduce"
FILES = ("reproduction.json", "index.html")
COLUMNS = ("What", "The source prints", "Its method, here", "static-int8, here", "Remark")
MOST_MARKS = 200


def write_reproduction(folder: Path, found: Reproduction) -> list[Path]:
    """Write reproduction.json and index.html into `folder`; return their paths."""
    with results(folder, VERB, FILES):
        written = write_whole(folder / "reproduction.json", json.dumps(found.to_dict(), indent=1) + "\n")
        return [written, write_page(folder / "index.html", reproduction_page(found))]


def reproduction_page(found: Reproduction) -> Page:
    """Return the page."""
    machine = found.environment
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items() if version)
    facts = [*found.facts.items(), ("Machine", f"{machine.cpu_model}, {machine.cores} cores"), ("Packages", packages)]
    blocks: list[Block] = []
    if found.stand_ins:
        blocks.append(Notice("Stand-ins: the figures here are not of the source's model and data", found.stand_ins))
    blocks += [
        *(block for group, rows in tables(found).items() for block in (Heading(group or "Figures"), _table(rows))),
        Heading("Notes"),
        *(Text(note) for note in found.notes),
        Heading("Charts"),
        *(_picture(chart, found) for chart in found.charts),
        Heading("How this was made"),
        Details("Model, data and machine", [Facts(facts)]),
    ]
    return Page(
        title=f"Reproduced: {found.title}",
        subtitle="on stand-ins" if found.stand_ins else f"{machine.cpu_model}",
        blocks=blocks,
        footer=f"Made by vlmquant {__version__}.",
    )


def tables(found: Reproduction) -> dict[str, list[tuple[str, ...]]]:
    """Return the cells of `COLUMNS`, one row a figure, by group."""
    grouped: dict[str, list[tuple[str, ...]]] = {}
    for row in found.rows:
        cells = (cell or "-" for cell in (row.what, row.printed, row.its_method, row.ours))
        grouped.setdefault(row.group, []).append((*cells, row.remark))
    return grouped


def _table(rows: list[tuple[str, ...]]) -> Table:
    return Table(columns=COLUMNS, rows=rows, caption="A dash: the source or the method has no such figure.")


def chart_figure(chart: Chart) -> Figure:
    """Draw the lines of a chart."""
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, (x, y) in chart.lines.items():
        axes.plot(x, y, marker="." if len(x) <= MOST_MARKS else "", linewidth=1.2, label=name, alpha=0.8)
    if chart.x_scale == "log":
        places = sorted({float(value) for x, _ in chart.lines.values() for value in x})
        axes.set_xscale("log", base=2)
        axes.set_xticks(places, [f"{value:g}" for value in places])
        axes.minorticks_off()
    axes.set_yscale(chart.y_scale)
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    n = max((len(x) for x, _ in chart.lines.values()), default=0) if chart.n is None else chart.n
    axes.set_title(f"{chart.title}, n = {n:,}", loc="left", fontsize=10)
    axes.margins(x=0.01)
    figure.legend(loc="outside upper right", ncols=3, frameon=False, fontsize=9)
    plain(axes)
    return figure


def heatmap_figure(heatmap: Heatmap) -> Figure:
    """Draw the matrices of a heat map."""
    drawn = [
        Matrix(title=name, values=np.asarray(cells, dtype=np.float64), rows=heatmap.rows, columns=heatmap.columns)
        for name, cells in heatmap.panels.items()
    ]
    n = f"n = {len(heatmap.rows)} x {len(heatmap.columns)}"
    return side_by_side(drawn, heatmap.unit, rows_are=heatmap.rows_are, columns_are=heatmap.columns_are, n=n)


def _picture(chart: Chart | Heatmap, found: Reproduction) -> Picture:
    where = "Stand-ins, see above. " if found.stand_ins else ""
    figure = heatmap_figure(chart) if isinstance(chart, Heatmap) else chart_figure(chart)
    names = chart.panels if isinstance(chart, Heatmap) else chart.lines
    return Picture(png(figure), alt=f"{chart.title}: {', '.join(names)}", caption=f"{where}{chart.title}.")
