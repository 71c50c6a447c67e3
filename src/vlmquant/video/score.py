"""From image embeddings to a probability per event."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmquant.errors import DataError
from vlmquant.models.spec import Encoder, FloatArray
from vlmquant.text import encodable
from vlmquant.video.events import EventRule
from vlmquant.video.prompts import TEMPLATES, contrast, normalized


@dataclass(frozen=True)
class EventQuery:
    """An event asked for in plain words.

    `prompts` are phrases for the same event ("a person walking", "a pedestrian"), `negatives` what it must not be
    taken for, `rule` how its scores become events (None: as for all). Raises DataError when a text is empty or
    not UTF-8, or is both a prompt and a negative.
    """

    name: str
    prompts: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    rule: EventRule | None = None

    def __post_init__(self) -> None:
        if not self.prompts:
            raise DataError(f"event {self.name!r} has no prompt; give at least one phrase")
        for text in (self.name, *self.prompts, *self.negatives):
            if encodable(text) != text:
                raise DataError(f"the text {encodable(text)!r} of an event is not UTF-8; type it in a UTF-8 terminal")
            if not normalized(text):
                raise DataError(f"event {self.name!r} has the text {text!r}, which has no words; expected a phrase")
        for negative in self.negatives:
            if normalized(negative) in map(normalized, self.prompts):
                raise DataError(f"{negative!r} is both a prompt and a negative of event {self.name!r}; remove one")
        if not self.contrast:
            raise DataError(f"event {self.name!r} names every built-in contrast phrase; give it a negative")

    @classmethod
    def from_text(cls, text: str, negatives: Sequence[str] = ()) -> "EventQuery":
        """Return the query whose name and only prompt are `text`."""
        return cls(text, (text,), tuple(negatives))

    @property
    def contrast(self) -> tuple[str, ...]:
        """The phrases that the event is weighed against."""
        return contrast(self.prompts, self.negatives)


def check_names(queries: Sequence[EventQuery]) -> None:
    """Raise DataError when there is no query, or two have the same name."""
    names = [query.name for query in queries]
    if not names:
        raise DataError("no event to look for; give at least one, such as 'a person walking'")
    if len(set(names)) < len(names):
        raise DataError(f"event names must differ, got {names}")


class Scorer:
    """Scores images against events; every text is embedded once, here in the constructor.

    With s the encoder's logit scale, c(x) the cosine of the image and phrase x, P the event's prompts and N its
    contrast, the probability is

        p = sigmoid(lme_{x in P} s c(x) - lme_{x in N} s c(x)),    lme z = log(mean(exp z)),

    the two-class softmax between the event and its contrast. The mean in `lme` keeps p = 1/2 for an image that is
    equally near to every phrase, however many phrases each side has. A phrase is embedded as the normalized mean of
    its `TEMPLATES`.

    Raises DataError when there is no query or two have the same name.
    """

    def __init__(self, encoder: Encoder, queries: Sequence[EventQuery]) -> None:
        check_names(queries)
        self.queries = tuple(queries)
        self.logit_scale = encoder.logit_scale
        phrases = list(dict.fromkeys(text for query in queries for text in (*query.prompts, *query.contrast)))
        row = {phrase: index for index, phrase in enumerate(phrases)}
        self._phrases = _embed(encoder, phrases)
        self._sides = [
            ([row[text] for text in query.prompts], [row[text] for text in query.contrast]) for query in queries
        ]

    @property
    def names(self) -> tuple[str, ...]:
        """The events' names, in the order of the columns of `scores`."""
        return tuple(query.name for query in self.queries)

    def scores(self, embeddings: FloatArray) -> FloatArray:
        """Return (n, events) float32 probabilities for (n, d) float32 image embeddings of unit length."""
        logits = self.logit_scale * (np.asarray(embeddings, dtype=np.float64) @ self._phrases.T)
        margins = [
            _log_mean_exp(logits[:, prompts]) - _log_mean_exp(logits[:, others]) for prompts, others in self._sides
        ]
        return np.asarray(_sigmoid(np.stack(margins, axis=1)), dtype=np.float32)


def _embed(encoder: Encoder, phrases: Sequence[str]) -> NDArray[np.float64]:
    """Return (phrases, d) unit rows: the mean over the templates, normalized."""
    texts = [template.format(phrase) for phrase in phrases for template in TEMPLATES]
    rows = np.asarray(encoder.encode_texts(texts), dtype=np.float64).reshape(len(phrases), len(TEMPLATES), -1)
    means = rows.mean(axis=1)
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True))


def _log_mean_exp(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    highest = logits.max(axis=1)
    return np.asarray(highest + np.log(np.exp(logits - highest[:, None]).mean(axis=1)))


def _sigmoid(margins: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((1 + np.tanh(margins / 2)) / 2)  # no overflow on either side
