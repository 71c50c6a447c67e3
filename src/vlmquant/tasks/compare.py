"""Two models on the same samples: the difference, how sure it is, and which samples changed."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmquant.errors import DataError, unknown
from vlmquant.metrics.intervals import Interval, mcnemar_p, paired_mean, smallest_detectable_drop
from vlmquant.tasks.result import Outcomes, TaskResult

RULE_OF_THREE = 3.0
"""With n samples and no flip seen, a drop of 3/n cannot be excluded at 95 %."""


class Verdict(StrEnum):
    """What the samples say about a drop of at most `max_drop`."""

    WITHIN = "within"
    BEYOND = "beyond"
    UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True)
class Flips:
    """The ids of the samples whose outcome changed from the reference to the candidate.

    `losses` went from right to wrong, `gains` from wrong to right, `changed_wrong` gave another wrong answer. Where a
    tie makes an outcome fractional, any decrease is a loss. `loss_mass` and `gain_mass` are the sums of the changes
    (equal to the numbers without ties), so that difference * samples == gain_mass - loss_mass.
    """

    losses: tuple[str, ...]
    gains: tuple[str, ...]
    changed_wrong: tuple[str, ...]
    loss_mass: float
    gain_mass: float


@dataclass(frozen=True, kw_only=True)
class Change:
    """One score of a candidate against a reference on the same samples.

    `difference` is candidate minus reference with its paired 95 % interval; `max_drop` the drop that is acceptable, on
    the scale of the score, and None where none was named.
    """

    metric: str
    reference: float
    candidate: float
    difference: Interval
    samples: int
    max_drop: float | None = None
    verdict: Verdict | None = None

    @property
    def relative(self) -> float:
        """Return the difference as a share of the reference's score (0 where that is 0)."""
        return self.difference.estimate / self.reference if self.reference else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON-like values, and `relative`."""
        return {**asdict(self), "relative": self.relative}


@dataclass(frozen=True, kw_only=True)
class Comparison(Change):
    """A change of a metric that is a mean over samples; all rates in [0, 1].

    `p_value` is McNemar's exact two-sided one (over samples, so it takes captions of one picture for independent),
    `smallest_detectable_drop` what these samples would have shown with 80 % power, `agreement` the share of equal
    answers.
    """

    p_value: float
    flips: Flips
    agreement: float
    clusters: int
    smallest_detectable_drop: float


def worst_verdict(changes: Iterable[Change]) -> Verdict | None:
    """Return the worst verdict of all: beyond, then undecided, then within; None without a limit."""
    found = [change.verdict for change in changes]
    return next((v for v in (Verdict.BEYOND, Verdict.UNDECIDED, Verdict.WITHIN) if v in found), None)


def compare(
    candidate: TaskResult, reference: TaskResult, *, max_drop_points: float | None = None, seed: int = 0
) -> tuple[Comparison, ...]:
    """Compare every metric of two results of one protocol.

    `max_drop_points` is the drop in percentage points that is acceptable; without it there is no verdict. The verdict
    is "beyond" when the drop itself is larger, "within" when the whole interval is smaller and there are samples enough
    to have seen such a drop (3 / max_drop pictures), and "undecided" otherwise. Raises DataError where the protocols
    differ.
    """
    candidate.protocol.require_equal(reference.protocol)
    if max_drop_points is not None and not 0 <= max_drop_points <= 100:
        raise DataError(f"the largest drop must be between 0 and 100 percentage points, got {max_drop_points}")
    max_drop = None if max_drop_points is None else max_drop_points / 100
    return tuple(
        compare_outcomes(name, candidate.outcomes[name], reference.outcomes[name], max_drop=max_drop, seed=seed)
        for name in reference.outcomes
    )


def compare_results(candidate: TaskResult, reference: TaskResult, max_drop_points: float | None) -> tuple[Change, ...]:
    """Compare every metric, as a row of `TASKS` does."""
    return compare(candidate, reference, max_drop_points=max_drop_points)


def compare_metric(
    candidate: TaskResult, reference: TaskResult, metric: str, *, max_drop_points: float | None = None
) -> Comparison:
    """Compare one metric by name. Raises DataError for a metric that the task does not have."""
    for comparison in compare(candidate, reference, max_drop_points=max_drop_points):
        if comparison.metric == metric:
            return comparison
    raise unknown(DataError, "metric", metric, reference.outcomes)


def compare_outcomes(
    metric: str, candidate: Outcomes, reference: Outcomes, *, max_drop: float | None = None, seed: int = 0
) -> Comparison:
    """Compare the per-sample outcomes of one metric; `max_drop` is in [0, 1]. Raises DataError for unlike samples."""
    if candidate.ids != reference.ids or candidate.clusters != reference.clusters:
        raise DataError(f"{metric}: the two results are about different samples; evaluate both on the same data")
    differences = candidate.values - reference.values
    _, clusters = np.unique(np.asarray(reference.clusters), return_inverse=True)
    interval = paired_mean(differences, clusters, seed)
    flips = find_flips(candidate, reference)
    same = [a == b for a, b in zip(candidate.answers, reference.answers, strict=True)]
    number_of_clusters = int(clusters.max()) + 1
    return Comparison(
        metric=metric,
        reference=reference.mean,
        candidate=candidate.mean,
        difference=interval,
        p_value=mcnemar_p(len(flips.losses), len(flips.gains)),
        flips=flips,
        agreement=sum(same) / len(same),
        samples=len(differences),
        clusters=number_of_clusters,
        smallest_detectable_drop=smallest_detectable_drop(differences, clusters),
        max_drop=max_drop,
        verdict=None if max_drop is None else judge(interval, max_drop, number_of_clusters),
    )


def find_flips(candidate: Outcomes, reference: Outcomes) -> Flips:
    """Return which samples changed, and how."""
    differences = candidate.values - reference.values
    both_wrong = (candidate.values == 0) & (reference.values == 0)
    other_answer = np.array([a != b for a, b in zip(candidate.answers, reference.answers, strict=True)])
    return Flips(
        losses=_named(reference.ids, differences < 0),
        gains=_named(reference.ids, differences > 0),
        changed_wrong=_named(reference.ids, both_wrong & other_answer),
        loss_mass=float(-differences[differences < 0].sum()),
        gain_mass=float(differences[differences > 0].sum()),
    )


def judge(difference: Interval, max_drop: float, clusters: int) -> Verdict:
    """Return the verdict on a difference with its interval over `clusters` pictures."""
    if difference.estimate < -max_drop:
        return Verdict.BEYOND
    if difference.low >= -max_drop and clusters * max_drop >= RULE_OF_THREE:
        return Verdict.WITHIN
    return Verdict.UNDECIDED


def _named(ids: Sequence[str], chosen: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(name for name, keep in zip(ids, chosen, strict=True) if keep)
