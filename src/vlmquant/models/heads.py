"""Heads: what a bundle's graphs do together, whatever family of models they come from; no torch here."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from vlmquant.errors import ModelError
from vlmquant.models.encoder import DualEncoder
from vlmquant.models.generate import GenerationOptions
from vlmquant.models.image_config import BLIP
from vlmquant.models.spec import Head, ImageSpec
from vlmquant.models.tokenizer import Tokenizer
from vlmquant.models.wordpiece import WordPieceTokenizer
from vlmquant.models.writer import Writer, WriterKind

Run: TypeAlias = Callable[..., Any]
"""A graph as a function: from its inputs to its output, a tuple where there are several."""
Runner: TypeAlias = DualEncoder | Writer
"""What a bundle opens as."""


@dataclass(frozen=True, kw_only=True)
class BundleHead(ABC):
    """What decides a result beside the graphs and the files of a bundle; its fields are in the manifest.

    `graphs` are those that a bundle must hold. Where they are `independent` none reads what another gave.
    """

    name: ClassVar[Head]
    graphs: ClassVar[tuple[str, ...]]
    independent: ClassVar[bool] = False

    @abstractmethod
    def runner(
        self, name: str, graphs: Mapping[str, Run], folder: Path, options: GenerationOptions, notes: tuple[str, ...]
    ) -> Runner:
        """Return what runs `graphs` with the tokenizer and the image settings of `folder`, called `name`."""

    def image_spec(self, folder: Path) -> ImageSpec:
        """Return how a picture becomes pixels, by the image settings in `folder`."""
        return ImageSpec.from_folder(folder)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `type` says which head it is."""
        return {"type": self.name, **dataclasses.asdict(self)}


@dataclass(frozen=True, kw_only=True)
class DualEncoderHead(BundleHead):
    """Images and texts to vectors of one space; cosines times `logit_scale` go into a softmax."""

    name = "dual-encoder"
    graphs = ("image", "text")
    independent = True

    logit_scale: float

    def runner(
        self, name: str, graphs: Mapping[str, Run], folder: Path, options: GenerationOptions, notes: tuple[str, ...]
    ) -> DualEncoder:
        """Return an encoder; it writes nothing, so `options` do not matter."""
        return DualEncoder(
            name=name,
            image_tower=graphs["image"],
            text_tower=graphs["text"],
            image_spec=self.image_spec(folder),
            tokenizer=Tokenizer.from_folder(folder),
            logit_scale=self.logit_scale,
            notes=notes,
        )


@dataclass(frozen=True, kw_only=True)
class WritingHead(BundleHead):
    """A head with BERT's tokens: the ids that its text starts with, ends with and is padded with."""

    kind: ClassVar[WriterKind]

    start_id: int
    end_id: int
    pad_id: int

    def image_spec(self, folder: Path) -> ImageSpec:
        """Return how a picture becomes pixels; an older bundle's file may leave what BLIP's processor does unsaid."""
        return ImageSpec.from_folder(folder, processor=BLIP)

    def runner(
        self, name: str, graphs: Mapping[str, Run], folder: Path, options: GenerationOptions, notes: tuple[str, ...]
    ) -> Writer:
        """Return a captioner, answerer or matcher; see `Writer`."""
        return Writer(
            name=name,
            kind=self.kind,
            graphs=graphs,
            image_spec=self.image_spec(folder),
            tokenizer=WordPieceTokenizer.from_folder(folder),
            start_id=self.start_id,
            end_id=self.end_id,
            pad_id=self.pad_id,
            options=options,
            notes=notes,
        )


@dataclass(frozen=True, kw_only=True)
class CaptionerHead(WritingHead):
    """Writes a caption for an image."""

    name = "captioner"
    kind = "captioning"
    graphs = ("vision", "cross", "decoder")


@dataclass(frozen=True, kw_only=True)
class AnswererHead(WritingHead):
    """Writes an answer to a question about an image."""

    name = "answerer"
    kind = "vqa"
    graphs = ("vision", "question_encoder", "cross", "decoder")


@dataclass(frozen=True, kw_only=True)
class MatcherHead(WritingHead):
    """Tells how likely a text describes an image."""

    name = "matcher"
    kind = "matching"
    graphs = ("vision", "matcher")


HEADS: dict[Head, type[BundleHead]] = {
    head.name: head for head in (DualEncoderHead, CaptionerHead, AnswererHead, MatcherHead)
}


def as_encoder(runner: Runner) -> DualEncoder:
    """Return `runner` where it is a dual encoder. Raises ModelError where it is not."""
    if not isinstance(runner, DualEncoder):
        raise ModelError(
            f"{runner.name!r} is a BLIP for {runner.kind}, which has no common space of images and texts; "
            "name a model that has one, such as a CLIP"
        )
    return runner


def as_writer(runner: Runner) -> Writer:
    """Return `runner` where it is a captioner, answerer or matcher. Raises ModelError where it is not."""
    if not isinstance(runner, Writer):
        raise ModelError(f"{runner.name!r} is a dual encoder, which writes nothing; give a BLIP")
    return runner
