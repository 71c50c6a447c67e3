"""What may be lost, taken and waited for."""

from dataclasses import dataclass

from vlmquant.budget.log import Drop, Rule
from vlmquant.errors import DataError


@dataclass(frozen=True)
class Budget:
    """At most `max_drop_points` (percentage points) of `metric` lost; None takes what the data allow.

    The point estimate of the drop must be inside, or with `confident` the upper limit of its 95 % interval. A bundle
    may take at most `max_bytes`, and `max_latency_ms` on the search's engine for one image plus one text (of a BLIP:
    from one picture to its text), when given. Raises DataError for numbers that nothing can be inside of.
    """

    max_drop_points: float
    metric: str | None = None
    confident: bool = False
    max_bytes: int | None = None
    max_latency_ms: float | None = None
    templates: str = "openai-7"

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop_points <= 100:
            raise DataError(
                f"the largest drop must be between 0 and 100 percentage points, got {self.max_drop_points:g}"
            )
        if self.max_latency_ms is not None and not self.max_latency_ms > 0:
            raise DataError(f"the largest latency must be above 0 ms, got {self.max_latency_ms:g}")
        if self.max_bytes is not None and self.max_bytes < 1:
            raise DataError(f"the largest size must be above 0 bytes, got {self.max_bytes}")

    @property
    def rule(self) -> Rule:
        """Which figure must be inside."""
        return "upper limit" if self.confident else "point estimate"

    def refusal(self, drop: Drop, total_bytes: int, latency_ms: float) -> str | None:
        """Return why a candidate is not inside, None where it is."""
        counted = drop.counted(self.rule)
        if counted > self.max_drop_points:
            return f"beyond: the {self.rule} {counted:.2f} is more than {self.max_drop_points:g}"
        if self.max_bytes is not None and total_bytes > self.max_bytes:
            return f"too large: {total_bytes / 1e6:.1f} MB are more than {self.max_bytes / 1e6:.1f}"
        if self.max_latency_ms is not None and latency_ms > self.max_latency_ms:
            return f"too slow: {latency_ms:.1f} ms are more than {self.max_latency_ms:g}"
        return None
