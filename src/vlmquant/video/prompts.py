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
"""What a picture without the event looks like; the contrast of every event that is not itself one of these."""

ACTIVITY = (
    "a street with people and vehicles",
    "a busy street",
    "a person walking",
    "a car driving",
)
"""The contrast of an event that is one of `BACKGROUNDS`: for "an empty street" the absence is what is looked for."""

_ARTICLES = frozenset({"a", "an", "the"})


def normalized(phrase: str) -> str:
    """Lower case, without articles and punctuation: two phrases that differ in nothing else are the same."""
    return " ".join(word for word in re.findall(r"\w+", phrase.lower()) if word not in _ARTICLES)


def contrast(prompts: tuple[str, ...], negatives: tuple[str, ...]) -> tuple[str, ...]:
    """Return what an event is weighed against: the built-in background and the user's `negatives`.

    An event that equals a background phrase (see `normalized`) is weighed against `ACTIVITY` instead. A phrase that
    is in the event itself is left out.
    """
    own = {normalized(prompt) for prompt in prompts}
    is_background = not own.isdisjoint(map(normalized, BACKGROUNDS))
    built_in = ACTIVITY if is_background else BACKGROUNDS
    return tuple(dict.fromkeys([phrase for phrase in built_in if normalized(phrase) not in own] + list(negatives)))
