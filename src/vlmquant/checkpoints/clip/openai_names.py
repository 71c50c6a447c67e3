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
            _, _, index, part = name.split(".", 3)
            result |= _block(f"text_model.encoder.layers.{index}", part, tensor)
        elif name == "text_projection":
            result["text_projection.weight"] = tensor.T.contiguous()
        elif name == "positional_embedding":
            result["text_model.embeddings.position_embedding.weight"] = tensor
        elif name == "token_embedding.weight":
            result["text_model.embeddings.token_embedding.weight"] = tensor
        else:
            result[name.replace("ln_final.", "text_model.final_layer_norm.")] = tensor
    return result


def _block(block: str, name: str, tensor: Tensor) -> dict[str, Tensor]:
    module, _, kind = name.rpartition(".")
    if kind.startswith("in_proj_"):
        parts = zip(("q", "k", "v"), tensor.chunk(3), strict=True)
        return {f"{block}.self_attn.{part}_proj.{kind.removeprefix('in_proj_')}": rows.clone() for part, rows in parts}
    return {f"{block}.{_BLOCK.get(module, module)}.{kind}": tensor}


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


def random_state(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return a random CLIP-ResNet under OpenAI's names for an `architectures.resnet_config`.

    Drawn from torch's global generator: weights with variance 1 / inputs, twice that before a ReLU, and batch norms
    with statistics as a trained model has them, neither 0 nor 1. Branches add little to their shortcuts and queries
    and keys are small: with a saturated attention pooling one rounding step would decide between two places.
    """
    vision, text = config["vision_config"], config["text_config"]
    state: dict[str, Tensor] = {}

    def convolution(name: str, outputs: int, inputs: int, side: int, gain: float = 1.0) -> None:
        number = name[-1]
        norm = name[:-1] + "1" if name.endswith("downsample.0") else name[: -len("conv1")] + f"bn{number}"
        state[f"{name}.weight"] = torch.randn(outputs, inputs, side, side) * (2 / (inputs * side * side)) ** 0.5
        state[f"{norm}.weight"] = gain * (0.5 + torch.rand(outputs))
        state[f"{norm}.bias"], state[f"{norm}.running_mean"] = 0.1 * torch.randn(2, outputs)
        state[f"{norm}.running_var"] = 0.5 + torch.rand(outputs)

    def linear(name: str, outputs: int, inputs: int, suffixes: tuple[str, str] = (".weight", ".bias")) -> None:
        state[name + suffixes[0]] = torch.randn(outputs, inputs) * inputs**-0.5
        state[name + suffixes[1]] = 0.02 * torch.randn(outputs)

    def norm(name: str, channels: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = torch.ones(channels), torch.zeros(channels)

    width = inputs = vision["width"]
    for number, (outputs, depth) in enumerate(((width // 2, 3), (width // 2, width // 2), (width, width // 2)), 1):
        convolution(f"visual.conv{number}", outputs, depth, 3)
    for stage, count in enumerate(vision["layers"]):
        inner = width << stage
        for index in range(count):
            block = f"visual.layer{stage + 1}.{index}"
            convolution(f"{block}.conv1", inner, inputs, 1)
            convolution(f"{block}.conv2", inner, inner, 3)
            convolution(f"{block}.conv3", 4 * inner, inner, 1, gain=0.2)
            if not index:
                convolution(f"{block}.downsample.0", 4 * inner, inputs, 1)
            inputs = 4 * inner
    places = (vision["image_size"] // 32) ** 2
    state["visual.attnpool.positional_embedding"] = torch.randn(places + 1, inputs) * inputs**-0.5
    for part, outputs in (("q", inputs), ("k", inputs), ("v", inputs), ("c", vision["features"])):
        linear(f"visual.attnpool.{part}_proj", outputs, inputs)
        if part in "qk":
            state[f"visual.attnpool.{part}_proj.weight"] *= 0.25
    hidden = text["hidden_size"]
    state["token_embedding.weight"] = 0.02 * torch.randn(text["vocab_size"], hidden)
    state["positional_embedding"] = 0.01 * torch.randn(text["max_position_embeddings"], hidden)
    for index in range(text["num_hidden_layers"]):
        block = f"transformer.resblocks.{index}"
        norm(f"{block}.ln_1", hidden)
        norm(f"{block}.ln_2", hidden)
        linear(f"{block}.attn.", 3 * hidden, hidden, ("in_proj_weight", "in_proj_bias"))
        linear(f"{block}.attn.out_proj", hidden, hidden)
        linear(f"{block}.mlp.c_fc", 4 * hidden, hidden)
        linear(f"{block}.mlp.c_proj", hidden, 4 * hidden)
    norm("ln_final", hidden)
    state["text_projection"] = torch.randn(hidden, text["projection_dim"]) * hidden**-0.5
    return {name: tensor.contiguous().clone() for name, tensor in state.items()}
