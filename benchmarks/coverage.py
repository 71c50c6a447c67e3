"""How often the 95 % interval of a paired difference holds the true one, when few answers change.

    python -m benchmarks coverage -o benchmarks/results/coverage.json

Answers that are right or wrong, one a picture: exact, by adding up the probabilities of all numbers of losses and
gains. Five captions a picture, which change together: 2,000 draws a row. "bootstrap" is the percentile bootstrap alone,
"paired" the interval that comparisons give.
"""

import argparse
import math
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import ResultFile, add_output
from vlmquant.metrics.intervals import bootstrap_mean, paired_mean
from vlmquant.progress import bar

METHODS = {"bootstrap": bootstrap_mean, "paired": paired_mean}
EXPECTED_CHANGES = (0.5, 1, 2, 3, 5, 8, 12, 20, 30)
LOSS_SHARES = (0.5, 0.8, 1.0)
PICTURES = (100, 500, 5000)
CAPTIONS, CAPTION_CHANGES, DRAWS = 5, 0.3, 2000
"""A picture that changes has one caption that does, and each of the others with this probability."""
NEGLIGIBLE = 1e-7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output(parser)


def run(arguments: argparse.Namespace) -> None:
    result = ResultFile(arguments.output, {"expected_changes": EXPECTED_CHANGES, "draws": DRAWS})
    conditions = list(product(("one answer", "five captions"), PICTURES, EXPECTED_CHANGES, LOSS_SHARES))
    for design, pictures, changes, losing in bar(conditions, "Coverage"):
        name = f"{design}, {pictures}, {changes:g}, {losing:g}"
        if name not in result.rows:
            covered = exact(pictures, changes, losing) if design == "one answer" else drawn(pictures, changes, losing)
            result.add(
                name,
                {"design": design, "pictures": pictures, "changes": changes, "losing": losing, "coverage": covered},
            )
    rows = list(result.rows.values())
    least = {method: min(row["coverage"][method] for row in rows) for method in METHODS}
    result.save({"rows": rows, "least": least})
    print(least)


def exact(pictures: int, changes: float, losing: float) -> dict[str, float]:
    """Return the coverage of each method where a picture gets worse or better with fixed probabilities."""
    rates = changes / pictures * np.array([losing, 1 - losing])
    truth = float(rates[1] - rates[0])
    covered = dict.fromkeys(METHODS, 0.0)
    for losses, gains, probability in outcomes(pictures, rates):
        for method, (low, high) in bounds(pictures, losses, gains).items():
            covered[method] += probability * (low <= truth <= high)
    return covered


def outcomes(pictures: int, rates: NDArray[np.float64]) -> Iterator[tuple[int, int, float]]:
    """Yield the numbers of losses and gains that are not negligible, each with its probability."""
    limits = [int(pictures * rate + 8 * math.sqrt(pictures * rate) + 8) if rate else 0 for rate in rates]
    for losses, gains in product(*(range(min(limit, pictures) + 1) for limit in limits)):
        probability = _multinomial(pictures, (losses, gains), rates)
        if probability > NEGLIGIBLE:
            yield losses, gains, probability


@cache
def bounds(pictures: int, losses: int, gains: int) -> dict[str, tuple[float, float]]:
    """Return each method's interval."""
    differences = np.zeros(pictures)
    differences[:losses], differences[losses : losses + gains] = -1.0, 1.0
    found = {method: interval(differences, np.arange(pictures)) for method, interval in METHODS.items()}
    return {method: (one.low, one.high) for method, one in found.items()}


def drawn(pictures: int, changes: float, losing: float) -> dict[str, float]:
    """Return the coverage of each method where the captions of a picture change together."""
    random = np.random.default_rng(0)
    clusters = np.repeat(np.arange(pictures), CAPTIONS)
    of_changed = (1 + (CAPTIONS - 1) * CAPTION_CHANGES) / CAPTIONS
    truth = changes / pictures * (1 - 2 * losing) * of_changed
    covered = dict.fromkeys(METHODS, 0)
    for run in range(DRAWS):
        changed = random.random(pictures) < changes / pictures
        sign = np.where(random.random(pictures) < losing, -1.0, 1.0) * changed
        captions = random.random((pictures, CAPTIONS)) < CAPTION_CHANGES
        captions[:, 0] = True
        differences = (sign[:, None] * captions).reshape(-1)
        for method, interval in METHODS.items():
            found = interval(differences, clusters, run)
            covered[method] += found.low <= truth <= found.high
    return {method: number / DRAWS for method, number in covered.items()}


def _multinomial(pictures: int, counts: tuple[int, int], rates: NDArray[np.float64]) -> float:
    rest = pictures - sum(counts)
    if rest < 0:
        return 0.0
    parts: list[tuple[int, Any]] = [*zip(counts, rates, strict=True), (rest, 1 - rates.sum())]
    logarithm = math.lgamma(pictures + 1)
    for count, rate in parts:
        if count and not rate:
            return 0.0
        logarithm += (count * math.log(rate) if count else 0.0) - math.lgamma(count + 1)
    return math.exp(logarithm)
