"""Programs in place of the process that proves bundles: its own with a fault, or one that needs no engine."""

import json
import sys
from pathlib import Path

import pytest

from vlmquant.bundle import placement

HERE = Path(__file__).resolve().parent
FAULTY = """
from vlmquant.bundle import proof_worker
from dataclasses import replace
def faulty(*arguments, real=proof_worker.prove, **keywords):
    engine = arguments[2]
    for row in real(*arguments, **keywords):
        {fault}
        yield row
proof_worker.prove = faulty
proof_worker.main()
"""
FAKE = """
import json, os, signal, time
from vlmquant.process import answer_requests
def answer(request):
    with open({log!r}, "a") as log:
        log.write(json.dumps(request) + "\\n")
    command, engine, arithmetic = request["command"], request.get("engine"), request.get("arithmetic")
    right = dict(cosine_min=1.0, cosine_mean=1.0, floor=0.999, latency_ms=1.0, equal_tokens=1.0)
    rows = {{name: dict(right) for name in request.get("components") or request["ways"]}}
    {behaviour}
    return {{"rows": rows}}
answer_requests(answer)
"""


def in_the_child(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Let the process that proves run `program` in place of its own."""
    start = f"import sys; sys.path[:0] = [{str(HERE)!r}]\n"
    monkeypatch.setattr(placement, "PROOF_WORKER", (sys.executable, "-c", start + program))


class FakeProofs:
    """A child that answers at once: every way is right but for what `behaviour`, one line, changes; and its log."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, behaviour: str = "pass") -> None:
        self._log = folder / "asked.jsonl"
        self._log.write_text("")
        in_the_child(monkeypatch, FAKE.format(log=str(self._log), behaviour=behaviour))

    def asked(self) -> list[dict[str, object]]:
        """Return the requests so far, in order."""
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def ways(self) -> list[tuple[object, object]]:
        """Return the engine and the arithmetic of each proof."""
        return [(one["engine"], one["arithmetic"]) for one in self.asked() if one["command"] == "prove"]


def without_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an attempt to prove anything fail."""

    def refuse(*arguments: object) -> None:
        raise AssertionError("nothing was to be run")

    monkeypatch.setattr(placement, "WorkerProcess", refuse)
