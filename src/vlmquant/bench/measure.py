"""Arithmetic of the bench: pure functions of latencies and folders."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Ratio:
    """How many times faster than the baseline: the median over the rounds, and the slowest and fastest round."""

    median: float
    lowest: float
    highest: float


def median(values: Sequence[float]) -> float:
    """Return the median of at least one value. Raises ValueError for none."""
    return quantile(values, 0.5)


def quantile(values: Sequence[float], q: float) -> float:
    """Return the `q` quantile (0..1) of at least one value, linear between neighbours. Raises ValueError for none."""
    if not values:
        raise ValueError("expected at least one latency")
    return float(np.quantile(np.asarray(values, dtype=np.float64), q))


def paired_ratio(baseline_ms: Sequence[float], latencies_ms: Sequence[float]) -> Ratio:
    """Return the speed-up over the baseline, round by round, so that a slow spell of the machine hits both sides.

    Both hold one latency per round, in the order of the rounds. Raises ValueError when their lengths differ or are 0.
    """
    if len(baseline_ms) != len(latencies_ms):
        raise ValueError(f"cannot pair {len(baseline_ms)} rounds of the baseline with {len(latencies_ms)}")
    ratios = [baseline / latency for baseline, latency in zip(baseline_ms, latencies_ms, strict=True)]
    return Ratio(median(ratios), min(ratios), max(ratios))


def items_per_second(batch: int, latency_ms: float) -> float:
    """Return how many images or texts a second pass when a batch takes `latency_ms`."""
    return batch * 1000.0 / latency_ms


def bytes_on_disk(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder and below. Raises FileNotFoundError."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size
