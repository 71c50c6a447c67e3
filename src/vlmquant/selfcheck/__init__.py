"""Known-answer checks of the scores that vlmquant prints: offline, in seconds, on the user's own machine.

The captions, questions and answers in `fixtures/` were written for this project; their expected values were computed
with the official scorers: coco-caption with the Java PTBTokenizer 3.4.1, the VQA challenge's code of 2021, and MCAN's
copy of the older one.
"""

from collections.abc import Callable, Iterator

from vlmquant.progress import Track, silent
from vlmquant.selfcheck.answers import check_vqa_accuracy, check_vqa_normalisation
from vlmquant.selfcheck.captions import check_captions_from_text, check_captions_from_tokens, check_tokenizer
from vlmquant.selfcheck.comparison import check_mcnemar, check_paired_interval, check_ranking
from vlmquant.selfcheck.result import Check, SelfCheck

CHECKS: tuple[Callable[[], Iterator[Check]], ...] = (
    check_tokenizer,
    check_captions_from_tokens,
    check_captions_from_text,
    check_vqa_accuracy,
    check_vqa_normalisation,
    check_ranking,
    check_mcnemar,
    check_paired_interval,
)


def run_selfcheck(track: Track = silent) -> SelfCheck:
    """Compute every score with a known answer and compare; needs neither network nor model."""
    return SelfCheck(tuple(result for check in track(CHECKS, "self-check", len(CHECKS)) for result in check()))
