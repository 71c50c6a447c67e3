"""A family in a file of its own, as a contributor would write one: a dual encoder without attention.

Its `config.json` has a layout of its own, and so do the names of its tensors.
"""

import json
import shutil
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from vlmquant.checkpoints.checkpoint import Checkpoint, fill
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.checkpoints.families import Family
from vlmquant.checkpoints.processors import clip_images, clip_tokenizer

PATCH, WIDTH, FEATURES = 8, 32, 24


class Image(nn.Module):
    """Pixels (n, 3, height, width) float32 to features (n, d) float32."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, stride=PATCH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.project = nn.Linear(WIDTH, FEATURES)

    def forward(self, pixels: Tensor) -> Tensor:
        """Run every patch through the same layers and take the mean."""
        patches = self.patches(pixels).flatten(2).transpose(1, 2)
        return self.project(torch.relu(self.mix(patches)).mean(dim=1))


class Text(nn.Module):
    """Token ids (n, length) int64 to features (n, d) float32; what follows the first end token changes nothing."""

    def __init__(self, words: int, end: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.project = nn.Linear(WIDTH, FEATURES)
        self.end = end

    def forward(self, ids: Tensor) -> Tensor:
        """Run every token through the same layers and take the mean."""
        ends = (ids == self.end).to(torch.float32)
        read = ((ends.cumsum(dim=1) - ends) == 0).to(torch.float32).unsqueeze(-1)
        return self.project((torch.relu(self.mix(self.words(ids))) * read).sum(dim=1) / read.sum(dim=1))


class Both(nn.Module):
    """Everything that the weights fill."""

    def __init__(self, words: int, end: int) -> None:
        super().__init__()
        self.eye, self.ear = Image(), Text(words, end)


def load_fake(checkpoint: Checkpoint, name: str, device: torch.device) -> ClipModel:
    """Build the two towers of `checkpoint`."""
    settings = checkpoint.config["fake"]
    tokenizer = clip_tokenizer(checkpoint.folder, settings["tokens"], settings["words"])
    with torch.device("meta"):
        both = Both(settings["words"], tokenizer.eos_id)
    fill(both, checkpoint.state, checkpoint.folder)
    both = both.eval().requires_grad_(False).to(device)
    return ClipModel(
        name=name,
        folder=checkpoint.folder,
        image_tower=both.eye,
        text_tower=both.ear,
        image_spec=clip_images(checkpoint.folder, settings["pixels"]),
        tokenizer=tokenizer,
        logit_scale=settings["scale"],
        weights_sha256=checkpoint.weights_sha256,
        settings_sha256=checkpoint.settings_sha256,
        random_weights=checkpoint.random_weights,
    )


FAMILY = Family("a fake", ("dual-encoder",), load_fake)


def write_fake(folder: Path, clip: Path, seed: int = 0) -> Path:
    """Write a checkpoint with random weights and the tokenizer and image settings of the tiny `clip`."""
    folder.mkdir()
    for name in ("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(clip / name, folder / name)
    text = json.loads((clip / "config.json").read_text())["text_config"]
    settings = {"words": text["vocab_size"], "tokens": text["max_position_embeddings"], "pixels": 32, "scale": 10.0}
    (folder / "config.json").write_text(json.dumps({"model_type": "fake", "fake": settings}))
    torch.manual_seed(seed)
    safetensors.torch.save_file(Both(settings["words"], 0).state_dict(), folder / "model.safetensors")
    return folder
