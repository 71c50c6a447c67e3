"""The contenders: what each needs, and how it runs one component inside its own process.

Nothing heavy is imported here before a contender is built.
"""

import io
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmquant.bench.measure import bytes_on_disk
from vlmquant.bench.writing import GENERATION, bundle_writer, float_writer
from vlmquant.engines import ENGINES, Coverage, Engine
from vlmquant.engines.session import AnyArray

if TYPE_CHECKING:
    import torch

CHECKPOINT, FLOAT_ONNX, BUNDLE = "checkpoint", "float ONNX", "bundle"
PRECISIONS = {"f32": "float32", "bf16": "bfloat16"}
"""The precisions of engines, as they are written in texts."""


@dataclass(frozen=True)
class Running:
    """A loaded contender: `run` maps one batch to its features; the other two are asked after all timing.

    `audit` takes an example batch; None where a share of integer arithmetic is not claimed.
    """

    run: Callable[[AnyArray], object]
    bytes_on_disk: Callable[[], int]
    audit: Callable[[AnyArray], Coverage] | None = None


@dataclass(frozen=True, kw_only=True)
class Contender:
    """`runs_on` says what `build` is given: a checkpoint folder or the path of an ONNX graph.

    `packages` must be installed. `build` takes (path, component, threads). `why_not` is asked first, in the same
    process, and returns the reason where this machine cannot run the contender. `writes`: it also times a BLIP from
    picture to text (the component `GENERATION`), given the folder of the checkpoint or bundle.
    """

    runs_on: str
    packages: tuple[str, ...]
    build: Callable[[Path, str, int], Running]
    why_not: Callable[[], str | None] = lambda: None
    writes: bool = False


def torch_fp32(path: Path, component: str, threads: int) -> Running:
    """Eager torch in float32."""
    if component == GENERATION:
        return _writing(*float_writer(path, threads))
    return eager(_torch_tower(path, component, threads))


def torch_dynamic_int8(path: Path, component: str, threads: int) -> Running:
    """Eager torch with every Linear in dynamic INT8, as `torch.ao.quantization.quantize_dynamic` makes it."""
    return eager(_dynamic_int8(path, component, threads))


def torchscript_dynamic_int8(path: Path, component: str, threads: int) -> Running:
    """The same model traced by TorchScript, written to a file and loaded from it.

    Tracing fixes the shape of the input in places, so each shape is traced at its first call, before its timing.
    """
    return scripted(_dynamic_int8(path, component, threads))


def scripted(tower: "torch.nn.Module") -> Running:
    """A tower traced by TorchScript, written to a file and loaded from it; the bytes are the file's."""
    import torch

    scripts: dict[tuple[int, ...], _Script] = {}

    def run(batch: AnyArray) -> AnyArray:
        with torch.inference_mode():
            inputs = torch.from_numpy(batch)
            if batch.shape not in scripts:
                scripts[batch.shape] = _script(tower, inputs)
            features: Any = scripts[batch.shape].module(inputs)
        return features.numpy()  # type: ignore[no-any-return]

    return Running(run, lambda: max(script.bytes_on_disk for script in scripts.values()))


def without_dynamic_int8() -> str | None:
    """Say so when torch no longer has its dynamic quantization."""
    import torch

    if find_spec("torch.ao.quantization") is None:
        return f"torch {torch.__version__} no longer has torch.ao.quantization"
    return None


TORCH = ("torch", "transformers")
# What torch says about its own ageing parts and about shapes that tracing fixes; tracing reads every property of
# transformers' modules, the deprecated ones too.
_EXPECTED_WARNINGS: tuple[tuple[str, type[Warning]], ...] = (
    (".*torch.ao.quantization is deprecated", DeprecationWarning),
    (".*quantized tensor creation functions", UserWarning),
    (".*torch.jit", DeprecationWarning),
    ("(?s).*trace might not generalize", Warning),
    (".*is_gradient_checkpointing", FutureWarning),
)


def float_contender(engine: str, precision: str) -> str:
    """Return the name of the contender that runs the float graph on `engine`, computing in `precision`."""
    return f"{engine}-{'fp32' if precision == 'f32' else precision}"


def bundle_contender(engine: str) -> str:
    """Return the name of the contender that runs the bundle on `engine`."""
    return f"bundle-{engine}"


