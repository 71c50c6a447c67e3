"""A worker with contenders that need nothing; started by the tests as a program."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from vlmquant.bench.contenders import Contender, Running
from vlmquant.bench.worker import main
from vlmquant.engines import Coverage, Layer

COVERAGE = Coverage(
    "fake",
    (
        Layer("fast", "MatMul", 1, "int8", "quick_I8", True),
        Layer("slow", "MatMul", 1, "int8", "ref_I8", False),
        Layer("float", "MatMul", 2, "float", "quick_f32", True),
    ),
)


def builder(run: Callable[[object], object]) -> Callable[[Path, str, int], Running]:
    return lambda path, component, threads: Running(run, lambda: 1234, lambda example: COVERAGE)


def log_turn(batch: object) -> None:
    path = os.environ.get("FAKE_BENCH_LOG")
    if path:
        with open(path, "a", encoding="utf-8") as log:
            log.write(f"{os.getpid()} {len(batch)}\n")  # type: ignore[arg-type]


def print_noise(batch: object) -> None:
    print("a library that writes to standard output")
    os.write(1, b"and one that does so from C\n")


def raise_on_two(batch: object) -> None:
    if len(batch) == 2:  # type: ignore[arg-type]
        raise RuntimeError("two are\ntoo many")


def die_on_two(batch: object) -> None:
    if len(batch) == 2:  # type: ignore[arg-type]
        sys.stderr.write("first line\nout of luck\n")
        sys.stderr.flush()
        os._exit(7)


def hang_on_two(batch: object) -> None:
    if len(batch) == 2:  # type: ignore[arg-type]
        time.sleep(600)


FAKES = {
    name: Contender(runs_on="checkpoint", packages=(), build=builder(run))
    for name, run in {
        "good": log_turn,
        "good-too": log_turn,
        "noisy": print_noise,
        "raising": raise_on_two,
        "dying": die_on_two,
        "hanging": hang_on_two,
    }.items()
} | {
    "absent": Contender(
        runs_on="checkpoint", packages=(), build=builder(log_turn), why_not=lambda: "this CPU has no magic"
    )
}

if __name__ == "__main__":
    main(FAKES)
