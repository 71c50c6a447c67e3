"""Writes the tables of README.md and docs/results.md from the committed results; `--check` only compares.

python -m benchmarks tables
python -m benchmarks tables --check
"""

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.results import ROOT
from benchmarks.tables import clip, coverage, language, methods, portable, pruning
from benchmarks.tables.stale import remarks
from vlmquant.errors import VlmQuantError, unknown
from vlmquant.files import write_whole

TABLE = re.compile(r"(<!-- table:(\w+) -->).*?(<!-- /table -->)", re.DOTALL)
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md")


@dataclass(frozen=True)
class Table:
    """What makes a table, and the result files that it shows."""

    make: Callable[[], str]
    files: tuple[str, ...]


_AVX2, _VNNI = "bench-vit-b-32", "bench-vit-b-32-vnni"
_METHODS = tuple(f"methods-{name}" for name in methods.MODELS)
TABLES: dict[str, Table] = {
    "headline": Table(clip.headline, (_VNNI,)),
    "bench": Table(clip.bench, (_AVX2,)),
    "bench_vnni": Table(partial(clip.bench, _VNNI), (_VNNI,)),
    "accuracy": Table(clip.accuracy, tuple(clip.MODELS)),
    "coverage": Table(coverage.coverage, ("coverage",)),
    "events": Table(clip.events, ("events-street",)),
    "peers": Table(methods.peers, tuple(methods.PEERS)),
    "peers_speed": Table(methods.peers_speed, ("peers-vit-b-32",)),
    "stress": Table(methods.stress, tuple(methods.STRESS)),
    "methods": Table(methods.methods, _METHODS),
    "ablation": Table(methods.ablation, _METHODS),
    "full_size": Table(methods.full_size, ("full-size",)),
    "budget": Table(methods.budget, ("budget-vit-b-32",)),
    "pruning": Table(pruning.scores, tuple(pruning.MODELS)),
    "pruning_speed": Table(pruning.speed, ("pruning-vit-b-32",)),
    "compensation": Table(methods.compensation, tuple(f"compensation-{name}" for name in methods.MODELS)),
    "equal": Table(methods.equal, tuple(f"equal-{name}" for name in methods.MODELS)),
    "recovery": Table(methods.recovery, tuple(methods.RECOVERY)),
    "blip": Table(language.blip, ("bench-blip-base",)),
    "blip_accuracy": Table(language.blip_accuracy, ("blip-street",)),
    "language": Table(language.language, ("guided-street", "coattention-street")),
    "portability": Table(portable.portability, ("portability",)),
    "portable": Table(portable.portable, tuple(portable.PORTABLE)),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a table is not up to date")


def run(arguments: argparse.Namespace) -> None:
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = filled(before)
        if before == after:
            continue
        if arguments.check:
            raise VlmQuantError(
                f"{page.name}'s tables differ from benchmarks/results; run: python -m benchmarks tables"
            )
        write_whole(page, after)


def filled(text: str) -> str:
    """Return a page with every table between its two comments made anew."""
    return TABLE.sub(lambda found: f"{found[1]}\n{_made(found[2])}\n{found[3]}", text)


def _made(name: str) -> str:
    if name not in TABLES:
        raise unknown(VlmQuantError, "table", name, TABLES)
    table = TABLES[name]
    return table.make() + remarks(table.files)
