"""The families of float checkpoints: which `model_type` of a `config.json` is read, and how."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from vlmquant.checkpoints.blip import load_blip_checkpoint
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.checkpoint import Checkpoint
from vlmquant.checkpoints.clip import load_clip
from vlmquant.checkpoints.clip.resnet import load_clip_resnet
from vlmquant.checkpoints.part import Preparation
from vlmquant.models.heads import BundleHead
from vlmquant.models.spec import Head, ImageSpec
from vlmquant.progress import Track, silent


class FloatModel(Protocol):
    """What a float model of every family offers, so that nobody needs to know which family it is of."""

    @property
    def name(self) -> str:
        """What to call it in tables."""
        ...

    @property
    def folder(self) -> Path:
        """Where its files are."""
        ...

    @property
    def head(self) -> Head:
        """What it does with images and texts."""
        ...

    @property
    def components(self) -> tuple[str, ...]:
        """What a recipe can name, in the order in which they run."""
        ...

    @property
    def graphs(self) -> Mapping[str, nn.Module]:
        """The float modules, by the name of the ONNX graph that each becomes."""
        ...

    @property
    def image_spec(self) -> ImageSpec:
        """How a picture becomes pixels."""
        ...

    @property
    def weights_sha256(self) -> str:
        """Over the bytes of the weight files, in the order of their names."""
        ...

    @property
    def identity(self) -> str:
        """A sha256 over all that decides a result: weights, configuration, image settings and tokenizer."""
        ...

    @property
    def random_weights(self) -> bool:
        """Whether the weights were drawn, not trained."""
        ...

    @property
    def bundle_head(self) -> BundleHead:
        """What a bundle of it keeps beside the graphs."""
        ...

    def tower(self, component: str) -> nn.Module:
        """Return the float tower that the layers of `component` are in."""
        ...

    def prepare(self, calibration: CalibrationSet | None, track: Track = silent) -> Preparation:
        """Return all that a bundle is built from; None calibrates on what is built in."""
        ...

    def save_preprocessing(self, folder: Path) -> None:
        """Write the tokenizer and the image settings to a bundle's `folder`."""
        ...


@dataclass(frozen=True)
class Family:
    """How the checkpoints of one `model_type` are read.

    `title` says what one is, with its article. `read` turns the checkpoint, what to call it and a device into the float
    model. `heads` are those that its models can have.
    """

    title: str
    heads: tuple[Head, ...]
    read: Callable[[Checkpoint, str, torch.device], FloatModel]


FAMILIES: dict[str, Family] = {
    "clip": Family("a CLIP", ("dual-encoder",), load_clip),
    "clip-resnet": Family("a CLIP-ResNet", ("dual-encoder",), load_clip_resnet),
    "blip": Family("a BLIP", ("captioner", "answerer", "matcher"), load_blip_checkpoint),
}
"""By the `model_type` of `config.json`."""
