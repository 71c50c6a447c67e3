"""A new task is one file and one row of `TASKS`: it is run, compared, judged, kept and reported."""

import json
from pathlib import Path

import pytest
from fake_task import TASK

from vlmquant.tasks.catalogue import TASKS, tasks_in_words


@pytest.fixture(autouse=True)
def row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "brightness", TASK)


def test_it_is_scored_against_the_float_model_and_stands_in_the_report(
    run, tiny_checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    words = ("evaluate", tiny_checkpoint, "--data", pictures, "--against", tiny_checkpoint, "--task", "brightness")
    found = json.loads(run(*words, "--max-drop", 100, "-o", tmp_path / "run", "--json"))
    (change,) = found["tasks"]["brightness"]["comparisons"]
    assert change["metric"] == "bright"
    assert change["difference"]["estimate"] == 0
    assert found["tasks"]["brightness"]["model"]["metrics"] == {"bright": 0.5}
    assert found["verdict"] == "within"
    run("report", tmp_path / "run", "-o", tmp_path / "page.html")
    assert "brightness bright" in (tmp_path / "page.md").read_text(encoding="utf-8")


def test_it_is_listed(run_refused, tiny_checkpoint: Path, pictures: Path) -> None:
    assert "brightness" in tasks_in_words()
    assert "brightness" in run_refused("evaluate", tiny_checkpoint, "--data", pictures, "--task", "singing")
