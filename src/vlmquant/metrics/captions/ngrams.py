"""Counts of word n-grams, which BLEU and CIDEr share."""

from collections import Counter

MAX_N = 4

NGramCounts = Counter[tuple[str, ...]]


def count_ngrams(tokens: str) -> NGramCounts:
    """Return how often each n-gram of 1 to 4 words occurs in a caption of space-separated tokens."""
    words = tokens.split()
    counts: NGramCounts = Counter()
    for n in range(1, MAX_N + 1):
        counts.update(zip(*(words[start:] for start in range(n)), strict=False))
    return counts
