"""This project beside its peers in one run: the same float model, calibration samples and evaluation data for all.

    PEERS=/tmp/peers-venv/bin/python
    $PEERS -m benchmarks peers real   -o benchmarks/results/peers-real-tiny.json --shared ../shared/data
    $PEERS -m benchmarks peers street -o benchmarks/results/peers-street.json
    $PEERS -m benchmarks peers real   -o benchmarks/results/peers-stress-real-tiny.json --stressed
    $PEERS -m benchmarks peers street -o benchmarks/results/peers-stress-street.json --stressed
    $PEERS -m benchmarks peers_speed  -o benchmarks/results/peers-vit-b-32.json

NNCF and torchao are no dependencies of the project and stay out of its environment. They live in one of their own that
sees the project's packages through a .pth file, so that all contenders run on the same torch, OpenVINO and ONNX
Runtime (Python 3.11, from the repository's root):

    python3.11 -m venv --without-pip /tmp/peers-venv
    site=/tmp/peers-venv/lib/python3.11/site-packages
    printf '%s\\n' "$PWD/.venv/lib/python3.11/site-packages" "$PWD/src" > $site/main.pth
    /tmp/peers-venv/bin/python -m pip install --no-deps nncf==3.4.0 torchao==0.18.0 tabulate pydot ninja \\
        scikit-learn scipy

Every contender calibrates on the same images and captions, one at a time where the peers want it so. The reference is
the float model on OpenVINO forced to float32. A contender that cannot be built or run is a row with its reason. A run
that was stopped goes on from its `.partial.json`.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.accuracy import BUDGETED, budgeted
from benchmarks.data import DATA, add_data
from benchmarks.peers_build import FILE_PEERS, TORCH_PEERS, Built, Tower, on_engine, on_torch
from benchmarks.results import ResultFile, add_output
from benchmarks.scoring import COMBINATIONS, Rows, Subject, against_float, encode, score, show, subject_of
from benchmarks.towers import tower_of
from vlmquant import get_recipe
from vlmquant.build.build import quantize_model
from vlmquant.build.export import export_tower
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.checkpoints.clip.inputs import calibration_inputs
from vlmquant.engines import ENGINES
from vlmquant.progress import bar
from vlmquant.quantize.recipes.recipe import COMPONENTS

THREADS = 1
FLOAT = "float"
OURS = "static-int8"
PACKAGES = ("nncf", "torchao", "onnxruntime", "openvino", "torch")
# Compiled or not, torchao computes the same; its speed is measured elsewhere.
ACCURACY_TORCH_PEERS = ("torch-dynamic-int8", "torchao-dynamic-int8")


@dataclass(frozen=True)
class Contender:
    """`build` returns both towers as they run; it may raise, and that is then the contender's result."""

    name: str
    build: Callable[[], Mapping[str, Built]]


def towers_of(model: ClipModel, calibration: CalibrationSet, folder: Path) -> dict[str, Tower]:
    """Export both float towers and lay out the calibration samples one by one."""
    folder.mkdir(parents=True, exist_ok=True)
    towers = {}
    for component in COMPONENTS:
        inputs = calibration_inputs(model, calibration, component)
        module = tower_of(model, component)
        path = folder / f"{component}.onnx"
        if not path.exists():
            export_tower(module, torch.cat([inputs[0][:1]] * 2), (0, 1) if component == "text" else (0,), path)
        samples = [sample[None].numpy() for batch in inputs for sample in batch]
        towers[component] = Tower(component=component, module=module, float_onnx=path, samples=samples)
    return towers


