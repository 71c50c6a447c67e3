"""A new command is one file and one row of `VERBS`: it has the shared options, the help and the exit codes."""

import json
from pathlib import Path

import pytest

from vlmquant.cli.app import VERBS, Verb


@pytest.fixture(autouse=True)
def row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VERBS, "weigh", Verb("fake_command:weigh", "Say what the files of a bundle weigh."))


def test_it_runs_with_the_options_that_every_command_has(run, tiny_bundle: Path) -> None:
    size = json.loads(run("weigh", tiny_bundle, "--json", "--quiet"))["bytes"]
    assert size == sum(path.stat().st_size for path in tiny_bundle.iterdir() if path.name != "manifest.json")
    assert str(size) in run("weigh", tiny_bundle)


def test_it_stands_in_the_help_and_fails_in_one_sentence(run, run_refused, tmp_path: Path) -> None:
    assert "Say what the files of a bundle weigh." in run("--help")
    sentence = run_refused("weigh", tmp_path / "nowhere")
    assert sentence.startswith("error: ")
    assert "nowhere" in sentence
    assert len(sentence.splitlines()) == 1
