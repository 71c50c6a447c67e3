"""Where frames come from. A source is one file of this package and one row of `SOURCES`."""

import re
from collections.abc import Callable
from pathlib import Path

from vlmquant.video.sources.file import open_video
from vlmquant.video.sources.source import Source

SOURCES: dict[str, Callable[[str, int | None], Source]] = {
    "file": open_video,
}
"""What opens each kind of source: called with the whole name and the number of the picture's stream (None: the best).

A name such as "rtsp://..." is of the kind before the colon; every other name is a "file".
"""

_KIND = re.compile(r"([a-z][a-z0-9+.-]*)://")


def open_source(name: str | Path, stream: int | None = None) -> Source:
    """Open what `name` names and decode its first frame; use it in a `with`.

    Raises VideoError when it does not exist, is of an unknown kind, or holds no picture.
    """
    found = _KIND.match(str(name))
    kind = found[1] if found and found[1] in SOURCES else "file"
    return SOURCES[kind](str(name), stream)
