"""ROUGE-L as coco-caption computes it."""

from collections.abc import Sequence

BETA = 1.2
"""Recall counts BETA squared times as much as precision."""


def rouge_l(candidate: str, references: Sequence[str]) -> float:
    """Return ROUGE-L in [0, 1] of a caption of space-separated tokens.

    The F-measure of the longest common subsequence, where precision and recall are each the best over the references,
    not necessarily of the same one. The corpus score is the mean over captions.
    Source: Lin, ACL workshop 2004; the maxima and beta as in tylin/coco-caption.
    """
    words = candidate.split(" ")
    splits = [reference.split(" ") for reference in references]
    common = [longest_common_subsequence(words, split) for split in splits]
    precision = max(length / len(words) for length in common)
    recall = max(length / len(split) for length, split in zip(common, splits, strict=True))
    if precision == 0.0 or recall == 0.0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Return how many words the two sequences share in the same order, gaps allowed."""
    row = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for column, other in enumerate(second, start=1):
            above = row[column]
            row[column] = diagonal + 1 if word == other else max(above, row[column - 1])
            diagonal = above
    return row[-1]
