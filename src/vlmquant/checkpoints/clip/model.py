"""CLIP in Hugging Face form as two float32 towers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.checkpoint import Checkpoint, fill, identity_of, parse_config
from vlmquant.checkpoints.clip.inputs import prepared_clip
from vlmquant.checkpoints.part import Preparation
from vlmquant.checkpoints.processors import clip_images, clip_tokenizer
from vlmquant.errors import ModelError
from vlmquant.models.encoder import DualEncoder
from vlmquant.models.heads import DualEncoderHead
from vlmquant.models.spec import FloatArray, Head, IdArray, ImageSpec
from vlmquant.models.tokenizer import Tokenizer
from vlmquant.progress import Track, silent

_GREATEST_ID_POOLING = 2
"""transformers reads a text `eos_token_id` of 2, a mistake in early CLIP configurations, as "the greatest id"."""


class ImageTower(nn.Module):
    """Pixels (n, 3, height, width) float32 to features (n, d) float32, not normalized.

    `pixels` is what they pass through first: nothing, until a quantizer wants them otherwise.
    """

    def __init__(self, clip: CLIPModel, image_spec: ImageSpec) -> None:
        super().__init__()
        self.image_spec = image_spec
        self.pixels: nn.Module = nn.Identity()
        self.vision_model = clip.vision_model
        self.visual_projection = clip.visual_projection

    def forward(self, pixels: Tensor) -> Tensor:
        """Run the vision transformer and project its pooled class token."""
        return cast(Tensor, self.visual_projection(self.vision_model(pixel_values=self.pixels(pixels)).pooler_output))


class TextTower(nn.Module):
    """Token ids (n, length) int64 to features (n, d) float32, not normalized.

    Attention is causal and the features are those of the first end token, so padding after it changes nothing.
    """

    def __init__(self, text_model: nn.Module, text_projection: nn.Linear) -> None:
        super().__init__()
        self.text_model = text_model
        self.text_projection = text_projection

    def forward(self, ids: Tensor) -> Tensor:
        """Run the text transformer and project its state at the first end token."""
        return cast(Tensor, self.text_projection(self.text_model(input_ids=ids).pooler_output))


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipModel:
    """A float32 checkpoint with everything needed to run it.

    `logit_scale` is the factor itself, not its logarithm. The digests are the `Checkpoint`'s.
    """

    name: str
    folder: Path
    image_tower: nn.Module
    text_tower: nn.Module
    image_spec: ImageSpec
    tokenizer: Tokenizer
    logit_scale: float
    weights_sha256: str
    settings_sha256: str
    random_weights: bool

    @property
    def head(self) -> Head:
        """Images and texts to vectors in one space."""
        return "dual-encoder"

    @property
    def graphs(self) -> Mapping[str, nn.Module]:
        """Return the towers by name."""
        return {"image": self.image_tower, "text": self.text_tower}

    @property
    def components(self) -> tuple[str, ...]:
        """Return what a recipe can name."""
        return tuple(self.graphs)

    @property
    def identity(self) -> str:
        """Return the sha256 over all that decides a result."""
        return identity_of(self.weights_sha256, self.settings_sha256)

    @property
    def bundle_head(self) -> DualEncoderHead:
        """What a bundle keeps beside the graphs."""
        return DualEncoderHead(logit_scale=self.logit_scale)

    def tower(self, component: str) -> nn.Module:
        """Return the float tower that the layers of `component` are in."""
        return self.graphs[component]

    def prepare(self, calibration: CalibrationSet | None, track: Track = silent) -> Preparation:
        """Return all that a bundle is built from; None calibrates on noise and the built-in prompts."""
        return prepared_clip(self, calibration)

    def encoder(self) -> DualEncoder:
        """Return the Encoder that runs both towers in torch, where their weights are."""
        return DualEncoder(
            name=self.name,
            image_tower=lambda pixels: _run(self.image_tower, pixels),
            text_tower=lambda ids: _run(self.text_tower, ids),
            image_spec=self.image_spec,
            tokenizer=self.tokenizer,
            logit_scale=self.logit_scale,
        )

    def save_preprocessing(self, folder: Path) -> None:
        """Write the tokenizer and `preprocessor_config.json` to `folder`; `from_folder` of both reads them back."""
        self.tokenizer.save(folder)
        self.image_spec.save(folder)


def load_clip(checkpoint: Checkpoint, name: str, device: torch.device) -> ClipModel:
    """Build the two towers of `checkpoint`; see `vlmquant.checkpoints.load_model`."""
    folder = checkpoint.folder
    # The meta device skips drawing weights that are replaced at once.
    with torch.device("meta"):
        clip = CLIPModel(parse_config(checkpoint, CLIPConfig))
    fill(clip, checkpoint.state, folder)
    clip = clip.eval().requires_grad_(False).to(device)
    text = clip.config.text_config
    tokenizer = clip_tokenizer(folder, text.max_position_embeddings, text.vocab_size)
    check_end_token(tokenizer, text)
    image_spec = clip_images(folder, clip.config.vision_config.image_size)
    return ClipModel(
        name=name,
        folder=folder,
        image_tower=ImageTower(clip, image_spec),
        text_tower=TextTower(clip.text_model, clip.text_projection),
        image_spec=image_spec,
        tokenizer=tokenizer,
        logit_scale=float(clip.logit_scale.exp()),
        weights_sha256=checkpoint.weights_sha256,
        settings_sha256=checkpoint.settings_sha256,
        random_weights=checkpoint.random_weights,
    )


def _run(tower: nn.Module, inputs: FloatArray | IdArray) -> FloatArray:
    with torch.inference_mode():
        target = next(tower.parameters()).device
        features = tower(torch.from_numpy(inputs).to(target))
    return np.asarray(features.cpu().numpy(), dtype=np.float32)


def check_end_token(tokenizer: Tokenizer, text_config: Any) -> None:
    """Raise ModelError when the text model (its `CLIPTextConfig`) pools at another token than the tokenizer's end."""
    pooled = text_config.eos_token_id
    if pooled == _GREATEST_ID_POOLING:
        pooled = tokenizer.vocabulary_size - 1
    if tokenizer.eos_id != pooled:
        raise ModelError(
            f"the tokenizer ends a text with token {tokenizer.eos_id} and the model looks for {pooled}; "
            "set eos_token_id in config.json's text_config to the tokenizer's"
        )
