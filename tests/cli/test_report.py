"""`report` as a user types it."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from vlmquant.cli import main


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["vlmquant", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def evaluated(run, tiny_bundle, tiny_checkpoint, tmp_path):
    """A run folder of the tiny bundle against its checkpoint on twelve pictures of noise."""
    rng = np.random.default_rng(0)
    for name in ("bus", "tree"):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for i in range(6):
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    words = ("--against", tiny_checkpoint, "--data", tmp_path / "photos", "--task", "zero-shot", "-o", tmp_path / "run")
    code, _, err = run("evaluate", tiny_bundle, *words)
    assert code == 0, err
    return tmp_path / "run"


def test_a_run_becomes_a_page_and_three_files(run, evaluated, tmp_path):
    code, out, err = run("report", evaluated, "-o", tmp_path / "page" / "r.html", "--title", "Tiny & small")
    assert code == 0, err
    for suffix in ("html", "md", "json", "csv"):
        assert (tmp_path / "page" / f"r.{suffix}").is_file()
        assert f"r.{suffix}" in out
    html = (tmp_path / "page" / "r.html").read_text(encoding="utf-8")
    assert "Tiny &amp; small" in html
    assert html.count("data:image/png") >= 5
    assert "https://" not in html
    assert "<script" not in html


def test_json_says_what_was_written(run, evaluated, tmp_path):
    code, out, err = run("report", evaluated, "-o", tmp_path / "r.html", "--json")
    assert code == 0, err
    content = json.loads(out)
    assert len(content["files"]) == 4
    assert content["scores"][0]["metric"] == "top1"
    assert content == {"files": content["files"], **json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))}


def test_what_is_no_run_is_an_error(run, evaluated, tmp_path):
    for words in ((tmp_path / "nowhere",), (tmp_path,), (evaluated, tmp_path / "photos")):
        code, out, err = run("report", *words, "-o", tmp_path / "r.html")
        assert code == 2
        assert "neither a run" in err
        assert "Traceback" not in out + err
    assert not (tmp_path / "r.html").exists()


def test_a_page_must_be_called_html(run, evaluated, tmp_path):
    code, _, err = run("report", evaluated, "-o", tmp_path / "r.pdf")
    assert code == 2
    assert ".html" in err
