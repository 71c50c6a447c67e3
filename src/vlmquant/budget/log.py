"""What a search under a budget tried and why it ended as it did; part of the bundle as `search.json`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vlmquant.errors import BudgetError

SEARCH = "search.json"
SCHEMA = 1

Rule = Literal["point estimate", "upper limit"]


@dataclass(frozen=True, kw_only=True)
class Drop:
    """By how many points (percent) a candidate is worse than the float model, with the paired 95 % interval.

    Negative where it is better. Both answered the same samples. `metric` is the worst one where a task
    has several (both directions of retrieval, both towers' cosines). A point of a score that is not a share (CIDEr) is
    a hundredth.
    """

    metric: str
    points: float
    low: float
    high: float
    samples: int

    def counted(self, rule: Rule) -> float:
        """Return the figure that must be inside the budget."""
        return self.points if rule == "point estimate" else self.high


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One candidate.

    `latency_ms` is the median for one image plus one text, one at a time, on the search's engine (of a BLIP: from one
    picture, with its question, to the text it writes); `float_layers` how many layers its recipe left float; `seconds`
    what building and scoring took.
    """

    name: str
    recipe: Mapping[str, Any]
    float_layers: int
    drop: Drop
    latency_ms: float
    bytes: int
    inside: bool
    decision: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class SearchLog:
    """A whole search: what was asked, every candidate in the order of trial, and the outcome.

    `rule` says which figure had to be inside `max_drop_points`. `held_out` is the chosen candidate's drop on the half
    of the data that the search never saw, `confirmed` what that half says: "yes" where the same figure is inside
    there too, "no" where even the lower limit of the drop is beyond, else "undecided".
    """

    model: str
    data: str
    data_digest: str
    metric: str
    max_drop_points: float
    rule: Rule
    engine: str
    tried: tuple[Tried, ...]
    chosen: str | None
    held_out: Drop | None
    confirmed: Literal["yes", "no", "undecided"] | None
    seconds: float

    def nearest(self) -> Tried:
        """Return the candidate with the least drop by the rule."""
        return min(self.tried, key=lambda tried: tried.drop.counted(self.rule))

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON-like values."""
        return {"schema": SCHEMA, **asdict(self)}


class NothingInsideError(BudgetError):
    """No candidate stayed inside the budget, or the held-out half contradicts the one that did; `log` has them all."""

    def __init__(self, message: str, log: SearchLog) -> None:
        """Keep the log beside the message."""
        super().__init__(message)
        self.log = log


def confirmation(held_out: Drop, max_drop_points: float, rule: Rule) -> Literal["yes", "no", "undecided"]:
    """Return what the held-out half says about the chosen candidate."""
    if held_out.counted(rule) <= max_drop_points:
        return "yes"
    return "no" if held_out.low > max_drop_points else "undecided"
