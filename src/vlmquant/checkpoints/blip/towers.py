"""Graphs of several inputs as the one-input towers that calibration works on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Batch:
    """What a graph is called with: tensors whose first axis runs over the inputs of the batch."""

    tensors: tuple[Tensor, ...]

    def __len__(self) -> int:
        """Return how many inputs the batch holds."""
        return len(self.tensors[0])


class GraphTower(nn.Module):
    """One graph, a child of the name given, mapping a `Batch` to rows (n, d): whatever it returns, without its axes."""

    def __init__(self, graphs: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, graph in graphs.items():
            self.add_module(name, graph)

    def forward(self, batch: Batch) -> Tensor:
        """Run the graph; the last axis of its result stays."""
        (graph,) = self.children()
        rows: Tensor = graph(*batch.tensors)
        return rows.flatten(0, -2)


class DecodingTower(GraphTower):
    """The graphs "cross" and "decoder" as one: ids (n, t) and states (n, p, width) to the logits after the last id.

    All ids are read at once. What each layer sees is what it would see one id at a time, since no id sees the future.
    """

    def forward(self, batch: Batch) -> Tensor:
        """Return logits (n, vocabulary)."""
        ids, states = batch.tensors
        cross: Any = self.get_submodule("cross")
        memory = cross(states)
        rows, heads, _, width = memory[0].shape
        past = torch.zeros(len(memory) // 2, 2, rows, heads, 0, width)
        logits: Tensor = self.get_submodule("decoder")(ids, past, *memory)[0]
        return logits
