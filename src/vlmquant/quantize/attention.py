"""Attention with its two products as modules, so that they can be watched and quantized like any other operation."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from vlmquant.quantize.modules import MatMul
from vlmquant.quantize.rounding import PerHead

IMPLEMENTATION = "vlmquant_explicit"
PLAIN = "vlmquant_plain"
PRODUCTS = ("scores_product", "values_product")


def make_attention_explicit(tower: nn.Module, *, per_head: bool = False) -> None:
    """Give every transformers attention block of `tower`, in place, the modules `scores_product` and `values_product`.

    With `per_head` their operands pass through one module for each head. The output does not change. `tower` must be
    a copy that is about to be quantized: its configuration changes too.
    """
    AttentionInterface.register(IMPLEMENTATION, _explicit_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)
    for name, module in list(tower.named_modules()):
        if is_fused_attention(module):
            tower.set_submodule(name, FusedAttention(module, per_head))
            continue
        config: Any = getattr(module, "config", None)
        if hasattr(config, "_attn_implementation"):
            config._attn_implementation = IMPLEMENTATION
        if is_attention(module):
            _add_products(module, per_head)


@contextmanager
def plain_attention(tower: nn.Module) -> Iterator[None]:
    """Let transformers' attention blocks of `tower` multiply, mask and normalize step by step, inside a `with`.

    It is for exporting: torch's fused attention comes out as a graph that scales queries and keys apart, transposes
    keys twice and makes a causal mask for every block. Blocks with their products as modules stay as they are.
    """
    AttentionInterface.register(PLAIN, _plain_attention)
    AttentionMaskInterface.register(PLAIN, eager_mask)
    configs: dict[int, Any] = {id(module.config): module.config for module in tower.modules() if _chooses(module)}
    before = {key: config._attn_implementation for key, config in configs.items()}
    try:
        for config in configs.values():
            config._attn_implementation = PLAIN
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]


def _chooses(module: nn.Module) -> bool:
    """Whether transformers asks the configuration of `module` which attention to use, and nobody else has."""
    implementation = getattr(getattr(module, "config", None), "_attn_implementation", None)
    return implementation is not None and implementation != IMPLEMENTATION


def _add_products(module: Any, per_head: bool) -> None:
    for name in PRODUCTS:
        product = MatMul()
        if per_head:
            product.left, product.right = PerHead(module.num_heads), PerHead(module.num_heads)
        module.add_module(name, product)


class FusedAttention(nn.Module):
    """transformers' `BlipAttention`, one projection to queries, keys and values, with its products as modules."""

    def __init__(self, attention: Any, per_head: bool) -> None:
        super().__init__()
        self.qkv, self.projection = attention.qkv, attention.projection
        self.num_heads, self.factor = attention.num_heads, attention.scale
        _add_products(self, per_head)

    def forward(self, hidden_states: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
        """Attend over (n, length, width); return the same shape and the probabilities."""
        query, key, value = self.qkv(hidden_states).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        context, probabilities = _explicit_attention(self, query, key, value, None, self.factor)
        return self.projection(context.flatten(2)), probabilities


def is_fused_attention(module: nn.Module) -> bool:
    """Whether `module` is an attention block of transformers' BLIP vision kind."""
    return all(hasattr(module, name) for name in ("qkv", "projection", "num_heads", "scale"))


def is_attention(module: nn.Module) -> bool:
    """Whether `module` is an attention block of transformers' CLIP kind."""
    return all(hasattr(module, name) for name in ("q_proj", "k_proj", "v_proj", "out_proj", "scale"))


def _plain_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """Attend (n, heads, length, width) and return (n, length, heads, width)."""
    scores = (query * scaling) @ key.transpose(-1, -2)
    if attention_mask is not None:
        scores = scores + attention_mask
    return (torch.softmax(scores, dim=-1) @ value).transpose(1, 2).contiguous(), None


def _explicit_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float, **_: Any
) -> tuple[Tensor, Tensor]:
    """Attend (n, heads, length, width) and return (n, length, heads, width) with the probabilities."""
    scores = module.scores_product(query, key.transpose(-1, -2)) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    probabilities = torch.softmax(scores, dim=-1)
    return module.values_product(probabilities, value).transpose(1, 2).contiguous(), probabilities
