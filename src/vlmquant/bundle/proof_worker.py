"""`prove` in a process of its own, which an engine may crash: `python -m vlmquant.bundle.proof_worker`.

JSON lines in, JSON lines out, as `process.answer_requests` does it.

    {"command": "prove", "folder": ..., "engine": ..., "arithmetic": ..., "components": [...], "threads": n or null,
     "timed_seconds": 0.2}
    {"command": "prove_together", "folder": ..., "ways": {graph: [engine, arithmetic]}, "threads": n or null}
    -> {"rows": {component: {"cosine_min": ..., "cosine_mean": ..., "floor": ..., "latency_ms": ...,
        "equal_tokens": ...}}}

An exception answers {"error": "Type: message"}.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vlmquant.bundle.manifest import Manifest
from vlmquant.bundle.proof import ProbeRow, prove, prove_together
from vlmquant.process import answer_requests

TOLD = ("cosine_min", "cosine_mean", "floor", "latency_ms", "equal_tokens")


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out one request."""
    return {"rows": {row.component: {name: getattr(row, name) for name in TOLD} for row in _rows(request)}}


def _rows(request: Mapping[str, Any]) -> Iterator[ProbeRow]:
    folder = Path(request["folder"])
    manifest = Manifest.read(folder)
    if request["command"] == "prove_together":
        ways = {graph: (engine, arithmetic) for graph, (engine, arithmetic) in request["ways"].items()}
        return prove_together(folder, manifest, ways, threads=request["threads"])
    return prove(
        folder,
        manifest,
        request["engine"],
        request["components"],
        arithmetic=request["arithmetic"],
        threads=request["threads"],
        timed_seconds=request["timed_seconds"],
    )


def main() -> None:
    """Answer until the input ends."""
    answer_requests(answer)


if __name__ == "__main__":
    main()
