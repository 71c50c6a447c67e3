"""A new engine is one file and one row of `ENGINES`: every verb that runs a bundle offers it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fake_engine import ENGINE

from vlmquant.engines import ENGINES


@pytest.fixture(autouse=True)
def row(monkeypatch: pytest.MonkeyPatch, with_fake_engine_everywhere: None) -> None:
    monkeypatch.setitem(ENGINES, ENGINE.name, ENGINE)


def started(*words: object) -> str:
    """Run the command line in a process of its own, which begins with the row; returns what it printed."""
    command = [sys.executable, "-P", "-m", "vlmquant", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_verify_runs_the_probes_on_it(run, tiny_bundle: Path) -> None:
    asked = json.loads(run("verify", tiny_bundle, "--engine", "fake", "--json"))
    assert {(row["engine"], row["component"]) for row in asked} == {("fake", "image"), ("fake", "text")}
    every = json.loads(run("verify", tiny_bundle, "--json"))
    assert {row["engine"] for row in every} == {*ENGINES}


@pytest.mark.parametrize("how", [("--engine", "fake"), ()])
def test_detect_runs_on_it_when_asked_and_auto_takes_it_where_it_is_preferred(
    run, tiny_bundle: Path, clip: Path, tmp_path: Path, how: tuple[str, ...]
) -> None:
    out = json.loads(
        run("detect", clip, "-m", tiny_bundle, "-e", "a dog", "-o", tmp_path / "out", "--no-annotate", "--json", *how)
    )
    (reason,) = [note for note in out["notes"] if note.startswith("engine: ")]
    assert reason.startswith(f"engine: fake ({'as asked for' if how else 'it is the test'}")
    assert out["videos"][0]["model"].endswith(" on fake")


def test_auto_measures_it_beside_the_others(run, tiny_bundle: Path, monkeypatch, clip: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("VLMQUANT_AUTO", "measured")
    out = json.loads(
        run("detect", clip, "-m", tiny_bundle, "-e", "a dog", "-o", tmp_path / "out", "--no-annotate", "--json")
    )
    (reason,) = [note for note in out["notes"] if note.startswith("engine: ")]
    assert all(f"{name} " in reason for name in ENGINES)


def test_bench_times_it_and_its_float(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    brief = ("--batch", 1, "--rounds", 1, "--iterations", 1, "--threads", 1, "--json")
    found = json.loads(started("bench", tiny_bundle, *brief))
    rows = {row["name"]: row for row in found["contenders"]}
    assert rows["bundle-fake"]["outcome"] == "ran"
    assert rows["bundle-fake"]["int8_mac_share"] > 0.5
    assert rows["fake-fp32"]["reason"] == "needs the float checkpoint (pass --against CHECKPOINT)"
    assert found["auto"] == "bundle-fake"


def test_help_doctor_and_errors_name_it(run_refused, tiny_bundle: Path) -> None:
    assert "fake" in started("verify", "--help")
    assert "known: fake, onnxruntime, openvino" in run_refused("verify", tiny_bundle, "--engine", "none")
