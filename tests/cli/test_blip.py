"""`caption`, `answer` and the BLIP tasks of `evaluate` as a user types them."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakes import tiny_blip_folder
from vlmquant.cli import main
from vlmquant.models.writer import Writer
from vlmquant.output import results


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Return a function from words to (exit code, standard output, standard error)."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["vlmquant", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def captioner(tmp_path_factory) -> Path:
    return tiny_blip_folder(tmp_path_factory.mktemp("blip") / "captions", "captioning")


@pytest.fixture(scope="module")
def answerer(tmp_path_factory) -> Path:
    return tiny_blip_folder(tmp_path_factory.mktemp("blip") / "vqa", "vqa")


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Eleven pictures of noise, one of them a single pixel, with captions."""
    folder = tmp_path / "data" / "images"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = ["image,caption"]
    for i in range(11):
        side = 1 if i == 10 else 40
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(folder / f"{i:02}.png")
        lines += [f"{i:02}.png,a red bus {i}", f"{i:02}.png,one bus on the road"]
    (folder.parent / "captions.csv").write_text("\n".join(lines))
    return folder


def test_a_broken_picture_is_named_skipped_and_counted(run, captioner, pictures, tmp_path):
    (pictures / "05.png").write_bytes(b"no picture")
    output = tmp_path / "captions.jsonl"
    code, out, err = run("caption", pictures, "-m", captioner, "-o", output, "--max-tokens", 4)
    assert code == 5, err
    assert "05.png" in out
    assert "1 of 11 pictures skipped" in out
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [Path(row["image"]).name for row in rows] == [f"{i:02}.png" for i in range(11) if i != 5]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_where_no_picture_can_be_read_earlier_captions_are_kept(run, captioner, tmp_path, suffix):
    output = tmp_path / f"captions{suffix}"
    with results(tmp_path, "caption", [output.name]):
        output.write_text("of an earlier run")
    code, _, err = run("caption", tmp_path / "missing.jpg", "-m", captioner, "-o", output)
    assert code == 2
    assert "missing.jpg cannot be read: the file does not exist" in err
    assert output.read_text() == "of an earlier run"


def test_a_killed_run_goes_on_and_csv_holds_the_same(run, captioner, pictures, tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole.csv", tmp_path / "killed.csv"
    assert run("caption", pictures, "-m", captioner, "-o", whole, "--max-tokens", 4)[0] == 0
    calls = []
    caption = Writer.caption

    def dying(self, images, prompt=""):
        calls.append(len(images))
        if len(calls) == 2:
            raise SystemExit(9)
        return caption(self, images, prompt)

    monkeypatch.setattr(Writer, "caption", dying)
    assert run("caption", pictures, "-m", captioner, "-o", killed, "--max-tokens", 4)[0] == 9
    assert not killed.exists()
    assert run("caption", pictures, "-m", captioner, "-o", killed, "--max-tokens", 4)[0] == 0
    assert calls == [8, 3, 3]
    assert killed.read_bytes() == whole.read_bytes()
    assert len(list(csv.DictReader(whole.read_text().splitlines()))) == 11
    assert [file.name for file in tmp_path.glob(".*")] == []


def test_questions_are_answered_and_empty_ones_refused(run, answerer, captioner, pictures):
    code, out, _ = run("answer", pictures / "00.png", "red?", "bus?", "-m", answerer, "--json", "--max-tokens", 3)
    assert code == 0
    assert [row["question"] for row in json.loads(out)["rows"]] == ["red?", "bus?"]
    for words, complaint in (
        (("answer", pictures / "00.png", "  ", "-m", answerer), "empty question"),
        (("answer", pictures / "00.png", "bus " * 10_000, "-m", answerer), "token"),
        (("answer", pictures / "99.png", "bus?", "-m", answerer), "99.png"),
        (("answer", pictures, "bus?", "-m", answerer), "is a folder; name one picture"),
        (("answer", pictures / "00.png", "bus?", "-m", captioner), "a captioner, which writes captions"),
        (("caption", pictures, "-m", captioner, "-o", "captions.txt"), "'.txt'"),
        (("caption", pictures, "-m", captioner, "--device", "cuda"), "cuda"),
    ):
        code, _, err = run(*words)
        assert code == 2, words
        assert complaint in err
        assert "Traceback" not in err


def test_captioning_against_itself_loses_nothing(run, captioner, pictures):
    words = ("evaluate", captioner, "--against", captioner, "--data", pictures.parent, "--task", "captioning", "--json")
    code, out, err = run(*words, "--max-tokens", 4)
    assert code == 0, err
    changes = json.loads(out)["tasks"]["captioning"]["comparisons"]
    assert {change["metric"] for change in changes} >= {"BLEU-4", "CIDEr", "ROUGE-L", "equal captions"}
    assert all(change["difference"]["estimate"] == 0 for change in changes)


def test_vqa_is_read_scored_and_saved(run, answerer, tmp_path):
    from streetworld.questions import write_questions

    write_questions(tmp_path / "vqa", count=3)
    words = ("evaluate", answerer, "--against", answerer, "--data", tmp_path / "vqa", "--task", "vqa")
    code, out, err = run(*words, "--max-tokens", 2, "-o", tmp_path / "run")
    assert code == 0, err
    assert "vqa_accuracy" in out
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())["tasks"]["vqa"]
    assert found["comparisons"][0]["samples"] == 12


