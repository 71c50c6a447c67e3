"""What the user wants reproduced, and on what."""

from dataclasses import dataclass
from pathlib import Path

from vlmquant.errors import DataError
from vlmquant.limits import available_cores, check_threads


@dataclass(frozen=True, kw_only=True)
class ReproductionRequest:
    """`data` and `checkpoint` are the user's own; None takes a stand-in that works offline.

    `limit` takes only so many samples: frames, pictures. `rounds` is how often each contender is timed.
    `language_model`, a GPT-2, and `answer_network`, a co-attention network trained on the checkpoint, are for ptq4clip.
    Raises DataError for numbers below 1.
    """

    output: Path
    data: Path | None = None
    checkpoint: str | None = None
    limit: int | None = None
    rounds: int = 3
    threads: int | None = None
    language_model: str | None = None
    answer_network: Path | None = None

    def __post_init__(self) -> None:
        for name in ("limit", "rounds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DataError(f"{name} must be at least 1, got {value}")
        check_threads(self.used_threads)

    @property
    def used_threads(self) -> int:
        """The threads of every contender."""
        return available_cores() if self.threads is None else self.threads
