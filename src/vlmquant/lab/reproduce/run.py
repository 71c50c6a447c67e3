"""The sources by name."""

from collections.abc import Callable

from vlmquant.errors import DataError, unknown
from vlmquant.files import alone
from vlmquant.lab.reproduce.blip_int8.evaluation import blip_int8
from vlmquant.lab.reproduce.dq_clip.evaluation import dq_clip
from vlmquant.lab.reproduce.event_detection.evaluation import event_detection
from vlmquant.lab.reproduce.outcome import Reproduction
from vlmquant.lab.reproduce.ptq4clip.evaluation import ptq4clip
from vlmquant.lab.reproduce.request import ReproductionRequest
from vlmquant.progress import Track, silent

REPRODUCTIONS: dict[str, Callable[[ReproductionRequest, Track], Reproduction]] = {
    "event-detection": event_detection,
    "dq-clip": dq_clip,
    "ptq4clip": ptq4clip,
    "blip-int8": blip_int8,
}


def reproduce(source: str, asked: ReproductionRequest, track: Track = silent) -> Reproduction:
    """Run the whole evaluation of `source` on what was `asked`; a run that was killed goes on where it was.

    Raises DataError for an unknown source, VlmQuantError where another run is in the same folder, as each would spoil
    the other's times, and what the source raises.
    """
    check_source(source)
    for option, value in (("language model", asked.language_model), ("answer network", asked.answer_network)):
        if value is not None and source != "ptq4clip":
            raise DataError(f"{source} has no use for a {option}, only ptq4clip has; leave {str(value)!r} out")
    output = asked.output.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    import torch

    torch.set_num_threads(asked.used_threads)  # of what is quantized and simulated here; contenders set their own
    with alone(output):
        return REPRODUCTIONS[source](asked, track)


def check_source(name: str) -> None:
    """Raise DataError for an unknown source, listing what exists."""
    if name not in REPRODUCTIONS:
        raise unknown(DataError, "source", name, REPRODUCTIONS)
