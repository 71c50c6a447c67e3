import gzip
import json
import socket
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from vlmquant.selfcheck import SelfCheck, run_selfcheck
from vlmquant.selfcheck import captions as caption_checks
from vlmquant.selfcheck.result import all_equal, close, load_fixture


@pytest.fixture(scope="module")
def outcome() -> SelfCheck:
    return run_selfcheck()


def test_every_known_answer_is_reproduced(outcome: SelfCheck) -> None:
    assert outcome.failed == ()
    assert outcome.ok


def test_every_check_has_its_own_name(outcome: SelfCheck) -> None:
    names = [check.name for check in outcome.checks]
    assert len(set(names)) == len(names)
    assert {"CIDEr, from text", "VQA accuracy legacy, questions", "PTB tokenizer, hard cases"} <= set(names)


def test_no_network_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("the self-check opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    assert run_selfcheck().ok


def test_progress_passes_through_every_group() -> None:
    seen: list[tuple[str, int | None]] = []

    def track(items: Any, description: str, total: int | None = None) -> Any:
        for item in items:
            seen.append((description, total))
            yield item

    run_selfcheck(track)
    assert len(seen) == seen[0][1] == 8


def test_a_wrong_score_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_checks, "tokenize", str.lower)
    outcome = run_selfcheck()
    assert not outcome.ok
    failed = [check.name for check in outcome.failed]
    assert failed == [f"PTB tokenizer, {cases}" for cases in ("hard cases", "HTML entities", "captions")]


def test_comparisons_fail_when_they_should() -> None:
    assert close("x", 1.0, 1.0, 0.0).ok
    assert not close("x", 1.001, 1.0, 1e-4).ok
    assert not close("x", float("nan"), 1.0, 1.0).ok
    assert not all_equal("x", ["a", "b"], ["a", "c"]).ok
    assert all_equal("x", ["a", "b"], ["a", "c"]).measured == "1 of 2 equal"


def test_the_fixtures_are_small_and_those_of_the_shared_folder(shared_data: Path) -> None:
    for entry in files("vlmquant.selfcheck").joinpath("fixtures").iterdir():
        assert len(entry.read_bytes()) < 20_000
        assert json.loads(gzip.decompress(entry.read_bytes()))
    candidates = json.loads((shared_data / "metrics/synthetic_captions/candidates.json").read_text(encoding="utf-8"))
    assert {item["id"]: item["candidate"] for item in load_fixture("captions")["items"]} == candidates
