"""Which data the user chose: a folder or a data set of the hub, and how much of it."""

from dataclasses import dataclass
from pathlib import Path

from vlmquant.data.hub import read_hub
from vlmquant.data.reader import read
from vlmquant.data.sets import MAX_PROBLEM_SHARE, ImageSet
from vlmquant.progress import Track, silent

HUB_PREFIX = "hub:"


@dataclass(frozen=True, kw_only=True)
class DataChoice:
    """A folder that `vlmquant.data.reader.read` knows, or "hub:NAME" for a labelled set of the Hugging Face hub.

    `split` is one of the data's; None takes `usual_split` where they have several. Above `max_problem_share` (0 to 1)
    of unusable entries the data are refused.
    """

    source: str | Path
    split: str | None = None
    usual_split: str = "test"
    max_problem_share: float = MAX_PROBLEM_SHARE

    def read(self, track: Track = silent) -> ImageSet:
        """Return the data. Raises DataError where they cannot be used."""
        if str(self.source).startswith(HUB_PREFIX):
            name = str(self.source).removeprefix(HUB_PREFIX)
            return read_hub(
                name, split=self.split or self.usual_split, max_problem_share=self.max_problem_share, track=track
            )
        return read(
            Path(self.source),
            split=self.split,
            usual_split=self.usual_split,
            max_problem_share=self.max_problem_share,
            track=track,
        )
