"""What quantizing does to the final embedding: a plan of replacements, and the damage of any part of it."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmquant.quantize.calibrate import check_inputs

JUDGED_INPUTS = 32


@dataclass(frozen=True, eq=False)
class TowerPlan:
    """A float tower, smoothed where its recipe asks for it, and the modules that are to take its modules' places."""

    tower: nn.Module
    modules: Mapping[str, nn.Module]

    def without(self, kept_float: Collection[str]) -> "TowerPlan":
        """Return the plan that leaves the modules called `kept_float` as they are."""
        return TowerPlan(self.tower, {name: module for name, module in self.modules.items() if name not in kept_float})

    def carried_out(self) -> nn.Module:
        """Put the modules in, for good, and return the tower."""
        for name, module in self.modules.items():
            self.tower.set_submodule(name, module)
        return self.tower


class Judge:
    """Compares what a tower gives while parts of a plan are in it with what it gives as it is.

    Both are run on about `JUDGED_INPUTS` of the calibration inputs, spread evenly over all of them.
    """

    def __init__(self, tower: nn.Module, inputs: Sequence[Tensor]) -> None:
        check_inputs(inputs)
        self._batches = up_to(inputs, JUDGED_INPUTS)
        self._tower = tower
        self.expected = self._embeddings()

    def embeddings(self, modules: Mapping[str, nn.Module]) -> Tensor:
        """Return the unit rows (n, d), float32, that the tower gives with `modules` in the places of its own."""
        with swapped(self._tower, modules):
            return self._embeddings()

    def damage(self, modules: Mapping[str, nn.Module]) -> float:
        """Return 1 - mean cosine of the embeddings with `modules` to those without."""
        return cosine_loss(self.embeddings(modules), self.expected)

    def _embeddings(self) -> Tensor:
        with torch.inference_mode():
            return torch.cat([functional.normalize(self._tower(batch), dim=-1) for batch in self._batches])


def cosine_loss(rows: Tensor, expected: Tensor) -> float:
    """Return 1 - mean cosine of unit rows (n, d); a row that is not finite counts as 1, entirely lost."""
    cosines = (rows.double() * expected.double()).sum(dim=-1)
    return float((1 - cosines.nan_to_num(nan=0.0)).clamp(min=0).mean())


@contextmanager
def swapped(tower: nn.Module, modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Put `modules` in the places of the modules of `tower` that have their names, inside a `with`."""
    originals = {name: tower.get_submodule(name) for name in modules}
    try:
        for name, module in modules.items():
            tower.set_submodule(name, module)
        yield
    finally:
        # The other way round: a module may be wrapped after others were put into it.
        for name, module in reversed(originals.items()):
            tower.set_submodule(name, module)


def up_to(inputs: Sequence[Tensor], count: int) -> list[Tensor]:
    """Return batches spread evenly over `inputs` that hold about `count` inputs together."""
    per_batch = max(len(batch) for batch in inputs)
    wanted = max(1, count // per_batch)
    return list(inputs)[:: max(1, -(-len(inputs) // wanted))]
