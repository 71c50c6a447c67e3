"""The form that every task's result has: metrics with per-sample outcomes behind each, saved and read as JSON."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmquant.errors import DataError
from vlmquant.files import write_whole
from vlmquant.tasks.protocol import Protocol

SCHEMA = 1
CORPUS = "corpus"
"""The entry of `details` that holds scores of the whole corpus, such as BLEU."""


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """One metric, sample by sample; the metric is the mean of `values`.

    `values` is (n,) float64 in [0, 1] (1 right, 0 wrong, between them where a tie decides), `clusters` (n,) the id of
    the picture that a sample belongs to, `answers` what the model said, in words.
    """

    ids: tuple[str, ...]
    clusters: tuple[str, ...]
    values: NDArray[np.float64]
    answers: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.clusters) == len(self.values) == len(self.answers) > 0:
            raise ValueError(
                f"expected as many ids, clusters, values and answers, and at least one, got "
                f"{len(self.ids)}, {len(self.clusters)}, {len(self.values)}, {len(self.answers)}"
            )

    @property
    def mean(self) -> float:
        """Return the metric, in [0, 1]."""
        return math.fsum(self.values) / len(self.values)


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """One model's outcome of one task.

    `details` holds further numbers of the task that JSON can carry, `subject` what ran it: kind, precision, engine,
    hash of the weights, versions.
    """

    model: str
    protocol: Protocol
    outcomes: Mapping[str, Outcomes]
    details: Mapping[str, Any] = field(default_factory=dict)
    subject: Mapping[str, str] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float]:
        """Return every metric by name, in [0, 1]."""
        return {name: outcome.mean for name, outcome in self.outcomes.items()}

    @property
    def all_scores(self) -> dict[str, float]:
        """Return every score by name: the metrics, and what is a score of the whole corpus and no mean over samples."""
        return {**self.details.get(CORPUS, {}), **self.metrics}

    def to_dict(self) -> dict[str, Any]:
        """Return what `save` writes."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "subject": dict(self.subject),
            "signature": str(self.protocol),
            "protocol": {
                "task": self.protocol.task,
                "dataset": self.protocol.dataset,
                "samples": self.protocol.samples,
                "settings": [list(pair) for pair in self.protocol.settings],
                "version": self.protocol.version,
            },
            "metrics": self.metrics,
            "details": dict(self.details),
            "outcomes": {
                name: {
                    "ids": outcome.ids,
                    "clusters": outcome.clusters,
                    "values": outcome.values.tolist(),
                    "answers": outcome.answers,
                }
                for name, outcome in self.outcomes.items()
            },
        }


def save_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON with a trailing newline; the file is there whole or not at all, even after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def save_result(result: TaskResult, path: Path) -> None:
    """Write a result with all its per-sample outcomes."""
    save_json(path, result.to_dict())


def load_result(path: Path) -> TaskResult:
    """Read what `save_result` wrote. Raises DataError for another file or schema."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise DataError(f"{path} has schema {content['schema']}, this version reads {SCHEMA}; evaluate again")
        protocol = content["protocol"]
        return TaskResult(
            model=content["model"],
            protocol=Protocol(
                task=protocol["task"],
                dataset=protocol["dataset"],
                samples=protocol["samples"],
                settings=tuple((name, value) for name, value in protocol["settings"]),
                version=protocol["version"],
            ),
            outcomes={
                name: Outcomes(
                    ids=tuple(outcome["ids"]),
                    clusters=tuple(outcome["clusters"]),
                    values=np.array(outcome["values"], dtype=np.float64),
                    answers=tuple(outcome["answers"]),
                )
                for name, outcome in content["outcomes"].items()
            },
            details=content["details"],
            subject=content["subject"],
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not a result of `vlmquant evaluate`: {error!r}") from error
