"""Training of the co-attention network on features that are computed once: MCAN's recipe (Yu et al. 2019, section 4.2).

Soft targets, binary cross-entropy summed over the answers, Adam (0.9, 0.98), three epochs of warm-up, the rate times
0.2 after epochs 10 and 12, 13 epochs in all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from vlmquant.errors import DataError
from vlmquant.lab.coattention.features import TokenFeatures
from vlmquant.lab.coattention.network import Mcan, McanConfig
from vlmquant.models.spec import FloatArray

Report = Callable[[int, float], None]
"""Called after every epoch with its number and mean loss per question."""


@dataclass(frozen=True, kw_only=True)
class TrainingSchedule:
    """How long and how fast; the defaults are MCAN's, with rates for batches of 64."""

    epochs: int = 13
    batch_size: int = 64
    peak_rate: float = 1e-4
    warm_up_epochs: int = 3
    decay_after: tuple[int, ...] = (10, 12)
    decay: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.peak_rate <= 0:
            raise DataError(f"epochs, batch size and rate must be positive, got {self}")

    def rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        warm = min(1.0, (epoch + 1) / (self.warm_up_epochs + 1))
        return self.peak_rate * warm * self.decay ** sum(epoch >= after for after in self.decay_after)


@dataclass(frozen=True, eq=False)
class Examples:
    """Features and targets: row i asks with `tokens[i]` about `patches[image_indices[i]]`.

    `patches` (images, p, width) may be float16 and memory-mapped, `targets` (n, answers) float32 in [0, 1].
    """

    patches: np.ndarray
    image_indices: np.ndarray
    tokens: TokenFeatures
    targets: FloatArray


def train(
    config: McanConfig,
    examples: Examples,
    schedule: TrainingSchedule,
    checkpoint: Path,
    report: Report = lambda *_: None,
) -> Mcan:
    """Return the trained network; `checkpoint` is written after every epoch, and where it exists training goes on.

    Uses CUDA where there is one.
    """
    torch.manual_seed(schedule.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = Mcan(config).to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=schedule.peak_rate, betas=(0.9, 0.98), eps=1e-9)
    done = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True, map_location=device)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        done = saved["epochs"]
    for epoch in range(done, schedule.epochs):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(epoch)
        report(epoch, _epoch(network, optimizer, examples, schedule, epoch, device))
        state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "epochs": epoch + 1}
        torch.save(state, checkpoint.with_suffix(".tmp"))
        checkpoint.with_suffix(".tmp").replace(checkpoint)
    return network.cpu().eval().requires_grad_(False)


def _epoch(
    network: Mcan,
    optimizer: torch.optim.Optimizer,
    examples: Examples,
    schedule: TrainingSchedule,
    epoch: int,
    device: torch.device,
) -> float:
    order = np.random.default_rng([schedule.seed, epoch]).permutation(len(examples.image_indices))
    total = 0.0
    for start in range(0, len(order), schedule.batch_size):
        rows = np.sort(order[start : start + schedule.batch_size])
        patches = torch.from_numpy(np.asarray(examples.patches[examples.image_indices[rows]], dtype=np.float32))
        tokens = examples.tokens[rows]
        logits = network(
            patches.to(device), torch.from_numpy(tokens.rows).to(device), torch.from_numpy(tokens.padding).to(device)
        )
        targets = torch.from_numpy(examples.targets[rows]).to(device)
        loss = functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
        optimizer.zero_grad()
        torch.autograd.backward(loss / len(rows))
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        total += float(loss.detach())
    return total / len(order)
