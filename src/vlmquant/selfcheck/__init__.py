"""Known-answer checks of the scores that vlmquant prints: offline, in seconds, on the user's own machine.

The captions, questions and answers in `fixtures/` were written for this project; their expected values were computed
with the official scorers: coco-caption with the Java PTBTokenizer 3.4.1, the VQA challenge's code of 2021, and MCAN's
copy of the older one.
"""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from vlmquant.progress import Track, silent


@dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison. `measured` and `expected` are as a person reads them; `ok` says whether they are the same."""

    name: str
    measured: str
    expected: str
    ok: bool


@dataclass(frozen=True)
class SelfCheck:
    """All comparisons of one run."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Return whether every check passed."""
        return all(check.ok for check in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """Return the checks that did not pass."""
        return tuple(check for check in self.checks if not check.ok)


def run_selfcheck(track: Track = silent) -> SelfCheck:
    """Compute every score with a known answer and compare; needs no network and no model."""
    groups: tuple[Callable[[], list[Check]], ...] = (
        check_tokenizer,
        check_captions_from_tokens,
        check_captions_from_text,
        check_vqa_accuracy,
        check_vqa_normalisation,
        check_ranking,
        check_mcnemar,
    )
    return SelfCheck(tuple(check for group in track(groups, "self-check") for check in group()))
