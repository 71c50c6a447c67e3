"""One contender of `dq-clip` in its own process: milliseconds for a picture, and the bytes of each tower.

    {"command": "run", "contender": name, "checkpoint": ..., "bundles": {name: folder}, "pixels": npy, "threads": n}

torch runs eager and as a TorchScript that came back from its file, in turn.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmquant.bundle.manifest import Manifest
from vlmquant.opening import RunsOn, open_named
from vlmquant.process import answer_requests

if TYPE_CHECKING:
    from torch import nn

FLOAT, DYNAMIC, TOKENS, OURS = "float32 in torch", "torch dynamic INT8", "dynamic-int8", "static-int8"
EAGER, SCRIPT, ENGINE = "eager", "TorchScript", "engine"
ITERATIONS, WARMUP = 10, 2
MLP_LINEARS = (".fc1", ".fc2")


def source_linears(tower: "nn.Module") -> list[str]:
    """Return the Linears of a tower that are in INT8 in the source's files: those of the MLPs.

    Its sizes say so: attention is one `nn.MultiheadAttention` there, which torch does not swap. All Linears of a tower
    without such MLPs.
    """
    from torch import nn

    linears = [name for name, module in tower.named_modules() if isinstance(module, nn.Linear)]
    return [name for name in linears if name.endswith(MLP_LINEARS)] or linears


def _torch(request: Mapping[str, Any], of_tower: Callable[["nn.Module"], "nn.Module"]) -> dict[str, Any]:
    import torch

    from vlmquant.bench.contenders import eager, scripted
    from vlmquant.checkpoints import load_model

    torch.set_num_threads(request["threads"])
    model = load_model(request["checkpoint"])
    towers = {component: of_tower(tower) for component, tower in model.graphs.items()}
    image, script = eager(towers["image"]), scripted(towers["image"])
    found = _timed({EAGER: image.run, SCRIPT: script.run}, request)
    return {
        "model": model.name,
        "ms": found,
        "bytes": {component: eager(tower).bytes_on_disk() for component, tower in towers.items()},
        "script_bytes": script.bytes_on_disk(),
    }


def _dynamic(tower: "nn.Module") -> "nn.Module":
    from vlmquant.bench.contenders import dynamic_int8

    return dynamic_int8(tower, source_linears(tower))


def _bundle(request: Mapping[str, Any]) -> dict[str, Any]:
    folder = Path(request["bundles"][request["contender"]])
    opened = open_named(folder, runs_on=RunsOn(threads=request["threads"]))
    manifest = Manifest.read(folder)
    found = {name: manifest.files[facts.file].bytes for name, facts in manifest.components.items()}
    return {
        "model": opened.encoder.name,
        "ms": _timed({ENGINE: opened.encoder.image_tower}, request),
        "bytes": found,
        "other_bytes": opened.about.bytes_on_disk - sum(found.values()),
    }


CONTENDERS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    FLOAT: partial(_torch, of_tower=lambda tower: tower),
    DYNAMIC: partial(_torch, of_tower=_dynamic),
    TOKENS: _bundle,
    OURS: _bundle,
}


def _timed(runs: Mapping[str, Callable[[Any], Any]], request: Mapping[str, Any]) -> dict[str, list[float]]:
    pixels = np.load(request["pixels"], allow_pickle=False)
    found: dict[str, list[float]] = {name: [] for name in runs}
    for iteration in range(WARMUP + ITERATIONS):
        for name, run in runs.items():
            start = perf_counter()
            run(pixels)
            if iteration >= WARMUP:
                found[name].append(1000 * (perf_counter() - start))
    return found


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Time and weigh the contender that `request` names."""
    return CONTENDERS[request["contender"]](request)


if __name__ == "__main__":
    answer_requests(answer)
