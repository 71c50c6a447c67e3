"""The built-in calibration texts: ordinary prompts of several lengths over everyday concepts."""

BUILTIN_PROMPTS_NAME = "built-in prompt list v1"

_TEMPLATES = (
    "{}",
    "a photo of {}.",
    "a blurry photo of {} at night.",
    "a street scene with {} in the rain.",
    "a picture of {} next to a tall building on a sunny day, seen from far away.",
)
_CONCEPTS = (
    "a person walking",
    "a man riding a bicycle",
    "two children playing in a park",
    "a crowded street",
    "an empty road",
    "a red car",
    "a bus at a bus stop",
    "a truck on the highway",
    "a dog running across the grass",
    "a cat on a sofa",
    "a plate of food on a wooden table",
    "an airplane in the sky",
    "a ship on the sea",
    "a horse in a field",
    "a bird on a branch",
    "a group of people at a market",
)

BUILTIN_PROMPTS: tuple[str, ...] = tuple(template.format(concept) for concept in _CONCEPTS for template in _TEMPLATES)
