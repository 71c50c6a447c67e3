"""`prove` in a process of its own, which an engine may crash: `python -m vlmquant.bundle.proof_worker`.

JSON lines in, JSON lines out; the end of the input ends the process.

    {"command": "prove", "folder": ..., "engine": ..., "arithmetic": ..., "components": [...], "threads": n or null,
     "timed_seconds": 0.2}   -> {"rows": {component: {"cosine_min": ..., "cosine_mean": ..., "floor": ...,
     "latency_ms": ...}}}

An exception answers {"error": "Type: message"}.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmquant.bundle.manifest import Manifest
from vlmquant.bundle.proof import prove


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out one request; an exception becomes an answer too."""
    folder = Path(request["folder"])
    try:
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
    except Exception as error:
        return {"error": " ".join(f"{type(error).__name__}: {error}".split())}


def main() -> None:
    """Answer on the standard streams; whatever a library prints goes to standard error instead."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this process
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
