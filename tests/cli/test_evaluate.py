"""`evaluate` and `selfcheck` as a user types them: exit codes, JSON, and what a run folder holds."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from vlmquant.cli import main
from vlmquant.metrics.intervals import Interval
from vlmquant.tasks.catalogue import TASKS
from vlmquant.tasks.compare import compare_results

CLASSES = ("bus", "street", "tree")


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Return a function from words to (exit code, standard output, standard error); embeddings are kept in tmp_path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["vlmquant", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def photos(tmp_path):
    """Three classes with four pictures of noise each."""
    rng = np.random.default_rng(0)
    for name in CLASSES:
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for i in range(4):
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture
def drop_to(monkeypatch):
    """Make every comparison find this interval of the difference, in [0, 1]."""

    def use(estimate, low, high):
        interval = Interval(estimate, low, high)
        monkeypatch.setattr("vlmquant.tasks.compare.paired_mean", lambda *_: interval)

    return use


def test_a_model_against_itself_loses_nothing(run, tiny_checkpoint, photos):
    words = (
        "evaluate",
        tiny_checkpoint,
        "--against",
        tiny_checkpoint,
        "--data",
        photos,
        "--task",
        "zero-shot",
        "--json",
    )
    code, out, err = run(*words)
    assert code == 0, err
    content = json.loads(out)
    (found,) = content["tasks"]["zero-shot"]["comparisons"]
    assert found["difference"]["estimate"] == 0.0
    assert found["difference"]["low"] == -found["difference"]["high"] < 0
    assert found["flips"]["losses"] == found["flips"]["gains"] == found["flips"]["changed_wrong"] == []
    assert found["p_value"] == 1.0
    assert content["fidelity"]["measures"]["image_cosine"]["worst"] == 1.0
    assert content["verdict"] is None


def test_a_bundle_against_its_float_original_leaves_a_run(run, tiny_bundle, tiny_checkpoint, photos, tmp_path):
    folder = tmp_path / "out"
    code, out, err = run(
        "evaluate", tiny_bundle, "--against", tiny_checkpoint, "--data", photos, "--task", "zero-shot", "-o", folder
    )
    assert code == 0, err
    for words in ("zero-shot on photos", "95 % interval", "McNemar p", "detectable", "protocol: zero-shot|data:"):
        assert words in out
    assert "fidelity, n = 12" in out
    written = {path.name for path in folder.iterdir()}
    assert {"evaluation.json", "run.json", "similarity.npz", "zero-shot.json", "zero-shot.reference.json"} <= written
    stored = json.loads((folder / "zero-shot.json").read_text(encoding="utf-8"))
    assert len(stored["outcomes"]["top1"]["ids"]) == 12
    assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["model"]["bits"]["image"] == [8, 8]


@pytest.mark.parametrize(
    ("estimate", "low", "max_drop", "verdict", "expected"),
    [
        (-0.30, -0.35, 40, "within", 0),
        (-0.50, -0.60, 40, "beyond", 6),
        (-0.30, -0.50, 40, "undecided", 4),
        (-0.01, -0.01, 5, "undecided", 4),
    ],
)
def test_the_gate(run, drop_to, tiny_checkpoint, photos, estimate, low, max_drop, verdict, expected):
    drop_to(estimate, low, 0.0)
    code, out, err = run(
        "evaluate",
        tiny_checkpoint,
        "--against",
        tiny_checkpoint,
        "--data",
        photos,
        "--task",
        "zero-shot",
        "--max-drop",
        max_drop,
        "--json",
    )
    assert json.loads(out)["verdict"] == verdict
    assert (code, err) == (expected, "")


def test_results_of_unlike_protocols_are_not_compared(run, tiny_checkpoint, photos, monkeypatch):
    def unlike(candidate, reference, max_drop_points):
        other = replace(reference, protocol=reference.protocol.with_setting("tie", "best"))
        return compare_results(candidate, other, max_drop_points)

    monkeypatch.setitem(TASKS, "zero-shot", replace(TASKS["zero-shot"], compare=unlike))
    code, out, err = run(
        "evaluate", tiny_checkpoint, "--against", tiny_checkpoint, "--data", photos, "--task", "zero-shot"
    )
    assert code == 3
    assert "cannot be compared" in err
    assert "Traceback" not in out + err


def test_without_a_reference_there_is_a_score_and_no_comparison(run, tiny_checkpoint, photos):
    code, out, err = run("evaluate", tiny_checkpoint, "--data", photos, "--task", "zero-shot")
    assert code == 0, err
    assert "top1" in out
    assert "McNemar" not in out


def test_fidelity_alone_needs_no_labels(run, tiny_bundle, tiny_checkpoint, photos):
    code, out, err = run(
        "evaluate", tiny_bundle, "--against", tiny_checkpoint, "--data", photos / "bus", "--task", "fidelity", "--json"
    )
    assert code == 0, err
    content = json.loads(out)
    assert content["tasks"] == {}
    assert content["fidelity"]["samples"] == 4
    assert content["fidelity"]["measures"]["image_cosine"]["mean"]["estimate"] > 0.9


def test_fidelity_alone_runs_no_task_on_labelled_data(run, tiny_checkpoint, photos):
    code, out, err = run(
        "evaluate", tiny_checkpoint, "--against", tiny_checkpoint, "--data", photos, "--task", "fidelity", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["tasks"] == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--max-drop", "0.5"), "add --against"),
        (("--task", "fidelity"), "add --against"),
        (("--task", "singing"), "unknown task 'singing'"),
        (("--task", "retrieval"), "retrieval"),
        (("--templates", "none-such"), "unknown template set"),
    ],
)
def test_a_users_errors_are_one_line(run, tiny_checkpoint, photos, words, message):
    code, out, err = run("evaluate", tiny_checkpoint, "--data", photos, *words)
    assert code == 2
    assert message in err
    assert "Traceback" not in out + err


def test_a_model_or_data_that_is_not_there_is_an_error(run, tiny_checkpoint, photos, tmp_path):
    assert run("evaluate", tmp_path / "nowhere", "--data", photos)[0] == 2
    assert run("evaluate", tiny_checkpoint, "--data", tmp_path / "nowhere")[0] == 2


def test_selfcheck_passes(run):
    code, out, err = run("selfcheck", "--json")
    assert code == 0, err
    content = json.loads(out)
    assert content["ok"] is True
    assert len(content["checks"]) > 5
    assert {"name", "measured", "expected", "ok"} <= set(content["checks"][0])


def test_selfcheck_fails_loudly(run, monkeypatch):
    from vlmquant import selfcheck
    from vlmquant.selfcheck.result import close

    monkeypatch.setattr(selfcheck, "CHECKS", (lambda: [close("CIDEr", 1.0, 1.5, 1e-6)],))
    code, out, _ = run("selfcheck")
    assert code == 6
    assert "WRONG" in out
    assert "0 of 1 checks passed" in out


def test_an_empty_split_is_refused_before_the_model_is_looked_for(run, photos):
    code, _, err = run("evaluate", "nobody/nothing", "--data", photos, "--split", "")
    assert (code, "--split is empty; name a split" in err) == (2, True), err
