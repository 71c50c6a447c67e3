"""OpenAI's CLIP with a ResNet image tower (RN50 and its kin) as two float32 towers that quantize like any other.

`load_model` opens a folder with

- `config.json`: `{"model_type": "clip-resnet", "hidden_act": "quick_gelu"}`; `"gelu"` for OpenCLIP's own trainings,
- `model.safetensors` (or `pytorch_model.bin`, only with `allow_pickle`): the state dict under OpenAI's names, which
  OpenCLIP shares; every size is read off its shapes,
- `tokenizer.json`, `tokenizer_config.json` (with `model_max_length`, 77) and `preprocessor_config.json` of any OpenAI
  CLIP on the hub, the last with the picture size of these weights.

The image tower is Radford et al. 2021's "ModifiedResNet": a stem of three convolutions, strides taken by average
pooling, attention pooling at the end. Batch norms are folded into the convolutions before them, which is exact in
evaluation.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel

from vlmquant.checkpoints.checkpoint import Checkpoint, fill
from vlmquant.checkpoints.clip.model import ClipModel, TextTower, check_end_token
from vlmquant.checkpoints.clip.openai_names import fold_batch_norms, text_config, text_to_hugging_face
from vlmquant.checkpoints.processors import clip_images, clip_tokenizer
from vlmquant.errors import ModelError

HEAD_WIDTH = 64
EXPANSION = 4
STRIDE = 32
ACTIVATIONS = ("quick_gelu", "gelu")


class StoredTensor(nn.Identity):
    """A tensor that a static recipe rounds to a grid although no multiplication reads it next.

    ONNX Runtime runs a convolution in integers only if its output is rounded too, and here additions and average
    pooling stand between a convolution and the next one's input.
    """


class Bottleneck(nn.Module):
    """Three convolutions around a shortcut; a stride is average pooling before the last one and on the shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.conv1 = nn.Conv2d(inputs, width, 1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.pool = nn.Sequential(StoredTensor(), nn.AvgPool2d(stride)) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(width, outputs, 1)
        self.branch = StoredTensor()
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            # OpenAI's names count from the convolution on.
            parts = {"-1": nn.AvgPool2d(stride), "0": nn.Conv2d(inputs, outputs, 1), "stored": StoredTensor()}
            self.downsample = nn.Sequential(OrderedDict(parts))

    def forward(self, values: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        branch = functional.relu(self.conv1(values))
        branch = self.pool(functional.relu(self.conv2(branch)))
        return functional.relu(self.branch(self.conv3(branch)) + self.downsample(values))


class AttentionPool(nn.Module):
    """One attention whose only query is the mean of all places; plain Linears and two matrix products."""

    def __init__(self, width: int, places: int, features: int) -> None:
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.positional_embedding = nn.Parameter(torch.empty(places + 1, width))
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, features)

    def forward(self, values: Tensor) -> Tensor:
        """Map (n, width, h, w) to (n, features)."""
        tokens = values.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1) + self.positional_embedding
        query = self._heads(self.q_proj(tokens[:, :1]))
        keys, contents = self._heads(self.k_proj(tokens)), self._heads(self.v_proj(tokens))
        weights = torch.softmax(torch.matmul(query * HEAD_WIDTH**-0.5, keys.transpose(-1, -2)), dim=-1)
        pooled = torch.matmul(weights, contents).transpose(1, 2).flatten(1)
        return cast(Tensor, self.c_proj(pooled))

    def _heads(self, tokens: Tensor) -> Tensor:
        """Map (n, tokens, width) to (n, heads, tokens, width / heads)."""
        return tokens.reshape(len(tokens), -1, self.heads, HEAD_WIDTH).transpose(1, 2)


