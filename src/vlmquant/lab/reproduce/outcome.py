"""What a reproduction ends in: the source's figures with ours beside them, charts, and what is to be known of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vlmquant.bench.environment import Environment


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure: as the source prints it, ours by its method, ours by the recommended recipe; each "" where none.

    `remark` says where the source's figure does not hold, and why. Rows of one `group` are one table.
    """

    what: str
    group: str = ""
    printed: str = ""
    its_method: str = ""
    ours: str = ""
    remark: str = ""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Lines over one axis: (x, y) of equal length, by name; each axis is linear or logarithmic, x with all its values.

    `n` is what a line is made of where its points are not the samples, as of a histogram.
    """

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    x_scale: Literal["linear", "log"] = "linear"
    y_scale: Literal["linear", "log"] = "linear"
    n: int | None = None


@dataclass(frozen=True, kw_only=True)
class Heatmap:
    """Matrices (rows, columns) beside each other on one colour scale, by name; `unit` is that of their cells."""

    title: str
    unit: str
    rows_are: str
    columns_are: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    panels: Mapping[str, Sequence[Sequence[float]]]


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """One source, run again. `stand_ins` says what stood in for the source's model and data; empty where nothing did.

    `facts` are the circumstances, by name. `computed` steps were computed in this call, of `steps`.
    """

    source: str
    title: str
    stand_ins: tuple[str, ...]
    rows: tuple[Row, ...]
    charts: tuple[Chart | Heatmap, ...]
    notes: tuple[str, ...]
    facts: Mapping[str, str]
    environment: Environment
    computed: int
    steps: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)
