"""What both engines hand back: one loaded graph as a function from an array to an array."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from vlmquant.errors import EngineError
from vlmquant.models.spec import FloatArray

Run = TypeVar("Run", bound=Callable[..., Any])
AnyArray: TypeAlias = NDArray[Any]
Arithmetic: TypeAlias = Literal["integer", "float", "wide"]
"""How a graph's quantized products are computed: "integer" in the engine's INT8 kernels, or so that no sum overflows on
any CPU: "float", the same integers taken as float32 numbers, or "wide", those of MatMulInteger widened to 16 bits and
added in 32, the others as in "float". Slower, and equal but for the order of sums."""


class Closable(Generic[Run]):
    """Something loaded that runs until it is closed, at the latest at the end of a `with`."""

    def __init__(self, name: str, run: Run) -> None:
        self.name = name
        self._run: Run | None = run

    def running(self) -> Run:
        """Return what runs. Raises EngineError after `close`."""
        if self._run is None:
            raise EngineError(f"this {self.name} session is closed; load the graph again")
        return self._run

    def close(self) -> None:
        """Let go of the engine's memory; closing twice does nothing."""
        self._run = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Session(Closable[Callable[[AnyArray], AnyArray]]):
    """A graph of one input and one output, loaded by an engine; for one caller at a time.

    Call it with the graph's input, (n, ...) of the graph's dtype, n >= 1, and it returns (n, ...) float32.
    `name` is the engine's name, `threads` how many threads the engine says it uses (None where it does not say),
    `input_shape` the graph's input with None for axes that may vary.
    Raises EngineError for an input that does not fit and for a call after `close`.
    """

    def __init__(
        self,
        *,
        name: str,
        threads: int | None,
        input_shape: tuple[int | None, ...],
        input_dtype: np.dtype[Any],
        run: Callable[[AnyArray], AnyArray],
    ) -> None:
        super().__init__(name, run)
        self.threads = threads
        self.input_shape = input_shape
        self.input_dtype = input_dtype

    def __call__(self, inputs: AnyArray) -> FloatArray:
        """Return the graph's output for `inputs` as float32."""
        run = self.running()
        self._check(inputs)
        return np.asarray(run(np.ascontiguousarray(inputs)), dtype=np.float32)

    def _check(self, inputs: AnyArray) -> None:
        fits = len(inputs.shape) == len(self.input_shape) and all(
            size >= 1 and expected in (None, size)
            for size, expected in zip(inputs.shape, self.input_shape, strict=True)
        )
        if not fits or inputs.dtype != self.input_dtype:
            expected = ", ".join("any" if size is None else str(size) for size in self.input_shape)
            raise EngineError(
                f"the graph takes {self.input_dtype} of shape ({expected}) without empty axes, "
                f"got {inputs.dtype} of shape {inputs.shape}"
            )


def import_engine(package: str) -> Any:
    """Import an engine's package. Raises EngineError where it is missing or broken.

    A signal that arrives meanwhile comes out of the package as an ImportError; it goes on as what it was.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        inner = error.__cause__ or error.__context__
        while inner is not None:
            if isinstance(inner, KeyboardInterrupt | SystemExit):
                raise inner from None
            inner = inner.__cause__ or inner.__context__
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            raise EngineError(f"the engine {package} is not installed; run: pip install {package}") from error
        raise EngineError(
            f"the engine {package} cannot be loaded ({error}); run: pip install --force-reinstall {package}"
        ) from error


def check_request(engine: str, path: Path, threads: int | None, precision: str, precisions: tuple[str, ...]) -> None:
    """Raise EngineError for a file that is not there, fewer than one thread or a precision the engine lacks."""
    if not path.is_file():
        raise EngineError(f"{path} is not a file; expected an ONNX graph")
    if threads is not None and threads < 1:
        raise EngineError(f"threads must be at least 1, got {threads}")
    if precision not in precisions:
        raise EngineError(f"{engine} computes in {' or '.join(precisions)}, not in {precision!r}")
