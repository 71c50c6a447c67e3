"""The one entry of all benchmarks: `python -m benchmarks NAME --help` says what it measures and how to run it."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast

from vlmquant.errors import VlmQuantError, unknown

BENCHMARKS: dict[str, str] = {
    "accuracy": "benchmarks.accuracy",
    "bench_blip": "benchmarks.bench_blip",
    "bench_vit_b_32": "benchmarks.bench_vit_b_32",
    "blip_street": "benchmarks.blip_street",
    "budget_vit_b_32": "benchmarks.budget_vit_b_32",
    "coverage": "benchmarks.coverage",
    "events_street": "benchmarks.events_street",
    "full_size": "benchmarks.full_size",
    "language_tasks": "benchmarks.language_tasks",
    "methods": "benchmarks.methods",
    "peers": "benchmarks.peers",
    "peers_speed": "benchmarks.peers_speed",
    "portability": "benchmarks.portability",
    "portable": "benchmarks.portable",
    "real_videos": "benchmarks.real_videos",
    "pruning": "benchmarks.pruning",
    "pruning_speed": "benchmarks.pruning_speed",
    "recovery": "benchmarks.recovery",
    "steps_street_dev": "benchmarks.steps_street_dev",
    "tables": "benchmarks.tables.pages",
}
"""Name to module; only the module that is asked for is imported, as most load torch."""


class Benchmark(Protocol):
    """What every module of `BENCHMARKS` is. Its docstring is the help."""

    __doc__: str | None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add its options."""

    def run(self, arguments: argparse.Namespace) -> None:
        """Measure, print and write the result file. Raises VlmQuantError."""


def main(words: Sequence[str]) -> None:
    """Run one benchmark by name."""
    names = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names.add_argument("name", metavar="NAME", help=f"one of: {', '.join(BENCHMARKS)}")
    try:
        name = names.parse_args(words[:1]).name
        if name not in BENCHMARKS:
            raise unknown(VlmQuantError, "benchmark", name, BENCHMARKS)
        benchmark = cast(Benchmark, import_module(BENCHMARKS[name]))
        parser = argparse.ArgumentParser(
            prog=f"python -m benchmarks {name}",
            description=benchmark.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        benchmark.add_arguments(parser)
        benchmark.run(parser.parse_args(words[1:]))
    except VlmQuantError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(sys.argv[1:])