@dataclass(frozen=True, kw_only=True)
class ResNetSizes:
    """The sizes of an image tower: `layers` are the bottlenecks of the four stages, `width` the first stage's."""

    image_size: int
    layers: tuple[int, ...]
    width: int
    features: int

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> "ResNetSizes":
        """Read the sizes off OpenAI's state dict. Raises ModelError when it is not that of a CLIP-ResNet."""
        stages = (
            {name.split(".")[2] for name in state if name.startswith(f"visual.layer{stage}.")} for stage in range(1, 5)
        )
        try:
            places, width = state["visual.attnpool.positional_embedding"].shape
            return cls(
                image_size=STRIDE * round((places - 1) ** 0.5),
                layers=tuple(len(stage) for stage in stages),
                width=width // STRIDE,
                features=len(state["visual.attnpool.c_proj.weight"]),
            )
        except (KeyError, ValueError) as error:
            raise ModelError(
                f"the weights hold no CLIP-ResNet image tower ({error}); expected OpenAI's names, such as "
                "visual.layer1.0.conv1.weight and visual.attnpool.positional_embedding"
            ) from error


class ResNetTower(nn.Module):
    """Pixels (n, 3, image_size, image_size) float32 to features (n, d) float32, not normalized."""

    def __init__(self, sizes: ResNetSizes) -> None:
        super().__init__()
        width = sizes.width
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1)
        self.pool = nn.Sequential(StoredTensor(), nn.AvgPool2d(2))
        inputs = width
        for stage, count in enumerate(sizes.layers):
            blocks = []
            for index in range(count):
                blocks.append(Bottleneck(inputs, width << stage, stride=2 if stage and not index else 1))
                inputs = EXPANSION * (width << stage)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.attnpool = AttentionPool(inputs, (sizes.image_size // STRIDE) ** 2, sizes.features)

    def forward(self, pixels: Tensor) -> Tensor:
        """Run stem, stages and attention pooling."""
        values = pixels
        for convolution in (self.conv1, self.conv2, self.conv3):
            values = functional.relu(convolution(values))
        values = self.pool(values)
        for stage in range(1, 5):
            values = self.get_submodule(f"layer{stage}")(values)
        return cast(Tensor, self.attnpool(values))


class _Towers(nn.Module):
    """Everything that the weights fill."""

    def __init__(self, sizes: ResNetSizes, text: CLIPTextConfig) -> None:
        super().__init__()
        self.visual = ResNetTower(sizes)
        self.text_model = CLIPTextModel(text)
        self.text_projection = nn.Linear(text.hidden_size, sizes.features, bias=False)
        self.logit_scale = nn.Parameter(torch.empty(()))


def load_clip_resnet(checkpoint: Checkpoint, name: str, device: torch.device) -> ClipModel:
    """Build the two towers of `checkpoint`; see `vlmquant.checkpoints.load_model` and the top of this file."""
    folder, activation = checkpoint.folder, checkpoint.config.get("hidden_act")
    if activation not in ACTIVATIONS:
        raise ModelError(
            f'config.json in {folder} has hidden_act {activation!r}, expected "quick_gelu" (OpenAI\'s weights and '
            'OpenCLIP\'s "-quickgelu" models) or "gelu" (OpenCLIP\'s others)'
        )
    state = checkpoint.state
    sizes = ResNetSizes.of(state)
    text = CLIPTextConfig(**text_config(state, activation))
    tokenizer = clip_tokenizer(folder, text.max_position_embeddings, text.vocab_size)
    image_spec = clip_images(folder, sizes.image_size)
    with torch.device("meta"):
        towers = _Towers(sizes, text)
    fill(towers, {**fold_batch_norms(state), **text_to_hugging_face(state)}, folder)
    towers = towers.eval().requires_grad_(False).to(device)
    check_end_token(tokenizer, text)
    return ClipModel(
        name=name,
        folder=folder,
        image_tower=towers.visual,
        text_tower=TextTower(towers.text_model, towers.text_projection),
        image_spec=image_spec,
        tokenizer=tokenizer,
        logit_scale=float(towers.logit_scale.exp()),
        weights_sha256=checkpoint.weights_sha256,
        settings_sha256=checkpoint.settings_sha256,
        random_weights=checkpoint.random_weights,
    )
