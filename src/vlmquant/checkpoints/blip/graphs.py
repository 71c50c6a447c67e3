"""BLIP's computation as torch graphs, each of which is quantized and exported by itself.

The layers are transformers' own, so that a Linear has the name it has in a checkpoint ("encoder.layer.0.attention.
self.query"); only the order in which they are called is written here. No graph takes an attention mask: texts are
batched only with texts of their own length, so there is nothing to mask but the future.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "vision": ("vision",),
    "question_encoder": ("question_encoder",),
    "matcher": ("matcher",),
    "decoder": ("cross", "decoder"),
}
"""What a recipe can name, and the graphs of which it consists."""


class VisionGraph(nn.Module):
    """Pixels (n, 3, height, width) float32 to states (n, patches + 1, width) float32."""

    def __init__(self, blip: Any) -> None:
        super().__init__()
        self.vision_model = blip.vision_model

    def forward(self, pixels: Tensor) -> Tensor:
        """Run the vision transformer and its last LayerNorm."""
        return cast(Tensor, self.vision_model(pixel_values=pixels).last_hidden_state)


class CrossGraph(nn.Module):
    """States (n, p, width) to what every layer of the decoder attends to: key_0, value_0, key_1, ...

    Each is (n, heads, p, head width). They do not depend on the text, so they are made once per image or question.
    The projections are taken out of `decoder`, a `BlipTextLMHeadModel`; `DecoderGraph` is what remains of it.
    """

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        layers = [layer.crossattention.self for layer in decoder.bert.encoder.layer]
        self.heads = layers[0].num_attention_heads
        self.layer = nn.ModuleList(nn.ModuleDict({"key": layer.key, "value": layer.value}) for layer in layers)
        for layer in layers:
            del layer.key, layer.value

    def forward(self, states: Tensor) -> tuple[Tensor, ...]:
        """Project `states` twice per layer."""
        return tuple(_split_heads(projection(states), self.heads) for projection in self._projections())

    def _projections(self) -> Iterator[nn.Module]:
        for layer in self.layer:
            assert isinstance(layer, nn.ModuleDict)
            yield layer["key"]
            yield layer["value"]


class DecoderGraph(nn.Module):
    """The next tokens of `ids` (rows, t) int64 that follow `past`; see `forward`.

    `embeddings.word_embeddings.weight` and `cls.predictions.decoder.weight` are one parameter.
    """

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.embeddings = decoder.bert.embeddings
        self.encoder = decoder.bert.encoder
        self.cls = decoder.cls

    def forward(self, ids: Tensor, past: Tensor, *cross: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (rows, vocabulary) after the last of `ids`, and the keys and values of `ids` alone.

        `past` is (layers, 2, rows, heads, past_t, head width) and may have `past_t` = 0; the second result has the
        same axes with t in place of past_t, and is to be appended to `past` by the caller. `cross` is what
        `CrossGraph` gives for n images or questions; rows = n * beams, the beams of one image beside each other.
        """
        before, length = past.shape[4], ids.shape[1]
        positions = torch.arange(before, before + length, device=ids.device)
        future = torch.arange(before + length, device=ids.device) > positions.unsqueeze(1)
        hidden = _embed(self.embeddings, ids, positions)
        mask = torch.zeros_like(future, dtype=hidden.dtype).masked_fill(future, -math.inf)
        present = []
        for index, layer in enumerate(self.encoder.layer):
            key, value = _keys_and_values(layer.attention.self, hidden)
            present.append(torch.stack([key, value]))
            key = torch.cat([past[index, 0], key], dim=2)
            value = torch.cat([past[index, 1], value], dim=2)
            hidden = _attend(layer.attention, hidden, key, value, mask)
            hidden = _attend_in_beams(layer.crossattention, hidden, cross[2 * index], cross[2 * index + 1])
            hidden = layer.feed_forward_chunk(hidden)
        # Three axes keep the head a MatMul: of two, ONNX Runtime makes a float Gemm before it sees the integers. Taken
        # off by [:, 0] OpenVINO 2026.4 gives (1, rows, vocabulary) behind an INT8 head.
        return self.cls(hidden[:, -1:]).flatten(1), torch.stack(present)


class QuestionGraph(nn.Module):
    """Token ids (n, t) int64 and image states (n, p, width) to question states (n, t, width); not causal."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.embeddings = encoder.embeddings
        self.encoder = encoder.encoder

    def forward(self, ids: Tensor, states: Tensor) -> Tensor:
        """Read the question while looking at the image."""
        hidden = _embed(self.embeddings, ids, torch.arange(ids.shape[1], device=ids.device))
        for layer in self.encoder.layer:
            hidden = _attend(layer.attention, hidden, *_keys_and_values(layer.attention.self, hidden))
            hidden = _attend(layer.crossattention, hidden, *_keys_and_values(layer.crossattention.self, states))
            hidden = layer.feed_forward_chunk(hidden)
        return hidden


class MatcherGraph(QuestionGraph):
    """Token ids (n, t) int64 and image states (n, p, width) to logits (n, 2); class 1 says that they match."""

    def __init__(self, encoder: Any, itm_head: nn.Linear) -> None:
        super().__init__(encoder)
        self.itm_head = itm_head

    def forward(self, ids: Tensor, states: Tensor) -> Tensor:
        """Classify the state of the first token."""
        return cast(Tensor, self.itm_head(super().forward(ids, states)[:, 0]))


def _embed(embeddings: Any, ids: Tensor, positions: Tensor) -> Tensor:
    """Return (rows, t, width) for ids (rows, t) at positions (t,)."""
    summed = embeddings.word_embeddings(ids) + embeddings.position_embeddings(positions)
    return cast(Tensor, embeddings.LayerNorm(summed))


def _keys_and_values(attention: Any, states: Tensor) -> tuple[Tensor, Tensor]:
    heads = attention.num_attention_heads
    return _split_heads(attention.key(states), heads), _split_heads(attention.value(states), heads)


def _attend(block: Any, hidden: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return what `block` (attention, projection, residual, LayerNorm) makes of `hidden` (rows, t, width)."""
    query = _split_heads(block.self.query(hidden), block.self.num_attention_heads)
    context = _mix(query, key, value, mask)
    return cast(Tensor, block.output(context.transpose(1, 2).flatten(2), hidden))


def _attend_in_beams(block: Any, hidden: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend from `hidden` (n * beams, t, width) to keys of n images: an image's beams become more queries of one row.

    So its keys are never repeated, and the products are larger and fewer.
    """
    folded = block.self.query(hidden).reshape(key.shape[0], -1, hidden.shape[2])
    context = _mix(_split_heads(folded, block.self.num_attention_heads), key, value, None)
    return cast(Tensor, block.output(context.transpose(1, 2).reshape(hidden.shape), hidden))


def _mix(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])
    if mask is not None:
        scores = scores + mask
    return torch.softmax(scores, dim=3) @ value


def _split_heads(values: Tensor, heads: int) -> Tensor:
    """(n, t, width) to (n, heads, t, head width)."""
    return values.reshape(values.shape[0], values.shape[1], heads, -1).transpose(1, 2)
