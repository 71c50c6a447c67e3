"""A loaded graph of several inputs and outputs as a function from arrays to arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlmquant.engines.session import AnyArray, Closable
from vlmquant.errors import EngineError

Run = Callable[[Sequence[AnyArray]], tuple[AnyArray, ...]]


@dataclass(frozen=True)
class Port:
    """One input of a graph: its `shape` has None for axes that may vary."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]

    def check(self, values: AnyArray) -> None:
        """Raise EngineError unless `values` fits; an axis that may vary may be empty."""
        fits = len(values.shape) == len(self.shape) and all(
            expected in (None, size) for size, expected in zip(values.shape, self.shape, strict=True)
        )
        if not fits or values.dtype != self.dtype:
            expected = ", ".join("any" if size is None else str(size) for size in self.shape)
            raise EngineError(
                f"input {self.name!r} takes {self.dtype} of shape ({expected}), got {values.dtype} of {values.shape}"
            )


class GraphSession(Closable[Run]):
    """A graph loaded by an engine, for one caller at a time.

    Call it with one array per input, in the graph's order, and it returns one float32 array per output. Inputs are
    read where they lie, without a copy, so large ones that stay the same from call to call cost nothing.
    `name` is the engine's name, `threads` how many threads the engine says it uses (None where it does not say).
    Raises EngineError for inputs that do not fit and for a call after `close`.
    """

    def __init__(
        self, *, name: str, threads: int | None, inputs: Sequence[Port], outputs: Sequence[str], run: Run
    ) -> None:
        super().__init__(name, run)
        self.threads = threads
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)

    def __call__(self, *arrays: AnyArray) -> tuple[AnyArray, ...]:
        """Return the graph's outputs for `arrays`."""
        run = self.running()
        if len(arrays) != len(self.inputs):
            names = ", ".join(port.name for port in self.inputs)
            raise EngineError(f"the graph takes {len(self.inputs)} inputs ({names}), got {len(arrays)}")
        for port, values in zip(self.inputs, arrays, strict=True):
            port.check(values)
        return run([np.ascontiguousarray(values) for values in arrays])
