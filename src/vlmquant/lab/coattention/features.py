"""A CLIP's features before pooling, from float or quantized towers, in place of regions and word vectors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from vlmquant.checkpoints.clip.model import ClipModel, ImageTower, TextTower
from vlmquant.errors import ModelError
from vlmquant.models.preprocess import preprocess
from vlmquant.models.spec import FloatArray, Image
from vlmquant.models.tokenizer import Tokenizer
from vlmquant.progress import Track, silent

BATCH = 32


@dataclass(frozen=True, eq=False)
class TokenFeatures:
    """The (n, length, width) float32 features of n texts; `padding` (n, length) is True behind a text's end."""

    rows: FloatArray
    padding: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> "TokenFeatures":
        return TokenFeatures(self.rows[chosen], self.padding[chosen])


@dataclass(frozen=True, eq=False)
class ClipFeatures:
    """Patch and token features of one CLIP; `image_tower` and `text_tower` may be quantized copies of `model`'s.

    Raises ModelError for a CLIP whose image tower is not a vision transformer.
    """

    name: str
    model: ClipModel
    image_tower: nn.Module
    text_tower: nn.Module

    def __post_init__(self) -> None:
        if not isinstance(self.image_tower, ImageTower) or not isinstance(self.text_tower, TextTower):
            raise ModelError(
                f"{self.name}: co-attention reads patch features of a vision transformer, this is "
                f"{type(self.image_tower).__name__}; use a ViT CLIP"
            )

    def patches(self, images: Sequence[Image], track: Track = silent) -> FloatArray:
        """Return (n, patches, width) float32: the last layer's patches, the class token left out."""
        tower = self.image_tower
        assert isinstance(tower, ImageTower)
        rows = []
        with torch.inference_mode():
            for start in track(range(0, len(images), BATCH), f"Patch features, {self.name}", -(-len(images) // BATCH)):
                batch = images[start : start + BATCH]
                pixels = torch.from_numpy(np.stack([preprocess(image, self.model.image_spec) for image in batch]))
                states = tower.vision_model(pixel_values=tower.pixels(pixels)).last_hidden_state
                rows.append(states[:, 1:].numpy())
        return np.concatenate(rows)

    def tokens(self, texts: Sequence[str], track: Track = silent) -> TokenFeatures:
        """Return the last layer's token features of texts, start and end tokens included."""
        tower, tokenizer = self.text_tower, self.model.tokenizer
        assert isinstance(tower, TextTower)
        ids = tokenizer.encode_batch(texts)
        rows = []
        with torch.inference_mode():
            for start in track(range(0, len(ids), BATCH), f"Token features, {self.name}", -(-len(ids) // BATCH)):
                batch = torch.from_numpy(ids[start : start + BATCH])
                rows.append(tower.text_model(input_ids=batch).last_hidden_state.numpy())
        return TokenFeatures(np.concatenate(rows), padding_of(ids, tokenizer))


def padding_of(ids: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """Return (n, length) bool, True behind the first end token of each row of `ids`."""
    ended = np.cumsum(ids == tokenizer.eos_id, axis=1)
    return np.asarray((ended - (ids == tokenizer.eos_id)) > 0)
