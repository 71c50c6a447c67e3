"""This project beside its peers in one run: the same float model, calibration samples and evaluation data for all.

    PEERS=/tmp/peers-venv/bin/python
    $PEERS benchmarks/peers.py real   -o benchmarks/results/peers-real-tiny.json --shared ../shared/data
    $PEERS benchmarks/peers.py street -o benchmarks/results/peers-street.json
    $PEERS benchmarks/peers.py real --stressed -o benchmarks/results/peers-stress-real-tiny.json
    $PEERS benchmarks/peers_speed.py  -o benchmarks/results/peers-vit-b-32.json

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
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from accuracy import (
    BUDGETED,
    DATA,
    Data,
    Pixels,
    Rows,
    against_float,
    budgeted,
    encode,
    limited,
    preprocessed,
    score,
    show,
)
from peers_build import FILE_PEERS, TORCH_PEERS, Built, Tower, on_engine, on_torch

from vlmquant import get_recipe, load_model
from vlmquant.bench.environment import this_environment
from vlmquant.build.build import quantize_model
from vlmquant.build.export import export_tower
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.checkpoints.clip_inputs import calibration_inputs
from vlmquant.engines import ENGINES
from vlmquant.lab.stress import stressed
from vlmquant.progress import bar
from vlmquant.quantize.recipes.recipe import COMPONENTS
from vlmquant.tasks.result import save_json

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
        module = model.image_tower if component == "image" else model.text_tower
        path = folder / f"{component}.onnx"
        if not path.exists():
            export_tower(module, torch.cat([inputs[0][:1]] * 2), (0, 1) if component == "text" else (0,), path)
        samples = [sample[None].numpy() for batch in inputs for sample in batch]
        towers[component] = Tower(component=component, module=module, float_onnx=path, samples=samples)
    return towers


def contenders(model: ClipModel, data: Data, folder: Path) -> Iterator[Contender]:
    """Yield the float reference first, then the peers, then ours."""
    calibration = data.calibration
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
        budgeted(model, data, bundle)
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
        yield Contender(name, lambda name=name: of_peer(name))
    for name in ACCURACY_TORCH_PEERS:
        yield Contender(name, lambda name=name: of_torch(name))
    for engine in ENGINES:
        yield Contender(f"ours-{OURS}-{engine}", lambda engine=engine: ours(engine))
    yield Contender(f"ours-{BUDGETED}-openvino", within_budget)


def embed(contender: Contender, model: ClipModel, data: Data, pixels: Pixels) -> tuple[Rows, int]:
    """Build a contender and return all its embeddings and the bytes of both towers."""
    built = contender.build()
    encoder = replace(
        model.encoder(), name=contender.name, image_tower=built["image"].run, text_tower=built["text"].run
    )
    return encode(encoder, data, pixels), sum(tower.bytes_on_disk for tower in built.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=list(DATA))
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--stressed", action="store_true")
    parser.add_argument("--limit", type=int, help="only the first so many images of either set, for a trial")
    parser.add_argument("--contenders", nargs="+", default=["*"], help="patterns; the others are left to a later call")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    data = limited(DATA[arguments.data](arguments.shared), arguments.limit)
    model = load_model(data.checkpoint)
    model = stressed(model) if arguments.stressed else model
    pixels = preprocessed(data, model.image_spec)
    partial = arguments.output.with_suffix(".partial.json")
    results: dict[str, Any] = json.loads(partial.read_text()) if partial.exists() else {}
    unfinished = False
    with tempfile.TemporaryDirectory() as scratch:
        everyone = contenders(model, data, Path(scratch))
        before, float_bytes = embed(next(everyone), model, data, pixels)
        for contender in everyone:
            if contender.name in results or not any(fnmatch(contender.name, p) for p in arguments.contenders):
                unfinished = unfinished or contender.name not in results
                continue
            results[contender.name] = outcome(contender, before, model, data, pixels)
            save_json(partial, results)
    if unfinished:
        return
    content = {
        "model": model.name,
        "weights_sha256": model.weights_sha256,
        "calibration": data.calibration.to_dict(),
        "protocols": [str(result.protocol) for result in score(before, before, data)],
        "float_bytes": float_bytes,
        "contenders": results,
        "peers": {package: installed(package) for package in PACKAGES},
        "environment": asdict(this_environment()),
    }
    save_json(arguments.output, content)
    partial.unlink()


def outcome(contender: Contender, before: Rows, model: ClipModel, data: Data, pixels: Pixels) -> dict[str, Any]:
    """Return a contender's scores against the float model, or why there are none."""
    try:
        after, size = embed(contender, model, data, pixels)
    except Exception as error:  # whatever a peer raises is its result
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"{contender.name:30} failed: {reason}", flush=True)
        return {"outcome": "failed", "reason": reason}
    found = {"outcome": "ran", "bytes_on_disk": size, **against_float(after, before, data)}
    show(contender.name, found)
    return found


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
