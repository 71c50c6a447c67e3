"""A trained co-attention network with the CLIP under it: answers questions, goes to disk and comes back."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from vlmquant.errors import ModelError
from vlmquant.files import write_whole
from vlmquant.lab.coattention.answers import Answers
from vlmquant.lab.coattention.features import ClipFeatures, TokenFeatures
from vlmquant.lab.coattention.network import Mcan, McanConfig
from vlmquant.models.spec import FloatArray, Image

WEIGHTS, CONFIG = "model.safetensors", "config.json"
BATCH = 128


@dataclass(frozen=True, eq=False)
class McanAnswerer:
    """Implements the Answerer protocol: the likeliest of the known answers."""

    features: ClipFeatures
    network: Mcan
    answers: Answers

    @property
    def name(self) -> str:
        """What to call it in tables: the CLIP under it."""
        return f"MCAN on {self.features.name}"

    def answer(self, images: Sequence[Image], questions: Sequence[str]) -> list[str]:
        """Return one answer per question; `images[i]` is what question i is about, and is looked at once for all.

        Raises ModelError when empty.
        """
        if len(images) != len(questions) or not questions:
            raise ModelError(f"{len(questions)} questions to {len(images)} images; expected one image for each")
        if bare := [index for index, question in enumerate(questions) if not question.strip()]:
            raise ModelError(f"question {bare[0]} is empty; ask something")
        distinct = {id(image): image for image in images}
        place = {key: row for row, key in enumerate(distinct)}
        chosen = np.array([place[id(image)] for image in images])
        patches = self.features.patches(list(distinct.values()))
        return self.answer_features(patches, chosen, self.features.tokens(questions))

    def answer_features(self, patches: FloatArray, image_indices: np.ndarray, tokens: TokenFeatures) -> list[str]:
        """Return one answer per row of `tokens`, which asks about row `image_indices[i]` of `patches`."""
        found: list[str] = []
        with torch.inference_mode():
            for start in range(0, len(image_indices), BATCH):
                rows = np.arange(start, min(start + BATCH, len(image_indices)))
                logits = self.network(
                    torch.from_numpy(np.asarray(patches[image_indices[rows]], dtype=np.float32)),
                    torch.from_numpy(tokens.rows[rows]),
                    torch.from_numpy(tokens.padding[rows]),
                )
                found += [self.answers.texts[index] for index in logits.argmax(dim=1).tolist()]
        return found

    def save(self, folder: Path) -> None:
        """Write the network (float16) and its configuration; the CLIP is named by the hash of its weights."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.half().contiguous() for name, tensor in self.network.state_dict().items()}
        content = {
            "model_type": "mcan",
            "clip_weights_sha256": self.features.model.weights_sha256,
            "network": dataclasses.asdict(self.network.config),
            "answers": list(self.answers.texts),
        }
        write_whole(folder / WEIGHTS, safetensors.torch.save(state))
        write_whole(folder / CONFIG, json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path, features: ClipFeatures) -> "McanAnswerer":
        """Read what `save` wrote, over `features` of the same CLIP, float or quantized.

        Raises ModelError when a file is missing or damaged or the network was trained on another CLIP.
        """
        try:
            content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            network, answers = Mcan(McanConfig(**content["network"])), Answers(tuple(content["answers"]))
            state = safetensors.torch.load_file(folder / WEIGHTS)
            network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
            trained_on = content["clip_weights_sha256"]
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, safetensors.SafetensorError) as error:
            raise ModelError(
                f"{folder} holds no co-attention network that can be read ({error}); train it again"
            ) from error
        if trained_on != features.model.weights_sha256:
            raise ModelError(
                f"the network in {folder} was trained on a CLIP with weights {trained_on[:12]}…, "
                f"{features.name} has {features.model.weights_sha256[:12]}…; train one for this CLIP"
            )
        return cls(features, network.eval().requires_grad_(False), answers)
