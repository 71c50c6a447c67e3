"""Attention with its two products as modules, so that they can be watched and quantized like any other operation."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from vlmquant.quantize.modules import MatMul

IMPLEMENTATION = "vlmquant_explicit"
PRODUCTS = ("scores_product", "values_product")


def make_attention_explicit(tower: nn.Module) -> None:
    """Give every transformers attention block of `tower`, in place, the modules `scores_product` and `values_product`.

    The output does not change. `tower` must be a copy that is about to be quantized: its configuration changes too.
    """
    AttentionInterface.register(IMPLEMENTATION, _explicit_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)
    for module in list(tower.modules()):
        config: Any = getattr(module, "config", None)
        if hasattr(config, "_attn_implementation"):
            config._attn_implementation = IMPLEMENTATION
        if is_attention(module):
            for name in PRODUCTS:
                module.add_module(name, MatMul())


def is_attention(module: nn.Module) -> bool:
    """Whether `module` is an attention block of transformers' CLIP kind."""
    return all(hasattr(module, name) for name in ("q_proj", "k_proj", "v_proj", "out_proj", "scale"))


def _explicit_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float, **_: Any
) -> tuple[Tensor, Tensor]:
    """Attend (n, heads, length, width) and return (n, length, heads, width) with the probabilities."""
    scores = module.scores_product(query, key.transpose(-1, -2)) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    probabilities = torch.softmax(scores, dim=-1)
    return module.values_product(probabilities, value).transpose(1, 2).contiguous(), probabilities
