"""The tuning behind `recover`: how long and how hard, and the loop that trains the students."""

import copy
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmquant.errors import CalibrationError, RecipeError
from vlmquant.progress import Track
from vlmquant.quantize.recipes.recipe import COMPONENTS
from vlmquant.quantize.recovery.student import Student

# How often, over one training, ranges and scales are measured again on the weights as they are then.
REFRESHES = 8
SIMILARITY_WEIGHT = 0.01
WARM_UP = 0.1
SMALLEST_CROP = 0.7
SAVE_EVERY_S = 60


@dataclass(frozen=True, kw_only=True)
class RecoverySettings:
    """How long and how hard to tune: at most `steps` of `batch` inputs, or `minutes`, whichever ends first.

    `device` is "auto" (CUDA when present), "cpu", "cuda" or "cuda:1".
    """

    steps: int = 400
    minutes: float | None = None
    batch: int = 32
    learning_rate: float = 3e-4
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("batch", self.batch), ("learning_rate", self.learning_rate)):
            if value <= 0:
                raise RecipeError(f"{name} of a recovery must be positive, got {value}")
        if self.minutes is not None and self.minutes <= 0:
            raise RecipeError(f"minutes of a recovery must be positive, got {self.minutes}")


class Tuning:
    """The training loop, its clock and its state on disk."""

    def __init__(
        self,
        teachers: Mapping[str, nn.Module],
        logit_scale: float,
        students: Mapping[str, Student],
        inputs: Mapping[str, Sequence[Tensor]],
        settings: RecoverySettings,
        device: torch.device,
    ) -> None:
        self.students, self.settings, self.device = students, settings, device
        self.teachers = {name: copy.deepcopy(tower).to(device) for name, tower in teachers.items()}
        self.inputs = {name: _by_shape(batches) for name, batches in inputs.items()}
        self.logit_scale = logit_scale
        self.generator = torch.Generator().manual_seed(settings.seed)
        parameters = [p for student in students.values() for p in student.latent.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
        self.steps_done, self.seconds = 0, 0.0

    def train(self, state: Path | None, key: str, track: Track) -> None:
        """Train to the end, from where the file `state` left it if it belongs to the tuning called `key`."""
        if state is not None:
            self._resume(state, key)
        started = saved = time.monotonic() - self.seconds
        refreshed_at = -1.0
        remaining = range(self.steps_done, self.settings.steps)
        with torch.inference_mode(False), torch.enable_grad():
            for _ in track(remaining, f"Tuning on {self.device}", len(remaining)):
                done = self._share_done()
                if done >= 1:
                    break
                if int(done * REFRESHES) > refreshed_at:
                    refreshed_at = int(done * REFRESHES)
                    for student in self.students.values():
                        student.refresh()
                self._step(done)
                self.steps_done += 1
                self.seconds = time.monotonic() - started
                if state is not None and time.monotonic() - saved > SAVE_EVERY_S:
                    saved = time.monotonic()
                    self._save(state, key)
        if state is not None:
            self._save(state, key)
        for student in self.students.values():
            student.latent.requires_grad_(False)

    def _share_done(self) -> float:
        share = self.steps_done / self.settings.steps
        return share if self.settings.minutes is None else max(share, self.seconds / 60 / self.settings.minutes)

    def _step(self, done: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * min(1, done / WARM_UP) * 0.5 * (1 + math.cos(math.pi * done))
        rows, wanted = {}, {}
        for name, student in self.students.items():
            batch = self._draw(name)
            rows[name] = student(batch)
            with torch.no_grad():
                wanted[name] = functional.normalize(self.teachers[name](batch), dim=-1)
        loss = torch.stack([(1 - (rows[name] * wanted[name]).sum(dim=-1)).mean() for name in rows]).sum()
        if len(rows) == len(COMPONENTS):
            loss = loss + SIMILARITY_WEIGHT * _similarity_loss(rows, wanted, self.logit_scale)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def _draw(self, component: str) -> Tensor:
        """Return a random batch: pixels cropped and mirrored at random, or texts of one length."""
        groups = self.inputs[component]
        sizes = torch.tensor([float(len(group)) for group in groups])
        group = groups[int(torch.multinomial(sizes, 1, generator=self.generator))]
        batch = group[torch.randint(len(group), (self.settings.batch,), generator=self.generator)].to(self.device)
        return batch if component == "text" else _varied(batch, self.generator)

    def _save(self, path: Path, key: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        state = {
            "key": key,
            "steps": self.steps_done,
            "seconds": self.seconds,
            "latent": {name: student.latent.state_dict() for name, student in self.students.items()},
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }
        torch.save(state, temporary)
        os.replace(temporary, path)

    def _resume(self, path: Path, key: str) -> None:
        if not path.is_file():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["key"] != key:
            raise CalibrationError(
                f"{path} is the state of a recovery with another model, recipe, data or settings; delete it or choose "
                "another work folder"
            )
        for name, student in self.students.items():
            student.latent.load_state_dict(state["latent"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        self.steps_done, self.seconds = state["steps"], state["seconds"]


def _similarity_loss(rows: Mapping[str, Tensor], wanted: Mapping[str, Tensor], scale: float) -> Tensor:
    """Return the KL divergence of the softmax over similarities from the teacher's, both directions averaged."""
    ours = scale * rows["image"] @ rows["text"].T
    theirs = scale * wanted["image"] @ wanted["text"].T
    pairs = ((ours, theirs), (ours.T, theirs.T))
    losses = [
        functional.kl_div(mine.log_softmax(-1), right.log_softmax(-1), reduction="batchmean", log_target=True)
        for mine, right in pairs
    ]
    return torch.stack(losses).mean()


def _varied(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random crop of (n, 3, height, width) blown up to the same size, mirrored half of the time."""
    height, width = pixels.shape[-2:]
    shrink, down, right, mirror = torch.rand(4, generator=generator).tolist()
    share = SMALLEST_CROP + (1 - SMALLEST_CROP) * shrink
    tall, wide = round(share * height), round(share * width)
    top, left = round(down * (height - tall)), round(right * (width - wide))
    crop = pixels[..., top : top + tall, left : left + wide]
    varied = functional.interpolate(crop, size=(height, width), mode="bilinear", align_corners=False)
    return varied.flip(-1) if mirror < 0.5 else varied


def _by_shape(batches: Sequence[Tensor]) -> list[Tensor]:
    """Join batches whose inputs have the same shape."""
    shapes = dict.fromkeys(batch.shape[1:] for batch in batches)
    return [torch.cat([batch for batch in batches if batch.shape[1:] == shape]) for shape in shapes]