def _float_graph(engine: Engine, precision: str) -> Contender:
    """The float ONNX graph, forced to compute in `precision`."""

    def build(path: Path, component: str, threads: int) -> Running:
        del component
        return Running(engine.load(path, threads, precision), lambda: bytes_on_disk(path))

    return Contender(
        runs_on=FLOAT_ONNX, packages=(*TORCH, engine.package), build=build, why_not=lambda: engine.lacks(precision)
    )


def _bundle_on(engine: Engine) -> Contender:
    """The bundle's graph."""

    def build(path: Path, component: str, threads: int) -> Running:
        if component == GENERATION:
            return _writing(*bundle_writer(engine.name, path, threads))
        return Running(
            engine.load(path, threads), lambda: bytes_on_disk(path), lambda example: engine.audit(path, example)
        )

    return Contender(runs_on=BUNDLE, packages=(engine.package,), build=build, writes=True)


CONTENDERS: dict[str, Contender] = {
    "torch-fp32": Contender(runs_on=CHECKPOINT, packages=TORCH, build=torch_fp32, writes=True),
    "torch-dynamic-int8": Contender(
        runs_on=CHECKPOINT, packages=TORCH, build=torch_dynamic_int8, why_not=without_dynamic_int8
    ),
    "torchscript-dynamic-int8": Contender(
        runs_on=CHECKPOINT, packages=TORCH, build=torchscript_dynamic_int8, why_not=without_dynamic_int8
    ),
    **{
        float_contender(name, precision): _float_graph(engine, precision)
        for name, engine in ENGINES.items()
        for precision in engine.precisions
    },
    **{bundle_contender(name): _bundle_on(engine) for name, engine in ENGINES.items()},
}


def _writing(run: Callable[[AnyArray], object], size: int) -> Running:
    return Running(run, lambda: size)


def _torch_tower(path: Path, component: str, threads: int) -> "torch.nn.Module":
    import torch

    from vlmquant.checkpoints import load_model

    torch.set_num_threads(threads)
    model = load_model(path, allow_pickle=True)  # `bench` settled which weights may be opened
    return model.image_tower if component == "image" else model.text_tower


def _dynamic_int8(path: Path, component: str, threads: int) -> "torch.nn.Module":
    return dynamic_int8(_torch_tower(path, component, threads))


def dynamic_int8(module: "torch.nn.Module", names: Iterable[str] | None = None) -> "torch.nn.Module":
    """Return a copy of `module` with every Linear, or those called `names`, in dynamic INT8 as torch makes it."""
    import torch
    from torch.ao.quantization import quantize_dynamic

    with _without_expected_warnings():
        chosen = {torch.nn.Linear} if names is None else set(names)
        return quantize_dynamic(module, chosen, dtype=torch.qint8)  # type: ignore[no-untyped-call, no-any-return]


@dataclass(frozen=True)
class _Script:
    """A TorchScript as it came back from its file."""

    module: Callable[["torch.Tensor"], Any]
    bytes_on_disk: int


def _script(tower: "torch.nn.Module", inputs: "torch.Tensor") -> _Script:
    import torch

    file = io.BytesIO()
    with _without_expected_warnings():
        torch.jit.save(torch.jit.trace(tower, inputs, check_trace=False), file)  # type: ignore[no-untyped-call]
        file.seek(0)
        return _Script(torch.jit.load(file), len(file.getvalue()))  # type: ignore[no-untyped-call]


@contextmanager
def _without_expected_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        for message, category in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message, category=category)
        yield


def eager(tower: "torch.nn.Module") -> Running:
    """A tower as torch calls it; the bytes are those of its saved state."""
    import torch

    def run(batch: AnyArray) -> AnyArray:
        with torch.inference_mode():
            features: Any = tower(torch.from_numpy(batch))
        return features.numpy()  # type: ignore[no-any-return]

    return Running(run, lambda: _saved_bytes(tower))


class _ByteCounter:
    """A file that forgets what is written to it and counts."""

    def __init__(self) -> None:
        self.count = 0

    def write(self, data: Any) -> int:
        self.count += len(data)
        return len(data)

    def flush(self) -> None: ...


def _saved_bytes(tower: "torch.nn.Module") -> int:
    import torch

    counter = _ByteCounter()
    torch.save(tower.state_dict(), counter)  # type: ignore[arg-type]
    return counter.count
