"""The charts of `dq-clip`: pictures by class texts, weights, and what GELU gives."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vlmquant.data.sets import LabelledImages
from vlmquant.lab.reproduce.dq_clip.tower_scores import TEMPLATE_SETS, TowerRows, class_matrix
from vlmquant.lab.reproduce.dq_clip.towers_worker import DYNAMIC, FLOAT, OURS, TOKENS
from vlmquant.lab.reproduce.outcome import Chart, Heatmap
from vlmquant.tasks.embeddings import unit_rows
from vlmquant.tasks.fidelity import evenly

SHOWN = 20
"""Pictures and classes of a heat map."""


def charts_of(
    title: str, found: Mapping[str, TowerRows], data: LabelledImages, layers: Mapping[str, Any]
) -> tuple[Chart | Heatmap, ...]:
    """Return all charts of one subject; `layers` is what was found of its image tower."""
    return (similarity_map(title, found, data), *distribution_charts(title, layers))


def similarity_map(title: str, found: Mapping[str, TowerRows], data: LabelledImages) -> Heatmap:
    """Return the cosines of a picture of each of some classes with the texts of those classes, by contender."""
    _, firsts = np.unique(data.labels, return_index=True)
    pictures = firsts[evenly(len(firsts), SHOWN)]
    classes = data.labels[pictures]
    panels = {}
    for name in (FLOAT, DYNAMIC, TOKENS, OURS):
        images = unit_rows(found[name].images, data)[pictures]
        panels[name] = (images @ class_matrix(found[name], data, TEMPLATE_SETS[-1])[classes].T).tolist()
    labels = tuple(data.class_names[one] for one in classes)
    return Heatmap(
        title=f"{title}: cosines of a picture of each class with the text of each, both towers in INT8",
        unit="cosine",
        rows_are="picture of",
        columns_are="text",
        rows=labels,
        columns=labels,
        panels=panels,
    )


def distribution_charts(title: str, layers: Mapping[str, Any]) -> tuple[Chart, ...]:
    """Return the histograms of one tower's worst weights and of its GELU outputs, each where there are some."""

    def lines(of: str) -> dict[str, tuple[list[float], list[float]]]:
        return {name: (points["x"], points["y"]) for name, points in layers[of].items()}

    def most(of: str) -> int:
        return max((points["n"] for points in layers[of].values()), default=0)

    charts = (
        Chart(
            title=f"{title}: weights of the layers of the image tower that lose most",
            x_label="weight",
            y_label="share of the weights (%)",
            lines=lines("weights"),
            n=most("weights"),
            y_scale="log",
        ),
        Chart(
            title=f"{title}: what GELU gives to the first, the last and the worst fc2 of the image tower",
            x_label="activation",
            y_label="share of the values (%)",
            lines=lines("activations"),
            n=most("activations"),
            y_scale="log",
        ),
    )
    return tuple(chart for chart in charts if chart.lines)
