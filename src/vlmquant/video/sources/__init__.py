"""Where frames come from. A source is one file of this package and one row of `SOURCES`."""

from collections.abc import Callable
from pathlib import Path

from vlmquant.video.sources.file import open_video
from vlmquant.video.sources.source import Source

SOURCES: dict[str, Callable[[str | Path, int | None], Source]] = {
    "file": open_video,
}
"""Each kind of source and what opens it: called with the name and the picture stream asked for (None: the best)."""


def open_source(name: str | Path, stream: int | None = None) -> Source:
    """Open what `name` names and decode its first frame; use it in a `with`.

    Raises VideoError when there is no such source, or it holds no picture.
    """
    return SOURCES["file"](name, stream)
