"""How commands print: a table for people, JSON for machines."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vlmquant.cli.options import says_less
from vlmquant.progress import PlainLines, Track, bar, silent
from vlmquant.text import printable

Cell = str | int | float


def console() -> Console:
    """Return a console that is wide enough for our tables where no terminal says how wide it is."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=160)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Print rows under a title; numbers are aligned to the right."""
    listed = [tuple(row) for row in rows]
    drawn = Table(title=_literal(title), title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    for index, column in enumerate(columns):
        numeric = bool(listed) and all(isinstance(row[index], int | float) for row in listed)
        drawn.add_column(_literal(column), justify="right" if numeric else "left")
    for row in listed:
        drawn.add_row(*[f"{cell:.4g}" if isinstance(cell, float) else _literal(str(cell)) for cell in row])
    console().print(drawn)


def line(text: str) -> None:
    """Print text as it is, control characters as escapes."""
    console().print(_literal(text), soft_wrap=True)


def calibration_warnings(calibration: Mapping[str, Any] | None) -> None:
    """Print what is wrong with the inputs that ranges were measured on, as `CalibrationSet.to_dict` has it."""
    for warning in (calibration or {}).get("warnings", ()):
        line(f"warning: {warning}")


def _literal(text: str) -> Text:
    """Return text in which nothing is markup and nothing moves the cursor; lines stay lines."""
    return Text("\n".join(map(printable, text.split("\n"))))


def as_json(value: Any) -> None:
    """Print JSON and nothing else."""
    print(json.dumps(value, indent=2, sort_keys=True))


def tracker(json_output: bool) -> Track:
    """Return a progress bar on a terminal, lines now and then elsewhere, nothing where it is not wanted."""
    if json_output or says_less():
        return silent
    return bar if sys.stderr.isatty() else PlainLines(sys.stderr)
