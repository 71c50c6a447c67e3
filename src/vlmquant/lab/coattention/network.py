"""MCAN's encoder-decoder (Yu et al. 2019, "Deep Modular Co-Attention Networks for VQA", sections 3.1 to 3.4).

The question attends to itself in the encoder; every decoder layer lets the picture attend to itself and then to the
encoded question. Both are pooled by attention, added and classified; each answer has a logit of its own.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from vlmquant.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class McanConfig:
    """Sizes of the network; the defaults are the paper's "small" model, whose `answers` are VQA v2's 3,129.

    `image_width` and `text_width` are those of the features that come in.
    """

    image_width: int
    text_width: int
    answers: int = 3129
    width: int = 512
    layers: int = 6
    heads: int = 8
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("image_width", "text_width", "answers", "width", "layers", "heads"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.width % self.heads:
            raise ModelError(f"the width {self.width} must be a multiple of the {self.heads} heads")
        if not 0 <= self.dropout < 1:
            raise ModelError(f"dropout must be in [0, 1), got {self.dropout}")


class _Attend(nn.Module):
    """Multi-head attention of `queries` to `keys`, added to the queries and normalized: the paper's SA and GA units."""

    def __init__(self, config: McanConfig) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(config.width, config.heads, config.dropout, batch_first=True)
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, queries: Tensor, keys: Tensor, padding: Tensor | None) -> Tensor:
        attended, _ = self.attention(queries, keys, keys, key_padding_mask=padding, need_weights=False)
        return cast(Tensor, self.norm(queries + self.dropout(attended)))


class _FeedForward(nn.Module):
    def __init__(self, config: McanConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(config.width, 4 * config.width),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(4 * config.width, config.width),
            nn.Dropout(config.dropout),
        )
        self.norm = nn.LayerNorm(config.width)

    def forward(self, values: Tensor) -> Tensor:
        return cast(Tensor, self.norm(values + self.layers(values)))


class _Pool(nn.Module):
    """Attentional reduction: a weighted mean over the positions, the weights from a small MLP."""

    def __init__(self, config: McanConfig) -> None:
        super().__init__()
        self.score = nn.Sequential(
            nn.Linear(config.width, config.width), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(config.width, 1)
        )
        self.merge = nn.Linear(config.width, 2 * config.width)

    def forward(self, values: Tensor, padding: Tensor | None) -> Tensor:
        scores = self.score(values)
        if padding is not None:
            scores = scores.masked_fill(padding.unsqueeze(-1), float("-inf"))
        return cast(Tensor, self.merge((torch.softmax(scores, dim=1) * values).sum(dim=1)))


class Mcan(nn.Module):
    """Picture features (n, p, image_width) and question features (n, t, text_width) to logits (n, answers).

    `padding` (n, t) is True where the question has no token.
    """

    def __init__(self, config: McanConfig) -> None:
        super().__init__()
        self.config = config
        self.image_in = nn.Sequential(nn.LayerNorm(config.image_width), nn.Linear(config.image_width, config.width))
        self.text_in = nn.Sequential(nn.LayerNorm(config.text_width), nn.Linear(config.text_width, config.width))
        self.text_self = nn.ModuleList(_Attend(config) for _ in range(config.layers))
        self.text_forward = nn.ModuleList(_FeedForward(config) for _ in range(config.layers))
        self.image_self = nn.ModuleList(_Attend(config) for _ in range(config.layers))
        self.image_guided = nn.ModuleList(_Attend(config) for _ in range(config.layers))
        self.image_forward = nn.ModuleList(_FeedForward(config) for _ in range(config.layers))
        self.image_pool, self.text_pool = _Pool(config), _Pool(config)
        self.norm = nn.LayerNorm(2 * config.width)
        self.classify = nn.Linear(2 * config.width, config.answers)

    def forward(self, image: Tensor, text: Tensor, padding: Tensor) -> Tensor:
        """Return the logits; their sigmoid is the chance that people gave the answer."""
        image, text = self.image_in(image), self.text_in(text)
        for attend, feed in zip(self.text_self, self.text_forward, strict=True):
            text = feed(attend(text, text, padding))
        for attend, guided, feed in zip(self.image_self, self.image_guided, self.image_forward, strict=True):
            image = attend(image, image, None)
            image = feed(guided(image, text, padding))
        fused = self.norm(self.image_pool(image, None) + self.text_pool(text, padding))
        return cast(Tensor, self.classify(fused))