def test_a_run_without_a_task_is_reported(run, captioner, pictures, tmp_path):
    words = ("evaluate", captioner, "--against", captioner, "--data", pictures.parent, "--max-tokens", 4)
    code, out, err = run(*words, "--max-drop", 1, "-o", tmp_path / "run")
    assert code == 4, err  # eleven pictures cannot tell
    assert "captioning on captions: " in out
    assert "verdict: undecided" in out
    code, out, err = run("report", tmp_path / "run", "-o", tmp_path / "r.html", "--json")
    assert code == 0, err
    scores = {row["metric"]: row for row in json.loads(out)["scores"]}
    assert scores["CIDEr"]["difference"] == scores["BLEU-4"]["difference"] == 0
    assert "captioning" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_outputs_that_cannot_be_written_are_found_before_the_work(run, captioner, pictures, tmp_path):
    (tmp_path / "afile").write_text("mine")
    for words in (
        ("evaluate", captioner, "--data", pictures.parent, "-o", tmp_path / "afile"),
        ("evaluate", captioner, "--data", pictures.parent, "--cache", tmp_path / "afile" / "x"),
        ("caption", pictures, "-m", captioner, "-o", tmp_path / "afile" / "c.csv"),
    ):
        code, _, err = run(*words)
        assert code == 2, words
        assert err.startswith("error: ")
        assert "afile" in err
        assert err.count("\n") == 1
    assert (tmp_path / "afile").read_text() == "mine"


def test_a_picture_that_was_replaced_is_captioned_again(run, captioner, pictures, tmp_path, monkeypatch):
    calls = []
    caption = Writer.caption

    def dying(self, images, prompt=""):
        calls.append(len(images))
        if len(calls) == 2:
            raise SystemExit(9)
        return caption(self, images, prompt)

    monkeypatch.setattr(Writer, "caption", dying)
    words = ("caption", pictures, "-m", captioner, "-o", tmp_path / "c.jsonl", "--max-tokens", 4)
    assert run(*words)[0] == 9
    Image.new("RGB", (40, 40), (255, 0, 0)).save(pictures / "00.png")
    assert run(*words)[0] == 0
    assert calls == [8, 3, 4]


def test_only_what_the_model_can_do(run, captioner, pictures):
    code, _, err = run("evaluate", captioner, "--data", pictures.parent, "--task", "vqa")
    assert (code, "vqa takes an answerer" in err) == (2, True)
