"""An engine in a file of its own, as a contributor would write one: ONNX Runtime under another name."""

from dataclasses import replace
from pathlib import Path

from vlmquant.engines import Arithmetic, Cpu, GraphSession, Session, onnxruntime
from vlmquant.engines.audit import Coverage
from vlmquant.engines.entry import Activations, Engine, Preference
from vlmquant.engines.session import AnyArray

NAME = "fake"


def load(path: Path, threads: int | None, precision: str = "f32", arithmetic: Arithmetic = "integer") -> Session:
    session = onnxruntime.load(path, threads, precision, arithmetic)
    session.name = NAME
    return session


def load_graph(
    path: Path, threads: int | None, precision: str = "f32", arithmetic: Arithmetic = "integer"
) -> GraphSession:
    session = onnxruntime.load_graph(path, threads, precision, arithmetic)
    session.name = NAME
    return session


def audit(path: Path, *examples: AnyArray) -> Coverage:
    return replace(onnxruntime.audit(path, *examples), engine=NAME)


def preference(activations: Activations, cpu: Cpu) -> Preference:
    return Preference(9, f"it is the test's, for {activations} graphs on {cpu.machine}")


ENGINE = Engine(
    name=NAME,
    title="Fake",
    package="onnxruntime",
    precisions=("f32",),
    load=load,
    load_graph=load_graph,
    audit=audit,
    preference=preference,
    safe_arithmetic=lambda activations: "float",
    lacks=lambda precision: None,
)
