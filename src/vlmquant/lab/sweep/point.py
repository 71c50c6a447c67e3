"""One finished point of a sweep, and the folder that keeps them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlmquant.errors import DataError
from vlmquant.lab.sweep.plan import FLOAT, Bits
from vlmquant.metrics.intervals import Interval
from vlmquant.tasks.result import save_json

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Score:
    """One metric, a rate in [0, 1] with its own 95 % interval, and how it differs from float on the same samples.

    `difference` is quantized minus float with the 95 % interval of the paired difference, `p_value` McNemar's,
    `agreement` the share of equal answers; for the float point itself 0, 1 and 1.
    """

    task: str
    score: Interval
    difference: Interval
    p_value: float
    losses: int
    gains: int
    agreement: float
    samples: int


@dataclass(frozen=True, kw_only=True)
class Point:
    """One pair of precisions with what it scored.

    `bits` and `runs_on` have one entry per tower; `runs_on` is an engine, "torch" or "simulation". `why_simulated`
    is empty for what runs on an engine. `bytes_on_disk` is everything that the pair needs to run, None where a tower
    is simulated, and for float beside nothing but simulations. `scores` are by metric; `fidelity` holds means over the
    data: image_cosine, text_cosine, rank_agreement (Spearman's rho of each picture's ranking of the texts) and
    top1_agreement.
    """

    key: str
    image: str
    text: str
    bits: Mapping[str, Bits]
    runs_on: Mapping[str, str]
    why_simulated: str
    bytes_on_disk: int | None
    scores: Mapping[str, Score]
    fidelity: Mapping[str, float]
    seconds: float

    @property
    def is_float(self) -> bool:
        """Whether this is the float model."""
        return self.image == self.text == FLOAT

    @property
    def recipe(self) -> str:
        """The recipe of the quantized tower or towers; both names where they differ."""
        named = [name for name in dict.fromkeys((self.image, self.text)) if name != FLOAT]
        return " + ".join(named) or FLOAT

    @property
    def place(self) -> str:
        """Which towers are quantized: "image", "text", "both" or "none"."""
        quantized = [name for name, precision in (("image", self.image), ("text", self.text)) if precision != FLOAT]
        return "both" if len(quantized) == 2 else quantized[0] if quantized else "none"

    @property
    def closeness(self) -> float:
        """The mean cosine to the float embeddings, of the tower that moved more."""
        return min(self.fidelity["image_cosine"], self.fidelity["text_cosine"])

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Point":
        """Read what `dataclasses.asdict` gives. Raises KeyError and TypeError for anything else."""
        bits = {tower: (int(weights), int(activations)) for tower, (weights, activations) in values["bits"].items()}
        scores = {metric: _score(score) for metric, score in values["scores"].items()}
        return cls(**{**values, "bits": bits, "scores": scores})


def _score(values: Mapping[str, Any]) -> Score:
    intervals = {name: Interval(**values[name]) for name in ("score", "difference")}
    return Score(**{**values, **intervals})


@dataclass(frozen=True)
class PointStore:
    """A folder with one JSON file per finished point; a file appears whole or not at all."""

    folder: Path

    def get(self, key: str) -> Point | None:
        """Return the point of this key, None when it is not finished. Raises DataError naming a damaged file."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return Point.from_dict(content["point"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is not a finished point ({error!r}); delete it and sweep again") from error

    def put(self, point: Point) -> None:
        """Keep a point under its key."""
        save_json(self._path(point.key), {"schema": SCHEMA, "point": asdict(point)})

    def _path(self, key: str) -> Path:
        return self.folder / f"{key[:32]}.json"
