"""Tokenizer, captions and questions that the street BLIP is trained on."""

import string
from dataclasses import replace
from pathlib import Path

import numpy as np
from transformers import BertTokenizer

from streetworld.captions import vary_caption
from streetworld.questions import questions
from streetworld.scene import Scene

CONTEXT = 64
QUESTIONS_PER_PICTURE = 3
# Most captions are worded one way, as equally likely wordings would make the most likely one a matter of chance.
STYLE_CHANCES = (0.6, 0.1, 0.1, 0.1, 0.1)
PLAIN_SHARE = 0.7


class Plainly:
    """A source of chance for `vary_caption` that takes the first, plainest wording with a chance of PLAIN_SHARE."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Draw from `rng`."""
        self._rng = rng

    def random(self) -> float:
        """Return a number in [0, 1)."""
        return self._rng.random()

    def integers(self, end: int) -> int:
        """Return a number in [0, end), most often 0."""
        return 0 if self._rng.random() < PLAIN_SHARE else int(self._rng.integers(end))


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """Word a caption that names the actors from left to right, so that the picture decides their order."""
    if not scene.crowded:
        scene = replace(scene, actors=tuple(sorted(scene.actors, key=lambda actor: actor.x)))
    return vary_caption(scene, int(rng.choice(5, p=STYLE_CHANCES)), Plainly(rng)).text


def asked(chosen: list[Scene], rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Return QUESTIONS_PER_PICTURE questions of every scene, scene after scene, and their true answers."""
    files = questions(chosen, int(rng.integers(2**31)))
    rows = zip(files[0]["questions"], files[1]["annotations"], strict=True)
    kept = [(q, a) for q, a in rows if q["question_id"] % 10 < QUESTIONS_PER_PICTURE]
    return [q["question"] for q, _ in kept], [a["multiple_choice_answer"] for _, a in kept]


def make_tokenizer(chosen: list[Scene], rng: np.random.Generator) -> BertTokenizer:
    """Return BERT's WordPiece with every word about the scenes whole, and letters to spell all others with.

    The ids are laid out as BLIP's: BERT's own special tokens first, [DEC] and [ENC] last.
    """
    texts = [vary_caption(scene, style, rng).text for scene in chosen for style in range(5)]
    files = questions(chosen)
    texts += [row["question"] for row in files[0]["questions"]]
    texts += [row["multiple_choice_answer"] for row in files[1]["annotations"]]
    letters = [c for c in string.printable if c.isprintable() and not c.isspace() and not c.isupper()]
    pieces = [*letters, *("##" + c for c in string.ascii_lowercase + string.digits)]
    words = {word for text in set(texts) for word in _words(text)} - set(pieces)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    names = [*special, *pieces, *sorted(words), "[DEC]", "[ENC]"]
    return BertTokenizer(
        vocab={name: index for index, name in enumerate(names)},
        do_lower_case=True,
        bos_token="[DEC]",
        additional_special_tokens=["[ENC]"],
        model_max_length=CONTEXT,
    )


def save_tokenizer(tokenizer: BertTokenizer, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and the vocab.txt that older readers want."""
    # Padding and truncation of the last call are no part of the vocabulary, yet would be stored with it.
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(folder)
    names = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    (folder / "vocab.txt").write_text("".join(name + "\n" for name, _ in names))


def _words(text: str) -> list[str]:
    spaced = "".join(f" {c} " if c in string.punctuation else c for c in text.lower())
    return spaced.split()
