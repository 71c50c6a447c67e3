"""The proofs of a bundle on this machine, each in a process of its own, which an engine may crash or hang."""

import sys
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from vlmquant.bundle.manifest import Manifest
from vlmquant.engines import Arithmetic
from vlmquant.process import WorkerFailed, WorkerProcess, WorkerTimedOut

TIMED_SECONDS = 0.2
TIMEOUT_SECONDS = 60.0
"""What an engine may take for the probes of a small graph; nothing that works took a tenth of it."""
LEAST_BYTES_PER_SECOND = 1 << 20
"""What it may take besides, by the bytes of the graphs: what a CPU of 5 billion float32 products a second needs."""
PROOF_WORKER = (sys.executable, "-P", "-m", "vlmquant.bundle.proof_worker")


class Way(NamedTuple):
    """One way to run a graph."""

    engine: str
    arithmetic: Arithmetic

    def __str__(self) -> str:
        return f"{self.engine}{_IN_WORDS[self.arithmetic]}"


_IN_WORDS: dict[Arithmetic, str] = {"integer": "", "float": " in float32", "wide": " in 16-bit integers"}


class Trials:
    """The proofs of one bundle's components, run when they are first asked for.

    `failed` says whether a process died or hung, so that another day may give another outcome.
    """

    def __init__(self, folder: Path, manifest: Manifest, threads: int | None) -> None:
        self.manifest = manifest
        self._folder, self._threads = folder, threads
        self._hung: set[str] = set()
        self.failed = False
        self.rows = cache(self._rows)

    def why_not_together(self, ways: Mapping[str, Way]) -> str | None:
        """Return what is wrong with the graphs in these `ways`, each fed by the one before it."""
        if self.manifest.head.independent or len(set(ways.values())) == 1:
            return None  # they do not feed each other, or were proved together
        request = {"command": "prove_together", "folder": str(self._folder.resolve()), "ways": ways}
        found: dict[str, dict[str, Any] | str] = {}
        self._ask([(list(ways), {**request, "threads": self._threads})], set(ways.values()), found)
        for graph, row in found.items():
            if isinstance(row, str):
                return f"they failed together ({row})"
            if not row["cosine_min"] >= row["floor"]:
                return f"together {graph} gave {too_far(row)}"
        # Rounding may flip a token on an engine that is right, but no more of them where engines are mixed.
        shares = [self.rows(way).get("decoder") for way in set(ways.values())]
        expected = min((row["equal_tokens"] for row in shares if isinstance(row, dict)), default=1.0)
        decoder = found.get("decoder")
        if isinstance(decoder, dict) and decoder["equal_tokens"] < expected:
            return f"together they wrote {decoder['equal_tokens']:.0%} of the stored tokens, not {expected:.0%}"
        return None

    def _rows(self, way: Way) -> dict[str, dict[str, Any] | str]:
        """Return by component what the probes gave, or why they gave nothing."""
        # Graphs that feed each other are proved together; a tower that crashes leaves the other alone.
        names = list(self.manifest.components)
        groups = [[name] for name in names] if self.manifest.head.independent else [names]
        request = {
            "command": "prove",
            "folder": str(self._folder.resolve()),
            "engine": way.engine,
            "arithmetic": way.arithmetic,
            "threads": self._threads,
            "timed_seconds": TIMED_SECONDS,
        }
        found: dict[str, dict[str, Any] | str] = {}
        self._ask([(group, {**request, "components": group}) for group in groups], {way}, found)
        return found

    def _ask(
        self,
        waiting: list[tuple[list[str], dict[str, Any]]],
        ways: Collection[Way],
        found: dict[str, dict[str, Any] | str],
    ) -> None:
        """Send each request of `waiting` for its components; what came of it is added to `found`."""
        while waiting:
            if hung := sorted({way.engine for way in ways} & self._hung):
                for components, _ in waiting:
                    found |= dict.fromkeys(components, f"not tried, as {' and '.join(hung)} hung before")
                return
            try:
                with WorkerProcess(self._threads, PROOF_WORKER) as worker:
                    while waiting:
                        components, request = waiting[0]
                        found |= worker.ask(request, self._timeout_seconds(components))["rows"]
                        waiting.pop(0)
            except (WorkerFailed, OSError) as failure:
                self.failed = True
                if isinstance(failure, WorkerTimedOut):
                    self._hung |= {way.engine for way in ways}
                components, _ = waiting.pop(0)
                found |= dict.fromkeys(components, _printable(str(failure)))

    def _timeout_seconds(self, components: Collection[str]) -> float:
        files = {self.manifest.components[component].file for component in components}
        bytes_ = sum((self._folder / file).stat().st_size for file in files)
        return TIMEOUT_SECONDS + bytes_ / LEAST_BYTES_PER_SECOND


def too_far(row: Mapping[str, Any]) -> str:
    """Return what is wrong with a component whose least cosine is below its floor."""
    return f"cosine {row['cosine_min']:.4f} to the stored results, not {row['floor']:.4f}"


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
