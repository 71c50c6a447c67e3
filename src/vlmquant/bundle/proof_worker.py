"""`prove` in a process of its own, which an engine may crash: `python -m vlmquant.bundle.proof_worker`.

JSON lines in, JSON lines out, as `process.answer_requests` does it.

    {"command": "prove", "folder": ..., "engine": ..., "arithmetic": ..., "components": [...], "threads": n or null,
     "timed_seconds": 0.2}   -> {"rows": {component: {"cosine_min": ..., "cosine_mean": ..., "floor": ...,
     "latency_ms": ...}}}

An exception answers {"error": "Type: message"}.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmquant.bundle.manifest import Manifest
from vlmquant.bundle.proof import prove
from vlmquant.process import answer_requests


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out one request."""
    folder = Path(request["folder"])
    rows = prove(
        folder,
        Manifest.read(folder),
        request["engine"],
        request["components"],
        arithmetic=request["arithmetic"],
        threads=request["threads"],
        timed_seconds=request["timed_seconds"],
    )
    told = ("cosine_min", "cosine_mean", "floor", "latency_ms")
    return {"rows": {row.component: {name: getattr(row, name) for name in told} for row in rows}}


def main() -> None:
    """Answer until the input ends."""
    answer_requests(answer)


if __name__ == "__main__":
    main()
