"""One contender of `benchmarks.peers_speed` in its own process; speaks the protocol of `vlmquant.bench.worker`."""

import sys
from pathlib import Path

from benchmarks.peers_build import FILE_PEERS, TORCH_PEERS, file_bytes, on_torch
from vlmquant.bench.contenders import Contender, Running
from vlmquant.bench.worker import main
from vlmquant.engines import ENGINES, engine

WORKER = (sys.executable, "-m", "benchmarks.peers_worker")
FLOAT_ONNX, OURS_ONNX = "float", "ours"


def _graph(name: str) -> Contender:
    def build(path: Path, component: str, threads: int) -> Running:
        one = engine(name)
        audit = (lambda example: one.audit(path, example)) if path.suffix == ".onnx" else None
        return Running(one.load(path, threads), lambda: file_bytes(path), audit)

    return Contender(runs_on="graph", packages=(name,), build=build)


def _torch(name: str) -> Contender:
    def build(path: Path, component: str, threads: int) -> Running:
        # Imported here: the other contenders' memory is measured too.
        import torch

        from benchmarks.towers import tower_of
        from vlmquant.checkpoints import load_model

        torch.set_num_threads(threads)
        built = on_torch(TORCH_PEERS[name](tower_of(load_model(path), component)))
        return Running(built.run, lambda: built.bytes_on_disk)

    return Contender(runs_on="checkpoint", packages=("torch",), build=build)


CONTENDERS: dict[str, Contender] = {
    f"{FLOAT_ONNX}-openvino": _graph("openvino"),
    **{f"{OURS_ONNX}-{name}": _graph(name) for name in ENGINES},
    **{f"{name}-on-{where}": _graph(where) for name, peer in FILE_PEERS.items() for where in peer.engines},
    **{name: _torch(name) for name in TORCH_PEERS},
}


if __name__ == "__main__":
    main(CONTENDERS)
