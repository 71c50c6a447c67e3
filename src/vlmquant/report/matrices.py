"""Matrices as pictures: similarities of images and texts, confusions, scores over pairs of bit-widths."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

MOST_WRITTEN = 144
"""Matrices of up to so many cells have their numbers written in, where at most `MOST_WRITTEN_PANELS` share a row."""
MOST_WRITTEN_PANELS = 2
FEW = 36
LONGEST_LABEL = 28


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """One matrix to draw: `values` is (rows, columns) float64, NaN for an empty cell.

    Raises ValueError unless there is one label per row and column.
    """

    title: str
    values: NDArray[np.float64]
    rows: tuple[str, ...]
    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.rows), len(self.columns)) or not self.values.size:
            raise ValueError(f"{len(self.rows)} row and {len(self.columns)} column labels for {self.values.shape}")


def side_by_side(matrices: Sequence[Matrix], unit: str, *, rows_are: str, columns_are: str, n: str) -> Figure:
    """Draw matrices of one shape beside each other on one colour scale; `unit` labels the scale, `n` the samples."""
    figure, panels, size = _canvas(matrices)
    low = min(float(np.nanmin(matrix.values)) for matrix in matrices)
    high = max(float(np.nanmax(matrix.values)) for matrix in matrices)
    for axes, matrix in zip(panels, matrices, strict=True):
        image = _draw(axes, matrix, low, high, "viridis", size)
        if len(matrices) <= MOST_WRITTEN_PANELS:
            _write_numbers(axes, matrix.values, image)
        axes.set_xlabel(columns_are)
    panels[0].set_ylabel(rows_are)
    for axes in panels[1:]:
        axes.set_yticklabels([])
    figure.colorbar(image, ax=panels, label=unit, fraction=0.03, pad=0.01)
    figure.suptitle(n, fontsize=10, x=0.01, ha="left")
    return figure


def difference(matrix: Matrix, unit: str, *, rows_are: str, columns_are: str, n: str) -> Figure:
    """Draw one matrix of signed differences; white is none."""
    figure, panels, size = _canvas([matrix])
    reach = float(np.nanmax(np.abs(matrix.values))) or 1.0
    image = _draw(panels[0], matrix, -reach, reach, "RdBu", size)
    _write_numbers(panels[0], matrix.values, image)
    panels[0].set_xlabel(columns_are)
    panels[0].set_ylabel(rows_are)
    figure.colorbar(image, ax=panels, label=unit, fraction=0.03, pad=0.01)
    figure.suptitle(n, fontsize=10, x=0.01, ha="left")
    return figure


def _canvas(matrices: Sequence[Matrix]) -> tuple[Figure, list[Axes], float]:
    if not matrices or len({matrix.values.shape for matrix in matrices}) != 1:
        raise ValueError("expected matrices of one shape, and at least one")
    rows, columns = matrices[0].values.shape
    labels = max(len(_short(label)) for label in matrices[0].columns)
    square = 11 / len(matrices) * 0.72 * rows / columns
    height = min(10.0, min(square, 0.6 * rows) + 0.075 * labels + 1.2)
    figure = Figure(figsize=(11, height), layout="constrained")
    panels = list(figure.subplots(1, len(matrices), squeeze=False)[0])
    return figure, panels, 9 if max(rows, columns) <= 16 else 6


def _draw(axes: Axes, matrix: Matrix, low: float, high: float, colours: str, size: float) -> AxesImage:
    image = axes.imshow(matrix.values, vmin=low, vmax=high, cmap=colours, aspect="auto")
    axes.set_xticks(range(len(matrix.columns)), [_short(label) for label in matrix.columns], rotation=90, fontsize=size)
    axes.set_yticks(range(len(matrix.rows)), [_short(label) for label in matrix.rows], fontsize=size)
    axes.set_title(matrix.title, fontsize=10)
    return image


def _write_numbers(axes: Axes, values: NDArray[np.float64], image: AxesImage) -> None:
    if values.size > MOST_WRITTEN:
        return
    size = 9 if values.size <= FEW else 6.5
    whole = bool(np.all(np.mod(values[np.isfinite(values)], 1) == 0))
    for (row, column), value in np.ndenumerate(values):
        if not np.isfinite(value):
            continue
        red, green, blue, _ = image.to_rgba(np.array([value]))[0]
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
        text = f"{value:.0f}" if whole else f"{value:.2f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color="white" if dark else "black")


def _short(label: str) -> str:
    return label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "\u2026"
