"""BLIP in Hugging Face form as float32 graphs: captioning, question answering, image-text matching."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
)

from vlmquant.checkpoints.blip.graphs import (
    COMPONENTS,
    CrossGraph,
    DecoderGraph,
    MatcherGraph,
    QuestionGraph,
    VisionGraph,
)
from vlmquant.checkpoints.blip.inputs import component_tower, prepared_blip
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.checkpoint import Checkpoint, fill, identity_of, parse_config, usable_device
from vlmquant.checkpoints.part import Preparation
from vlmquant.checkpoints.processors import blip_images, wordpiece_tokenizer
from vlmquant.errors import ModelError, unknown
from vlmquant.models.generate import GenerationOptions
from vlmquant.models.heads import AnswererHead, CaptionerHead, MatcherHead, WritingHead
from vlmquant.models.spec import Head, ImageSpec
from vlmquant.models.wordpiece import WordPieceTokenizer
from vlmquant.models.writer import Writer, WriterKind
from vlmquant.progress import Track, silent

KINDS: dict[str, tuple[WriterKind, Any]] = {
    "BlipForConditionalGeneration": ("captioning", BlipForConditionalGeneration),
    "BlipForQuestionAnswering": ("vqa", BlipForQuestionAnswering),
    "BlipForImageTextRetrieval": ("matching", BlipForImageTextRetrieval),
}
"""What `architectures` in `config.json` may name, with the kind of model and transformers' class."""
HEAD_TYPES: dict[WriterKind, type[WritingHead]] = {
    head.kind: head for head in (CaptionerHead, AnswererHead, MatcherHead)
}
_STATES = ("vision", "cross", "question_encoder")
"""Graphs whose results only go to other graphs; on CUDA they stay there."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BlipModel:
    """A float32 checkpoint with everything needed to run it.

    `graphs` holds "vision" and, for captioning, "cross" and "decoder"; for vqa these and "question_encoder"; for
    matching "matcher". `layers`, `heads` and `head_dim` are the text model's. `start_id`, `end_id` and `pad_id` are
    the decoder's. `weights_sha256` and `settings_sha256` are the `Checkpoint`'s.
    """

    name: str
    folder: Path
    kind: WriterKind
    graphs: Mapping[str, nn.Module]
    image_spec: ImageSpec
    tokenizer: WordPieceTokenizer
    start_id: int
    end_id: int
    pad_id: int
    layers: int
    heads: int
    head_dim: int
    weights_sha256: str
    settings_sha256: str
    random_weights: bool

    @property
    def head(self) -> Head:
        """What the graphs together do."""
        return HEAD_TYPES[self.kind].name

    @property
    def components(self) -> tuple[str, ...]:
        """Return what a recipe can name, in the order in which they run."""
        return tuple(name for name, graphs in COMPONENTS.items() if all(graph in self.graphs for graph in graphs))

    @property
    def identity(self) -> str:
        """Return the sha256 over all that decides a result."""
        return identity_of(self.weights_sha256, self.settings_sha256)

    def runner(
        self, options: GenerationOptions | None = None, device: str = "cpu", half: bool = False, batch_size: int = 8
    ) -> Writer:
        """Return the captioner, answerer or matcher that runs the graphs in torch; its name says where and how.

        `device` "auto" takes CUDA with float16 weights where there is one and the CPU with float32 weights where not.
        `half` turns the weights to float16, on CUDA only. Raises ModelError when the device cannot be used.
        """
        target = usable_device(device)
        half = half or (device == "auto" and target.type == "cuda")
        if half and target.type != "cuda":
            raise ModelError(f"half weights run on CUDA only, got device {device!r}; leave half out or use 'cuda'")
        number = torch.float16 if half else torch.float32
        calls = {name: _call(_placed(graph, target, number), name in _STATES) for name, graph in self.graphs.items()}
        return Writer(
            name=f"{self.name} ({'float16' if half else 'float32'}, {target})",
            kind=self.kind,
            graphs=calls,
            image_spec=self.image_spec,
            tokenizer=self.tokenizer,
            start_id=self.start_id,
            end_id=self.end_id,
            pad_id=self.pad_id,
            options=options or GenerationOptions(),
            batch_size=batch_size,
            after_batch=torch.cuda.empty_cache if target.type == "cuda" else _nothing,
        )

    @property
    def bundle_head(self) -> WritingHead:
        """What a bundle keeps beside the graphs."""
        head = HEAD_TYPES[self.kind]
        return head(start_id=self.start_id, end_id=self.end_id, pad_id=self.pad_id)

    def tower(self, component: str) -> nn.Module:
        """Return the float tower that the layers of `component` are in."""
        return component_tower(self, component)

    def prepare(self, calibration: CalibrationSet | None, track: Track = silent) -> Preparation:
        """Return all that a bundle is built from; None calibrates on noise."""
        return prepared_blip(self, calibration, track)

    def save_preprocessing(self, folder: Path) -> None:
        """Write the tokenizer and `preprocessor_config.json` to `folder`; `from_folder` of both reads them back."""
        self.tokenizer.save(folder)
        self.image_spec.save(folder)


def load_blip_checkpoint(checkpoint: Checkpoint, name: str, device: torch.device) -> BlipModel:
    """Build the graphs of `checkpoint`; see `vlmquant.checkpoints.load_blip`."""
    folder = checkpoint.folder
    kind, architecture = _kind(checkpoint)
    config = parse_config(checkpoint, BlipConfig)
    # The meta device skips drawing weights that are replaced at once.
    with torch.device("meta"):
        blip = architecture(config)
    fill(blip, _with_tied(blip, checkpoint.state, folder), folder)
    blip = blip.eval().requires_grad_(False)
    text = config.text_config
    tokenizer = wordpiece_tokenizer(folder, text.max_position_embeddings, text.vocab_size)
    _check_end_token(tokenizer, text)
    image_spec = blip_images(folder, config.vision_config.image_size)
    return BlipModel(
        name=name,
        folder=folder,
        kind=kind,
        graphs={part: graph.to(device) for part, graph in _graphs(kind, blip).items()},
        image_spec=image_spec,
        tokenizer=tokenizer,
        start_id=text.bos_token_id,
        end_id=text.sep_token_id,
        pad_id=text.pad_token_id,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        head_dim=text.hidden_size // text.num_attention_heads,
        weights_sha256=checkpoint.weights_sha256,
        settings_sha256=checkpoint.settings_sha256,
        random_weights=checkpoint.random_weights,
    )


def _graphs(kind: WriterKind, blip: Any) -> dict[str, nn.Module]:
    """Take `blip` apart into the graphs of its kind; it cannot be used afterwards."""
    for part in blip.modules():
        if hasattr(part, "word_embeddings"):
            del part.position_ids  # still on the meta device, and the graphs count for themselves
    graphs: dict[str, nn.Module] = {"vision": VisionGraph(blip)}
    if kind == "matching":
        return graphs | {"matcher": MatcherGraph(blip.text_encoder, blip.itm_head)}
    if kind == "vqa":
        graphs["question_encoder"] = QuestionGraph(blip.text_encoder)
    head = blip.text_decoder.cls.predictions
    head.decoder.weight = blip.text_decoder.bert.embeddings.word_embeddings.weight
    del head.bias  # a second name of head.decoder.bias
    return graphs | {"cross": CrossGraph(blip.text_decoder), "decoder": DecoderGraph(blip.text_decoder)}


def _with_tied(blip: nn.Module, state: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Return `state` with both names of every tensor that has two; files may hold either one or both.

    Raises ModelError when both are there and differ: one table could not stand for both.
    """
    completed = dict(state)
    for one, other in (getattr(blip, "_tied_weights_keys", None) or {}).items():
        for missing, present in ((one, other), (other, one)):
            if missing not in completed and present in completed:
                completed[missing] = completed[present]
        if one in completed and other in completed and not torch.equal(completed[one], completed[other]):
            raise ModelError(
                f"the checkpoint in {folder} has different values in {one} and {other}, which are one tensor in BLIP; "
                "save it again with tie_word_embeddings"
            )
    return completed


