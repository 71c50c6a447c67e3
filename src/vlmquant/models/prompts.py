"""The built-in calibration texts: ordinary prompts and questions of several lengths over everyday concepts."""

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

BUILTIN_QUESTIONS_NAME = "built-in question list v1"

BUILTIN_QUESTIONS: tuple[str, ...] = (
    "what is in the picture?",
    "what color is it?",
    "how many people are there?",
    "is it day or night?",
    "what is the man doing?",
    "where is the dog?",
    "is there a car in the street?",
    "what is on the left side of the picture?",
    "how many animals are in the photo and what are they doing there?",
    "what is the weather like?",
    "is the bus red or blue?",
    "who is wearing a hat?",
    "what kind of food is on the table in front of the woman?",
    "are the children playing?",
    "why?",
    "which room of the house was this picture most likely taken in?",
)
