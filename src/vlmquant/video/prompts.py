"""The built-in texts: templates around an event's phrase, and what an event is contrasted with."""

import re

TEMPLATES = (
    "{}",
    "a photo of {}",
    "a video frame of {}",
    "a street scene with {}",
)
"""Averaged into one embedding per phrase, as in Radford et al. 2021 (arXiv 2103.00020), section 3.1.4."""

BACKGROUNDS = (
    "an empty street",
    "an empty road",
    "a quiet street",
    "a street",
    "a place with nothing happening",
)
"""What a picture without the event looks like."""

ACTIVITY = (
    "a person standing",
    "a person walking",
    "a person running",
    "a person riding a bicycle",
    "a crowded street",
    "a parked car",
    "a car driving",
    "a vehicle stopping",
    "a bus driving",
    "a truck driving",
    "a dog sitting",
    "a dog running",
)
"""What else may be going on: without it, everything that moves would look a little like every event."""

_ARTICLES = frozenset({"a", "an", "the"})


def normalized(phrase: str) -> str:
    """Lower case, without articles and punctuation: two phrases that differ in nothing else are the same."""
    return " ".join(word for word in re.findall(r"\w+", phrase.lower()) if word not in _ARTICLES)


def contrast(prompts: tuple[str, ...], negatives: tuple[str, ...]) -> tuple[str, ...]:
    """Return what an event is weighed against: the built-in phrases and the user's `negatives`.

    The built-in phrases are `BACKGROUNDS` and `ACTIVITY` without the event itself (see `normalized`). An event that
    equals a background is weighed against `ACTIVITY` alone: the other backgrounds say the same in other words.
    """
    own = {normalized(prompt) for prompt in prompts}
    is_background = not own.isdisjoint(map(normalized, BACKGROUNDS))
    built_in = ACTIVITY if is_background else (*BACKGROUNDS, *ACTIVITY)
    return tuple(dict.fromkeys([phrase for phrase in built_in if normalized(phrase) not in own] + list(negatives)))
