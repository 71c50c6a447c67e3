"""The answers a classifier chooses from, and what people's answers make of them as targets."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmquant.data.sets import Question
from vlmquant.errors import DataError
from vlmquant.metrics.vqa import normalise_answer
from vlmquant.models.spec import FloatArray

LEAST_OCCURRENCES = 9
"""MCAN keeps the answers that are the commonest one of more than eight questions: 3,129 on VQA v2."""
SOFT_SCORES = (0.0, 0.3, 0.6, 0.9, 1.0)
"""The target of an answer that 0, 1, 2, 3, 4 or more of ten people gave."""


@dataclass(frozen=True)
class Answers:
    """The answers, normalised, in the order of the classifier's logits."""

    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.texts) < 2 or len(set(self.texts)) != len(self.texts):
            raise DataError(f"a classifier needs at least two different answers, got {len(self.texts)}")

    @classmethod
    def collect(cls, questions: Sequence[Question], least_occurrences: int = LEAST_OCCURRENCES) -> "Answers":
        """Return the answers that are people's commonest one for at least so many questions, commonest first.

        Raises DataError when there are fewer than two.
        """
        counts = Counter(_commonest(question) for question in questions)
        kept = sorted(
            (text for text, count in counts.items() if count >= least_occurrences), key=lambda t: (-counts[t], t)
        )
        if len(kept) < 2:
            raise DataError(
                f"{len(kept)} answers occur at least {least_occurrences} times in {len(questions)} questions; "
                "expected two or more: lower least_occurrences or give more questions"
            )
        return cls(tuple(kept))

    def targets(self, questions: Sequence[Question]) -> FloatArray:
        """Return (n, answers) float32 soft targets in [0, 1]; a row is all zero when no answer of it is known."""
        column = {text: index for index, text in enumerate(self.texts)}
        table = np.zeros((len(questions), len(self.texts)), dtype=np.float32)
        for row, question in zip(table, questions, strict=True):
            for text, count in Counter(map(normalise_answer, question.answers)).items():
                if text in column:
                    row[column[text]] = SOFT_SCORES[min(count, len(SOFT_SCORES) - 1)]
        return table


def _commonest(question: Question) -> str:
    counts = Counter(map(normalise_answer, question.answers))
    return min(counts, key=lambda text: (-counts[text], text))
