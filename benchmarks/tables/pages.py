"""Writes the tables of README.md and docs/results.md from the committed results; `--check` only compares.

python -m benchmarks tables
python -m benchmarks tables --check
"""

import argparse
import re
from collections.abc import Callable
from functools import partial

from benchmarks.results import ROOT
from benchmarks.tables import clip, language, methods, portable
from vlmquant.errors import VlmQuantError, unknown
from vlmquant.files import write_whole

TABLE = re.compile(r"(<!-- table:(\w+) -->).*?(<!-- /table -->)", re.DOTALL)
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md")
TABLES: dict[str, Callable[[], str]] = {
    "headline": clip.headline,
    "bench": clip.bench,
    "bench_zen4": partial(clip.bench, "bench-vit-b-32-zen4"),
    "accuracy": clip.accuracy,
    "events": clip.events,
    "peers": methods.peers,
    "peers_speed": methods.peers_speed,
    "stress": methods.stress,
    "methods": methods.methods,
    "ablation": methods.ablation,
    "full_size": methods.full_size,
    "budget": methods.budget,
    "recovery": methods.recovery,
    "blip": language.blip,
    "blip_accuracy": language.blip_accuracy,
    "language": language.language,
    "portability": portable.portability,
    "portable": portable.portable,
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
    return TABLES[name]()
