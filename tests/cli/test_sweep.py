"""`vlmquant sweep` as a user types it."""

import csv
import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from vlmquant.cli import main
from vlmquant.output import RECORD


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function from words to (exit code, standard output, standard error)."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["vlmquant", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def classes(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("bus", "tree"):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for i in range(4):
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "data"


def test_a_simulated_sweep_has_scores_and_all_files(run, tiny_checkpoint, classes, tmp_path) -> None:
    out = tmp_path / "out"
    words = ("--recipes", "torch-dynamic", "--bits", "8,4", "-o", out)
    code, text, err = run("sweep", tiny_checkpoint, "--data", classes, "--calibrate", classes / "bus", *words)
    assert code == 0, err
    assert "12 of 12 points computed now" in text
    names = {path.name for path in out.iterdir() if path.is_file()}
    assert names == {"sweep.json", "sweep.csv", "index.html", "bits-top1.png", "map-top1.png", RECORD}
    content = json.loads((out / "sweep.json").read_text(encoding="utf-8"))
    assert [row["bytes_on_disk"] for row in content["points"]] == [None] * 12
    rows = list(csv.DictReader(io.StringIO((out / "sweep.csv").read_text(encoding="utf-8"))))
    assert len(rows) == 12
    assert {row["image_runs_on"] for row in rows} == {"torch", "simulation"}
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "Nothing was timed" in page
    assert "Simulated in torch: vanilla-w8a8, vanilla-w4a4" in page
    code, text, _ = run("sweep", tiny_checkpoint, "--data", classes, "--calibrate", classes / "bus", *words, "--json")
    assert code == 0
    assert json.loads(text)["computed"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--recipes", "int9"), "unknown recipe 'int9'"),
        (("--bits", "8,x"), "'x'"),
        (("--components", "vision"), "unknown component 'vision'"),
        (("--recipes", "static-int8"), "--calibrate"),
        (("--rounds", "-1"), "got -1 rounds"),
    ],
)
def test_mistakes_are_one_line(run, tiny_checkpoint, classes, tmp_path, words, message) -> None:
    code, _, err = run("sweep", tiny_checkpoint, "--data", classes, "-o", tmp_path / "out", *words)
    assert code == 2
    assert message in err
    assert not (tmp_path / "out").exists()


def test_data_without_labels_or_captions_are_refused(run, tiny_checkpoint, classes, tmp_path) -> None:
    words = ("--calibrate", classes / "bus", "--bits", "8", "-o", tmp_path / "out")
    code, _, err = run("sweep", tiny_checkpoint, "--data", classes / "bus", *words)
    assert code == 2
    assert "neither labels nor captions" in err