def _kind(checkpoint: Checkpoint) -> tuple[WriterKind, Any]:
    named = checkpoint.config.get("architectures") or ["(none)"]
    if named[0] not in KINDS:
        raise unknown(ModelError, f"architecture of a BLIP in {checkpoint.folder / 'config.json'}", named[0], KINDS)
    return KINDS[named[0]]


def _check_end_token(tokenizer: WordPieceTokenizer, text_config: Any) -> None:
    if tokenizer.sep_id != text_config.sep_token_id:
        raise ModelError(
            f"the tokenizer ends a text with token {tokenizer.sep_id} and the model with {text_config.sep_token_id}; "
            "set sep_token_id in config.json's text_config to the tokenizer's"
        )


def _placed(graph: nn.Module, device: torch.device, number: torch.dtype) -> nn.Module:
    """Return `graph` where and as it is wanted: itself if it is so already, else a copy."""
    parameter = next(graph.parameters())
    if parameter.device == device and parameter.dtype == number:
        return graph
    return copy.deepcopy(graph).to(device=device, dtype=number)


def _call(graph: nn.Module, stays: bool) -> Callable[..., Any]:
    """Return `graph` as a function of arrays.

    On the CPU every argument and result is an array. On CUDA the results of a graph that `stays` remain tensors there,
    which other graphs take as arguments: a step must not carry an image's keys over the bus again.
    """
    parameter = next(graph.parameters())

    def to_tensor(value: Any) -> Tensor:
        tensor = (value if isinstance(value, Tensor) else torch.from_numpy(value)).to(parameter.device)
        return tensor.to(parameter.dtype) if tensor.is_floating_point() else tensor

    def to_result(tensor: Tensor) -> Any:
        if stays and tensor.device.type != "cpu":
            return tensor
        return np.asarray(tensor.float().cpu().numpy(), dtype=np.float32)

    def call(*arguments: Any) -> Any:
        with torch.inference_mode():
            result = graph(*map(to_tensor, arguments))
        return tuple(map(to_result, result)) if isinstance(result, tuple) else to_result(result)

    return call


def _nothing() -> None:
    """Free nothing: the CPU's memory comes back by itself."""
