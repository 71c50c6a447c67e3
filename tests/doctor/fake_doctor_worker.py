"""A worker whose engines need nothing and misbehave as told; started by the tests as a program."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from vlmquant.bench.contenders import Contender, Running
from vlmquant.bench.worker import main
from vlmquant.doctor.contenders import PRODUCTS
from vlmquant.engines import Coverage, Layer


def work(seconds: float) -> Callable[[object], object]:
    return lambda inputs: time.sleep(seconds)


def crash(inputs: object) -> object:
    sys.stderr.write("illegal instruction\n")
    sys.stderr.flush()
    os._exit(132)


def refuse(inputs: object) -> object:
    raise RuntimeError("no such kernel")


RUNS = {
    "onnxruntime-float32": work(0.004),
    "onnxruntime-int8": crash,
    "openvino-float32": refuse,
    "openvino-bfloat16": work(0.002),
    "openvino-int8": work(0.001),
}


def coverage(share: float) -> Coverage:
    return Coverage("fake", (Layer("product", "MatMul", 1, "int8" if share else "float", "fake", True),))


def contender(run: Callable[[object], object], share: float | None) -> Contender:
    def build(path: Path, component: str, threads: int) -> Running:
        return Running(run, lambda: 1, None if share is None else lambda inputs: coverage(share))

    return Contender(runs_on="nothing", packages=(), build=build)


if __name__ == "__main__":
    main({name: contender(RUNS[name], 1.0 if product[1] == "int8" else None) for name, product in PRODUCTS.items()})