def contenders(subject: Subject, folder: Path) -> Iterator[Contender]:
    """Yield the float reference first, then the peers, then ours."""
    model, calibration = subject.model, subject.data.calibration
    towers = towers_of(model, calibration, folder / FLOAT)

    def of_files(paths: Callable[[str], Path], engine: str) -> Mapping[str, Built]:
        return {component: on_engine(paths(component), engine, THREADS) for component in COMPONENTS}

    def ours(engine: str) -> Mapping[str, Built]:
        bundle = folder / OURS
        if not bundle.exists():
            quantize_model(model, get_recipe(OURS), calibration, bundle, track=bar)
        return of_files(lambda component: bundle / f"{component}.onnx", engine)

    def within_budget() -> Mapping[str, Built]:
        bundle = folder / BUDGETED
        budgeted(model, subject.data, bundle)
        return of_files(lambda component: bundle / f"{component}.onnx", "openvino")

    def of_peer(name: str) -> Mapping[str, Built]:
        peer = FILE_PEERS[name]
        (folder / name).mkdir(exist_ok=True)
        paths = {component: folder / name / f"{component}{peer.suffix}" for component in COMPONENTS}
        for component, path in paths.items():
            if not path.exists():
                peer.write(towers[component], path)
        return of_files(paths.__getitem__, peer.engines[0])

    def of_torch(name: str) -> Mapping[str, Built]:
        return {component: on_torch(TORCH_PEERS[name](tower.module)) for component, tower in towers.items()}

    yield Contender(FLOAT, lambda: of_files(lambda component: towers[component].float_onnx, "openvino"))
    for name in FILE_PEERS:
        yield Contender(name, partial(of_peer, name))
    for name in ACCURACY_TORCH_PEERS:
        yield Contender(name, partial(of_torch, name))
    for engine in ENGINES:
        yield Contender(f"ours-{OURS}-{engine}", partial(ours, engine))
    yield Contender(f"ours-{BUDGETED}-openvino", within_budget)


def embed(contender: Contender, subject: Subject) -> tuple[Rows, int]:
    """Build a contender and return all its embeddings and the bytes of both towers."""
    built = contender.build()
    encoder = replace(
        subject.model.encoder(), name=contender.name, image_tower=built["image"].run, text_tower=built["text"].run
    )
    return encode(encoder, subject), sum(tower.bytes_on_disk for tower in built.values())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    add_output(parser)
    parser.add_argument("--stressed", action="store_true")
    parser.add_argument("--contenders", nargs="+", default=["*"], help="patterns; the others are left to a later call")


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(THREADS)
    data = DATA[arguments.data](arguments.shared).limited(arguments.limit)
    subject = subject_of(data, stress=arguments.stressed)
    unfinished = False
    with tempfile.TemporaryDirectory() as scratch:
        everyone = contenders(subject, Path(scratch))
        before, float_bytes = embed(next(everyone), subject)
        head = {
            **subject.facts(),
            "protocols": [str(scored.protocol) for scored in score(before, before, data)],
            "peers": installed_peers(),
        }
        result = ResultFile(arguments.output, head)
        for contender in everyone:
            if contender.name in result.rows:
                continue
            if any(fnmatch(contender.name, pattern) for pattern in arguments.contenders):
                result.add(contender.name, outcome(contender, before, subject))
            else:
                unfinished = True
    if not unfinished:
        result.save({"float_bytes": float_bytes, "contenders": result.rows})


def outcome(contender: Contender, before: Rows, subject: Subject) -> dict[str, Any]:
    """Return a contender's scores against the float model, or why there are none."""
    try:
        after, size = embed(contender, subject)
    except Exception as error:  # whatever a peer raises is its result
        print(f"{contender.name:30} failed: {one_line(error)}", flush=True)
        return {"outcome": "failed", "reason": one_line(error)}
    found = {"outcome": "ran", "bytes_on_disk": size, **against_float(after, before, subject.data)}
    for combination in COMBINATIONS:
        show(f"{contender.name}, {combination}", found[combination])
    return found


def one_line(error: Exception) -> str:
    """Return the reason for a row."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def installed_peers() -> dict[str, str | None]:
    """Return the versions of all that is compared; None for what is not installed."""
    return {package: _installed(package) for package in PACKAGES}


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
