"""The one writer: a captioner, answerer or matcher over graphs (functions from arrays to arrays); no torch here.

The float model, the simulation and every engine session differ only in the functions they put in.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from vlmquant.errors import DataError, ModelError
from vlmquant.models.generate import GenerationOptions, generate
from vlmquant.models.preprocess import preprocess
from vlmquant.models.spec import FloatArray, IdArray, Image, ImageSpec
from vlmquant.models.wordpiece import WordPieceTokenizer

WriterKind: TypeAlias = Literal["captioning", "vqa", "matching"]
States: TypeAlias = Any
"""(n, p, width) float32: an array, or whatever the runner's own functions hand to each other."""


@dataclass(frozen=True, kw_only=True)
class Writer:
    """Implements `Captioner`, `Answerer` or `Matcher`, as `kind` says.

    `graphs` are functions by name, those that the kind uses: "vision" maps pixels (n, 3, height, width) float32 to
    states (n, p, width), "cross" maps states to the decoder's memory, "decoder" is a `DecoderStep`, "question_encoder"
    maps ids (n, t) int64 and states to question states (n, t, width), and "matcher" maps ids and states to logits
    (n, 2) float32. Texts are batched only with texts of their own length, so that no padding leaks into an answer.
    `notes` are what a user must know about how the functions run.
    """

    name: str
    kind: WriterKind
    graphs: Mapping[str, Callable[..., Any]]
    image_spec: ImageSpec
    tokenizer: WordPieceTokenizer
    start_id: int
    end_id: int
    pad_id: int
    options: GenerationOptions
    batch_size: int = 8
    after_batch: Callable[[], None] = lambda: None
    notes: tuple[str, ...] = ()

    def caption(self, images: Sequence[Image], prompt: str = "") -> list[str]:
        """Return one caption per image; each begins with `prompt` where there is one.

        Raises ModelError for a model of another kind, DataError for an image or a prompt that cannot be used.
        """
        start = self._start(prompt)
        return [self.tokenizer.decode([*start, *ids]) for ids in self._caption_ids(images, start)]

    def caption_ids(self, images: Sequence[Image]) -> list[list[int]]:
        """Return the new tokens of each image's caption, up to and with the end token where it was reached."""
        return self._caption_ids(images, self._start(""))

    def answer(self, images: Sequence[Image], questions: Sequence[str]) -> list[str]:
        """Return one answer per pair of an image and a question.

        Raises ModelError for a model of another kind, DataError for an image or a question that cannot be used.
        """
        return [self.tokenizer.decode(ids) for ids in self.answer_ids(images, questions)]

    def answer_ids(self, images: Sequence[Image], questions: Sequence[str]) -> list[list[int]]:
        """Return the new tokens of each answer, up to and with the end token where it was reached."""
        self._check_kind("vqa", "answer questions")
        self._check_length(1)
        answers: dict[int, list[int]] = {}
        for rows, ids in self._equally_long(images, questions):
            states = self.graphs["question_encoder"](ids, self.states([images[row] for row in rows]))
            answers.update(zip(rows, self._decode(states, [self.start_id], len(rows)), strict=True))
            self.after_batch()
        return [answers[row] for row in range(len(questions))]

    def match(self, images: Sequence[Image], texts: Sequence[str]) -> FloatArray:
        """Return (n,) float32, the probability 0 to 1 that each pair of an image and a text matches.

        Raises ModelError for a model of another kind, DataError for an image or a text that cannot be used.
        """
        self._check_kind("matching", "match texts with images")
        probabilities = np.zeros(len(texts), dtype=np.float32)
        for rows, ids in self._equally_long(images, texts):
            logits = self.graphs["matcher"](ids, self.states([images[row] for row in rows]))
            probabilities[rows] = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
            self.after_batch()
        return probabilities

    def states(self, images: Sequence[Image]) -> States:
        """Return the states of `images` as one batch."""
        return self.graphs["vision"](np.stack([preprocess(image, self.image_spec) for image in images]))

    def _caption_ids(self, images: Sequence[Image], start: list[int]) -> list[list[int]]:
        self._check_kind("captioning", "write captions")
        self._check_length(len(start))
        captions: list[list[int]] = []
        for first in range(0, len(images), self.batch_size):
            batch = images[first : first + self.batch_size]
            captions += self._decode(self.states(batch), start, len(batch))
            self.after_batch()
        return captions

    def _start(self, prompt: str) -> list[int]:
        """Return what the decoder reads first: the start token, then the prompt without its [CLS] and [SEP]."""
        return [self.start_id, *(self.tokenizer.encode(prompt)[1:-1] if prompt else [])]

    def _decode(self, states: States, start: list[int], rows: int) -> list[list[int]]:
        ids = np.tile(np.array(start, dtype=np.int64), (rows, 1))
        memory = self.graphs["cross"](states)
        return generate(self.graphs["decoder"], memory, ids, self.end_id, self.pad_id, self.options)

    def _equally_long(self, images: Sequence[Image], texts: Sequence[str]) -> Iterator[tuple[list[int], IdArray]]:
        """Yield the rows of a batch and their ids (n, t), until every text has been in one."""
        if len(images) != len(texts):
            raise DataError(f"{len(images)} images for {len(texts)} texts; expected one image for each text")
        by_length: dict[int, dict[int, list[int]]] = {}
        for row, text in enumerate(texts):
            ids = self.tokenizer.encode(text)
            by_length.setdefault(len(ids), {})[row] = ids
        for group in by_length.values():
            rows = list(group)
            for first in range(0, len(rows), self.batch_size):
                batch = rows[first : first + self.batch_size]
                yield batch, np.array([group[row] for row in batch], dtype=np.int64)

    def _check_kind(self, kind: WriterKind, deed: str) -> None:
        if self.kind != kind:
            raise ModelError(f"{self.name!r} is a BLIP for {self.kind} and cannot {deed}; that takes one for {kind}")

    def _check_length(self, start: int) -> None:
        longest = start + self.options.max_new_tokens - 1  # the last token is written and not read
        if longest > self.tokenizer.max_length:
            raise ModelError(
                f"{start} tokens to start with and max_new_tokens={self.options.max_new_tokens} are more than the "
                f"{self.tokenizer.max_length} positions of {self.name!r}; ask for fewer tokens"
            )
