"""OpenAI's names for the tensors of a CLIP, which OpenCLIP shares, put into the form that our modules have."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vlmquant.errors import ModelError

BATCH_NORM_EPSILON = 1e-5
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")
"""Entries of OpenAI's and older OpenCLIP's state dicts that say what the shapes say."""
_STATISTICS = ("running_mean", "running_var", "weight", "bias")
_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def text_config(state: Mapping[str, Tensor], activation: str) -> dict[str, Any]:
    """Return the fields of a `CLIPTextConfig`, read off the shapes. Raises ModelError when there is no text model."""
    try:
        vocabulary, width = state["token_embedding.weight"].shape
        return {
            "vocab_size": vocabulary,
            "hidden_size": width,
            "intermediate_size": len(state["transformer.resblocks.0.mlp.c_fc.bias"]),
            "num_hidden_layers": len({name.split(".")[2] for name in state if name.startswith("transformer.resbl")}),
            "num_attention_heads": max(1, width // 64),
            "max_position_embeddings": len(state["positional_embedding"]),
            "projection_dim": state["text_projection"].shape[1],
            "hidden_act": activation,
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,
            "pad_token_id": vocabulary - 1,
        }
    except (KeyError, ValueError, IndexError) as error:
        raise ModelError(
            f"the weights hold no CLIP text model ({error}); expected OpenAI's names, such as token_embedding.weight "
            "and transformer.resblocks.0.mlp.c_fc.bias"
        ) from error


def text_to_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return everything of `state` that is not of the image tower under transformers' names.

    The joint projection of queries, keys and values is cut in three; `text_projection`, a matrix to multiply by from
    the right, becomes a Linear's. A name that is not known keeps its name, for the caller to refuse.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith("visual.") or name in NOT_WEIGHTS:
            continue
        if name.startswith("transformer.resblocks."):
            result |= _block("text_model.encoder.layers", *name.split(".", 3)[2:], tensor)
        elif name == "text_projection":
            result["text_projection.weight"] = tensor.T.contiguous()
        elif name == "positional_embedding":
            result["text_model.embeddings.position_embedding.weight"] = tensor
        elif name == "token_embedding.weight":
            result["text_model.embeddings.token_embedding.weight"] = tensor
        else:
            result[name.replace("ln_final.", "text_model.final_layer_norm.")] = tensor
    return result


def _block(blocks: str, index: str, name: str, tensor: Tensor) -> dict[str, Tensor]:
    module, _, kind = name.rpartition(".")
    if kind.startswith("in_proj_"):
        parts = zip(("q", "k", "v"), tensor.chunk(3), strict=True)
        return {
            f"{blocks}.{index}.self_attn.{part}_proj.{kind.removeprefix('in_proj_')}": rows.clone()
            for part, rows in parts
        }
    return {f"{blocks}.{index}.{_BLOCK.get(module, module)}.{kind}": tensor}


def fold_batch_norms(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the `visual.` tensors of a ResNet with every batch norm folded into the convolution before it.

    A batch norm in evaluation is y = a x + b with a = weight / sqrt(running_var + eps), b = bias - a running_mean; the
    convolution's rows take a, and b becomes its bias. Computed in float64. Raises ModelError naming the tensors when a
    batch norm is not whole.
    """
    result = {name: tensor for name, tensor in state.items() if name.startswith("visual.")}
    norms = [name.removesuffix(".running_mean") for name in result if name.endswith(".running_mean")]
    for norm in norms:
        convolution = _convolution_before(norm)
        needed = [f"{norm}.{kind}" for kind in _STATISTICS] + [f"{convolution}.weight"]
        if missing := [name for name in needed if name not in result]:
            raise ModelError(f"the checkpoint lacks tensors: {', '.join(missing)}")
        mean, variance, gain, bias = (result.pop(name).double() for name in needed[:4])
        result.pop(f"{norm}.num_batches_tracked", None)
        factor = gain / torch.sqrt(variance + BATCH_NORM_EPSILON)
        weight = result[f"{convolution}.weight"].double() * factor.reshape(-1, 1, 1, 1)
        result[f"{convolution}.weight"] = weight.float()
        result[f"{convolution}.bias"] = (bias - factor * mean).float()
    return result


def _convolution_before(norm: str) -> str:
    """`visual.layer1.0.bn2` follows `visual.layer1.0.conv2`, and in a shortcut `downsample.1` follows `.0`."""
    parent, _, last = norm.rpartition(".")
    return f"{parent}.{last.replace('bn', 'conv')}" if last.startswith("bn") else f"{parent}.0"
