"""The page, pictures and files of a sweep."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from vlmquant.files import write_whole
from vlmquant.lab.sweep.plan import GRID_REASON
from vlmquant.lab.sweep.run import FLOAT_IN_TORCH, Sweep
from vlmquant.output import results
from vlmquant.report.evaluation_tables import points
from vlmquant.report.matrices import side_by_side
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
    Text,
    write_page,
)
from vlmquant.report.pareto import MIB, pareto_figure
from vlmquant.report.plots import png
from vlmquant.report.scores import bits_figure, bits_matrix, has_bit_sweep, metric_name
from vlmquant.report.sweep_tables import (
    bits_group,
    candidates,
    deployed,
    deployed_table,
    every_point_table,
    front,
    grid_group,
    headline_metrics,
    smallest_within,
    title_of,
    to_csv,
    tower_table,
)
from vlmquant.tasks.result import save_json
from vlmquant.text import counted

TOLERATED_POINTS = 0.5


@dataclass(frozen=True)
class Drawn:
    """A chart with the name of its PNG file."""

    name: str
    picture: Picture


VERB = "sweep"
FILES = ("sweep.json", "sweep.csv", "index.html")
"""What is written beside the charts."""
CHARTS = ("pareto-*.png", "bits-*.png", "map-*.png")
"""Patterns of the names of all charts."""


def write_sweep(folder: Path, found: Sweep) -> list[Path]:
    """Write sweep.json, sweep.csv, index.html and the charts as PNG files into `folder`; return their paths."""
    charts = {metric: draw(found, metric) for metric in headline_metrics(found)}
    pictures = {drawn.name: drawn.picture.data for several in charts.values() for drawn in several}
    with results(folder, VERB, [*FILES, *pictures]):
        save_json(folder / "sweep.json", to_dict(found))
        written = [folder / "sweep.json", write_whole(folder / "sweep.csv", to_csv(found))]
        written.append(write_page(folder / "index.html", sweep_page(found, charts)))
        return written + [write_whole(folder / name, data) for name, data in pictures.items()]


def to_dict(found: Sweep) -> dict[str, Any]:
    """Return every number of the sweep, and for each headline metric the keys of the points on the front."""
    fronts = {metric: [point.key for point in front(found, metric)] for metric in headline_metrics(found)}
    content: dict[str, Any] = json.loads(json.dumps({**found.to_dict(), "front": fronts}))
    return content


def draw(found: Sweep, metric: str) -> list[Drawn]:
    """Return the charts of one metric: Pareto plots, score against bits, vision bits x text bits."""
    charts = []
    title = title_of(found, metric)
    if len(deployed(found)) > 1:
        figure = pareto_figure(candidates(found, metric), metric_name(metric))
        caption = (
            f"{title}. Numbers are rows of the table below. Up and left is better; the line joins the points that no "
            "other beats in both axes of its panel. Bars are 95 % intervals of each score alone."
        )
        charts.append(_drawn("pareto", metric, figure, f"{title} over what it costs", caption))
    if has_bit_sweep(group := bits_group(found, metric)):
        caption = "One line per method and choice of towers, each ending at the float model; bars are 95 % intervals."
        charts.append(_drawn("bits", metric, bits_figure([group]), f"{title} against the bits of the weights", caption))
    matrix = bits_matrix(grid_group(found, metric)) if found.plan.grid_bits else None
    if matrix is not None:
        n = f"n = {found.points[0].scores[metric].samples:,}"
        figure = side_by_side([matrix], "score (%)", rows_are="image tower", columns_are="text tower", n=n)
        caption = "The vanilla recipe at each width, weights and activations alike, each tower on its own."
        charts.append(_drawn("map", metric, figure, f"{title} over the bits of both towers", caption))
    return charts


def sweep_page(found: Sweep, charts: dict[str, list[Drawn]]) -> Page:
    """Return the page."""
    blocks: list[Block] = [*_notices(found), _key_figures(found)]
    for metric, drawn in charts.items():
        named = {one.name.partition("-")[0]: one.picture for one in drawn}
        several = f": {metric_name(metric)}" if len(charts) > 1 else ""
        if "pareto" in named:
            blocks += [Heading(f"Size, speed and score{several}"), named["pareto"], deployed_table(found, metric)]
        if (table := tower_table(found, metric)) is not None:
            blocks += [Heading(f"Which tower{several}"), table]
        if "bits" in named or "map" in named:
            blocks += [Heading(f"How many bits{several}"), *(named[key] for key in ("bits", "map") if key in named)]
        blocks.append(Details(f"Every point{several}", [every_point_table(found, metric)]))
    blocks += [Heading("How this was measured"), *_method(found)]
    return Page(
        title=f"{found.model}: {len(found.points) - 1} ways to quantize it",
        subtitle=f"{', '.join(found.protocols)} on {found.data['name']}, {counted(found.data['images'], 'picture')}.",
        blocks=blocks,
    )


def _drawn(kind: str, metric: str, figure: Figure, words: str, caption: str) -> Drawn:
    return Drawn(f"{kind}-{metric.replace('_', '-')}.png", Picture(png(figure), alt=words, caption=caption))


def _notices(found: Sweep) -> list[Block]:
    lines = []
    if found.random_weights:
        lines.append("The weights of this checkpoint are random: sizes and speeds mean something, scores nothing.")
    if found.data["problems"]:
        left_out = counted(found.data["problems"], "entry", "entries")
        lines.append(f"Not usable and in no score: {left_out} of {found.data['name']}.")
    if not found.latencies:
        lines.append("Nothing was timed (0 rounds).")
    if any(latency.disturbed for raced in found.latencies.values() for latency in raced.values()):
        lines.append(
            "The machine was busy with other work while the latencies were measured, so they say little; sweep again "
            "when it is quiet: only they are measured again."
        )
    return [Notice("Read this first", lines)] if lines else []


def _key_figures(found: Sweep) -> KeyFigures:
    figures = []
    for metric in headline_metrics(found):
        score = found.points[0].scores[metric]
        note = f"{title_of(found, metric)}, n = {score.samples:,}"
        figures.append(KeyFigure("Float score", f"{100 * score.score.estimate:.2f} %", note))
        chosen = smallest_within(found, metric, TOLERATED_POINTS)
        if chosen is not None and chosen.bytes_on_disk is not None:
            lost = chosen.scores[metric].difference
            interval = f"{points(lost.low)} to {points(lost.high)}"
            note = (
                f"{chosen.recipe}, {chosen.place}: {points(lost.estimate)} points of {metric_name(metric)} ({interval})"
            )
            label = f"Smallest that lost {TOLERATED_POINTS:g} points at most"
            figures.append(KeyFigure(label, f"{chosen.bytes_on_disk / MIB:.1f} MiB", note))
    return KeyFigures(figures)


def _method(found: Sweep) -> list[Block]:
    calibration = found.calibration
    measured = (
        "nothing"
        if calibration is None
        else (f"{calibration['images_from']}; {calibration['texts']} texts of {calibration['texts_from']}")
    )
    simulated = {point.recipe: point.why_simulated for point in found.points if point.why_simulated}
    reasons: dict[str, list[str]] = {}
    for recipe, reason in simulated.items():
        if " + " not in recipe:
            reasons.setdefault(reason, []).append(recipe)
    machine = found.environment
    facts = [
        (
            "Data",
            f"{found.data['name']}, {counted(found.data['images'], 'picture')}, digest {found.data['digest'][:12]}",
        ),
        *((f"Protocol of {task}", signature) for task, signature in found.protocols.items()),
        ("Weights", f"sha256 {found.weights_sha256[:12]}"),
        ("Calibrated on", measured),
        *(("Warning", warning) for warning in (calibration or {}).get("warnings", ())),
        ("Machine", f"{machine.cpu_model}, {machine.cores} cores, load {machine.load_average}"),
    ]
    blocks: list[Block] = [Facts(facts)]
    for reason, recipes in reasons.items():
        what = "" if reason == GRID_REASON else "no file runs it, so it has neither size nor latency: "
        blocks.append(Text(f"Simulated in torch: {', '.join(recipes)}; {what}{reason}."))
    if found.latencies:
        timing = found.timing
        images = found.latencies["image"]
        torch = images.get(FLOAT_IN_TORCH)
        beside = (
            ""
            if torch is None or torch.median_ms is None
            else f"; the float image tower in torch: {torch.median_ms:.2f} ms"
        )
        blocks.append(
            Text(
                f"Latency: median of one image at a time, {timing.rounds} rounds of {timing.iterations} on "
                f"{counted(timing.threads, 'thread')}, every tower in its own process, the rounds of all alternated "
                f"in one race. "
                f"A float tower is timed as a float32 graph on {images['float'].runner.removesuffix('-fp32')}{beside}."
            )
        )
        failed = [f"{name} ({one.reason})" for name, one in images.items() if one.reason is not None]
        if failed:
            blocks.append(Text(f"Not timed: {'; '.join(failed)}."))
    blocks.append(
        Text(
            "Sizes are bytes on disk of everything the model needs to run: both graphs, tokenizer and preprocessing. "
            "Float embeddings come from the checkpoint in torch. Each tower was encoded once per precision; a pair of "
            "precisions is a product of their embeddings."
        )
    )
    return blocks
