"""VQA accuracy, with the rule that was used said by name, because the rules in use differ by many points."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vlmquant.errors import DataError, unknown

RULES = {
    "official-2021": "the code of the VQA challenge since 2021: where the people do not all agree, both sides are "
    "normalised alike; where they do, nothing is",
    "legacy": "the copy in MCAN and LAVIS: the prediction is always normalised, the people's answers lose only their "
    "punctuation, and only where they do not all agree",
}

ENOUGH = 3
"""An answer that three other people gave is fully right."""

NUMBERS = {
    word: str(value)
    for value, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    )
}
NUMBERS["none"] = "0"
ARTICLES = ("a", "an", "the")

_CONTRACTED = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've"
    " he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't"
    " not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll"
    " somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd"
    " there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll"
    " what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's"
    " won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've"
)


def _misspellings(words: Sequence[str]) -> dict[str, str]:
    """Map every way of leaving one apostrophe out to the right spelling."""
    return {
        word[:place] + word[place + 1 :]: word
        for word in words
        for place, character in enumerate(word)
        if character == "'"
    }


CONTRACTIONS = _misspellings(_CONTRACTED.split())
# The challenge's own slips are part of its metric.
CONTRACTIONS["somebody'd"] = "somebodyd"

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGITS_AROUND_COMMA = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
_MOST_FULL_STOPS = 32
"""The challenge's code removes so many in one answer: it passes the flag re.UNICODE where a count is expected."""


def vqa_accuracy(
    answers: Sequence[str], people: Sequence[Sequence[str]], rule: str = "official-2021"
) -> NDArray[np.float64]:
    """Return the (n,) accuracy, in [0, 1], of one answer to each of n questions; the score is 100 times their mean.

    `people[i]` holds the answers that people gave to question i, usually ten. An answer is worth min(matches / 3, 1)
    against the others when each person is left out in turn, on average: 0, 0.3, 0.6, 0.9, 1 for 0 to 4 matches in ten.
    `rule` is a name in `RULES`. Every person counts once, as with the unique `answer_id` of VQA v2.
    Raises DataError for an unknown rule, unequal numbers, or a question that nobody answered.
    Source: Antol et al., ICCV 2015; GT-Vision-Lab/VQA vqaEval.py and the copy in MILVLG/mcan-vqa.
    """
    if rule not in RULES:
        raise unknown(DataError, "VQA accuracy rule", rule, RULES)
    if len(answers) != len(people):
        raise DataError(f"{len(answers)} answers to {len(people)} questions; expected one answer to each")
    normalise = _normalise_official if rule == "official-2021" else _normalise_legacy
    return np.array([_accuracy(*normalise(answer, own)) for answer, own in zip(answers, people, strict=True)])


def normalise_answer(answer: str) -> str:
    """Return the answer in lower case without punctuation and articles, numbers to ten as digits."""
    return _normalise_words(strip_punctuation(_flatten(answer)))


def strip_punctuation(answer: str) -> str:
    """Return the answer with punctuation removed where it touches a space, else turned into a space.

    One comma between digits makes all punctuation go without a space, and a full stop goes unless a digit follows.
    """
    comma_in_number = _DIGITS_AROUND_COMMA.search(answer) is not None
    stripped = answer
    for mark in _PUNCTUATION:
        touches_space = mark + " " in answer or " " + mark in answer
        stripped = stripped.replace(mark, "" if touches_space or comma_in_number else " ")
    return _FULL_STOP.sub("", stripped, count=_MOST_FULL_STOPS)


def _flatten(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()


def _normalise_words(answer: str) -> str:
    words = (NUMBERS.get(word, word) for word in answer.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def _normalise_official(answer: str, people: Sequence[str]) -> tuple[str, list[str]]:
    flat = [_flatten(other) for other in people]
    if len(set(flat)) == 1:
        return _flatten(answer), flat
    return normalise_answer(answer), [normalise_answer(other) for other in flat]


def _normalise_legacy(answer: str, people: Sequence[str]) -> tuple[str, list[str]]:
    agreed = len(set(people)) == 1
    return normalise_answer(answer), [other if agreed else strip_punctuation(other) for other in people]


def _accuracy(answer: str, people: Sequence[str]) -> float:
    if not people:
        raise DataError("a question has no answers by people to compare with; drop it or repair its annotation")
    matches = people.count(answer)
    others = len(people) - matches
    return (matches * min(matches - 1, ENOUGH) + others * min(matches, ENOUGH)) / (ENOUGH * len(people))
