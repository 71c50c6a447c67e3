"""The five tasks of `ptq4clip` over one form of the CLIP: what each answers, sample by sample."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from vlmquant.checkpoints.clip import ClipModel
from vlmquant.data.sets import CaptionedImages, ImageSet, LabelledImages, QuestionedImages
from vlmquant.files import sha256_of
from vlmquant.lab.coattention.answerer import CONFIG, WEIGHTS, McanAnswerer
from vlmquant.lab.coattention.features import ClipFeatures
from vlmquant.lab.gpt2 import Gpt2
from vlmquant.lab.guided import GuidedOptions, guided_captions
from vlmquant.lab.reproduce.ptq4clip.bit_forms import SimulatedClip
from vlmquant.lab.reproduce.samples import some_of
from vlmquant.metrics.fidelity import cosines
from vlmquant.models.spec import Image
from vlmquant.progress import Track
from vlmquant.tasks.answering import score_answers, write_answers
from vlmquant.tasks.captioning import score_captions, write_captions
from vlmquant.tasks.classification import classify_pictures
from vlmquant.tasks.result import TaskResult
from vlmquant.tasks.retrieval import retrieve_both_ways
from vlmquant.tasks.store import Store
from vlmquant.tasks.task import Work
from vlmquant.tasks.templates import get_templates

BARE, PROMPTED, RETRIEVAL = "classification without prompts", "classification with prompts", "retrieval"
CAPTIONS, QUESTIONS = "captions", "questions"
TEXT_BATCH, QUESTION_BATCH = 256, 64
COSINE_PICTURES = 1000


Task: TypeAlias = Callable[[SimulatedClip, Store], TaskResult]
"""A task over one form of the CLIP; what it embeds, writes and answers is kept in the store."""


@dataclass(frozen=True)
class Steering:
    """Captions that the CLIP steers: a language model, how it is searched, and the pictures."""

    language: Gpt2
    options: GuidedOptions
    data: CaptionedImages

    @property
    def in_words(self) -> str:
        """Say what writes the captions, and how."""
        options = self.options
        return (
            f"{len(self.data)} pictures, {self.language.name}, {options.beams} beams, {options.candidates} candidates "
            f"each, guidance {options.guidance:g}, at most {options.max_new_tokens} tokens"
        )


@dataclass(frozen=True)
class Answering:
    """Questions for a co-attention network that was trained on the CLIP's features."""

    network: Path
    data: QuestionedImages

    def checked(self, model: ClipModel) -> "Answering":
        """Return this. Raises ModelError where the network cannot be read or is of another CLIP."""
        McanAnswerer.load(self.network, ClipFeatures(model.name, model, model.image_tower, model.text_tower))
        return self


@dataclass(frozen=True, kw_only=True)
class TaskInputs:
    """What the tasks run on; a task whose input is None is not run. `templates` are the prompts of the classes."""

    model: ClipModel
    track: Track
    templates: tuple[str, ...]
    labelled: LabelledImages | None = None
    captioned: CaptionedImages | None = None
    steering: Steering | None = None
    answering: Answering | None = None

    @property
    def identity(self) -> list[Any]:
        """Return what decides the answers, beside the CLIP and the data, as JSON values."""
        steering, answering = self.steering, self.answering
        return [
            list(self.templates),
            None
            if steering is None
            else [steering.language.weights_sha256, repr(steering.options), steering.data.digest],
            None if answering is None else [sha256_of(answering.network / name) for name in (CONFIG, WEIGHTS)],
        ]

    def tasks(self) -> dict[str, Task]:
        """Return the tasks that can be run, by name."""
        found: dict[str, Task] = {}
        if self.labelled is not None:
            found[BARE] = partial(self._classes, self.labelled, get_templates("none"))
            found[PROMPTED] = partial(self._classes, self.labelled, self.templates)
        if self.captioned is not None:
            found[RETRIEVAL] = partial(self._retrieval, self.captioned)
        if self.steering is not None:
            found[CAPTIONS] = partial(self._captions, self.steering)
        if self.answering is not None:
            found[QUESTIONS] = partial(self._answers, self.answering)
        return found

    def looked_at(self, data: ImageSet) -> ImageSet:
        """Return the pictures of `data` whose cosines are shown: all that a task embeds anyway, or some."""
        whole = any(data is one for one in (self.labelled, self.captioned))
        return data if whole else some_of(data, COSINE_PICTURES)

    def cosines(
        self, clip: SimulatedClip, reference: SimulatedClip, data: ImageSet, store: Store
    ) -> dict[str, list[float]]:
        """Return the cosine of each picture's embedding to the reference's."""
        features = [self._work(each, data, (), store).features for each in (clip, reference)]
        return {"cosines": [round(float(cosine), 9) for cosine in cosines(*features)]}

    def _work(self, clip: SimulatedClip, data: ImageSet, templates: tuple[str, ...], store: Store) -> Work:
        return Work(opened=clip.opened, data=data, templates=templates, store=store, track=self.track)

    def _classes(
        self, data: LabelledImages, templates: tuple[str, ...], clip: SimulatedClip, store: Store
    ) -> TaskResult:
        return classify_pictures(self._work(clip, data, templates, store))

    def _retrieval(self, data: CaptionedImages, clip: SimulatedClip, store: Store) -> TaskResult:
        return retrieve_both_ways(self._work(clip, data, (), store))

    def _captions(self, steering: Steering, clip: SimulatedClip, store: Store) -> TaskResult:
        data, captioner = steering.data, SteeredCaptioner(clip, steering)
        journal = store.journal(CAPTIONS, clip.opened.identity, data.digest)
        captions = write_captions(captioner, data.images, data.ids, journal=journal, track=self.track)
        return score_captions(clip.name, captions, data.captions, ids=data.ids, dataset=data.digest)

    def _answers(self, answering: Answering, clip: SimulatedClip, store: Store) -> TaskResult:
        data = answering.data
        features = ClipFeatures(clip.name, self.model, clip.image_tower, clip.text_tower)
        answerer = McanAnswerer.load(answering.network, features)
        journal = store.journal(QUESTIONS, clip.opened.identity, data.digest)
        answers = write_answers(answerer, data, journal=journal, batch_size=QUESTION_BATCH, track=self.track)
        return score_answers(clip.name, answers, data)


@dataclass(frozen=True)
class SteeredCaptioner:
    """Implements the Captioner protocol: a language model's words, chosen by one form of the CLIP."""

    clip: SimulatedClip
    steering: Steering

    @property
    def name(self) -> str:
        """What to call it in tables."""
        return f"{self.steering.language.name} steered by {self.clip.name}"

    def caption(self, images: Sequence[Image]) -> list[str]:
        """Return one caption per picture, without the words that every caption begins with."""
        options = self.steering.options
        encoder = replace(self.clip.opened.encoder, batch_size=TEXT_BATCH)
        written = guided_captions(encoder, self.steering.language, images, options)
        return [text.removeprefix(options.prompt).strip() for text in written]


def answered(task: Task, clip: SimulatedClip, store: Store) -> dict[str, Any]:
    """Run a task; return the value of every sample, by metric, with the number of the picture it belongs to."""
    result = task(clip, store)
    return {
        metric: {"values": outcomes.values.tolist(), "clusters": _numbered(outcomes.clusters)}
        for metric, outcomes in result.outcomes.items()
    }


def _numbered(clusters: Sequence[str]) -> list[int]:
    return [int(number) for number in np.unique(np.asarray(clusters), return_inverse=True)[1]]
