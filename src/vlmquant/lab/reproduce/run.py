"""The sources by name."""

from collections.abc import Callable

from vlmquant.errors import DataError, unknown
from vlmquant.lab.reproduce.blip_int8 import blip_int8
from vlmquant.lab.reproduce.dq_clip import dq_clip
from vlmquant.lab.reproduce.event_detection import event_detection
from vlmquant.lab.reproduce.outcome import Reproduction
from vlmquant.lab.reproduce.request import ReproductionRequest
from vlmquant.progress import Track, silent

REPRODUCTIONS: dict[str, Callable[[ReproductionRequest, Track], Reproduction]] = {
    "event-detection": event_detection,
    "blip-int8": blip_int8,
    "dq-clip": dq_clip,
}


def reproduce(source: str, asked: ReproductionRequest, track: Track = silent) -> Reproduction:
    """Run the whole evaluation of `source` on what was `asked`; a run that was killed goes on where it was.

    Raises DataError for an unknown source, and as the source says.
    """
    check_source(source)
    return REPRODUCTIONS[source](asked, track)


def check_source(name: str) -> None:
    """Raise DataError for an unknown source, listing what exists."""
    if name not in REPRODUCTIONS:
        raise unknown(DataError, "source", name, REPRODUCTIONS)
