"""VQA accuracy against the challenge's code of 2021 and against the older copy: 220 questions, 91 answers."""

from collections.abc import Iterator

import numpy as np

from vlmquant.metrics.vqa import RULES, normalise_answer, vqa_accuracy
from vlmquant.selfcheck.result import Check, all_equal, close, load_fixture

DECIMALS = 2
"""The reference rounds percentages to so many decimals."""


def check_vqa_accuracy() -> Iterator[Check]:
    """Compare both rules: every question, the overall score, and each question and answer type."""
    fixture = load_fixture("vqa")
    questions = fixture["questions"]
    for rule in RULES:
        values = vqa_accuracy(
            [question["answer"] for question in questions], [question["people"] for question in questions], rule
        )
        percents = [round(float(value) * 100, DECIMALS) for value in values]
        expected = [question["expected_percent"][rule] for question in questions]
        yield all_equal(f"VQA accuracy {rule}, questions", percents, expected)
        for group, percent in fixture["percent"][rule].items():
            members = [
                group in ("overall", question["question_type"], question["answer_type"]) for question in questions
            ]
            measured = round(100 * float(values[np.array(members)].mean()), DECIMALS)
            yield close(f"VQA accuracy {rule}, {group}", measured, percent, 0.0)


def check_vqa_normalisation() -> Iterator[Check]:
    """Compare normalised answers one by one."""
    cases = load_fixture("vqa")["normalisation"]
    measured = [normalise_answer(case["raw"]) for case in cases]
    yield all_equal("VQA answer normalisation", measured, [case["normalised"] for case in cases])
