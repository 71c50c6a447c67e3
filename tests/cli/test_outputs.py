"""What results may not do, in every verb with `-o`: replace what is the user's, or change a model or the data."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import streetworld
from fakes import tiny_blip_folder
from vlmquant.bundle.check import checked_bundle
from vlmquant.cli import main
from vlmquant.output import RECORD

NOBODY = "nobody/nothing"
"""A model that is not there, so that an error about the output says that it was looked at before the model."""

VERBS = {
    "analyze": (("analyze", NOBODY, "--calibrate", "photos/bus"), "{}"),
    "sweep": (("sweep", NOBODY, "--data", "photos", "--calibrate", "photos/bus"), "{}"),
    "bench": (("bench", NOBODY), "{}"),
    "demo": (("demo",), "{}"),
    "evaluate": (("evaluate", NOBODY, "--data", "photos"), "{}"),
    "detect": (("detect", "street.mp4", "-e", "a bus", "-m", NOBODY), "{}"),
    "caption": (("caption", "photos/bus", "-m", NOBODY), "{}/c.jsonl"),
    "caption as CSV": (("caption", "photos/bus", "-m", NOBODY), "{}/c.csv"),
    "report": (("report", "run"), "{}/r.html"),
}
"""The words of a command, and its output in a folder."""

WRITTEN = [
    ("analyze", "analysis.json"),
    ("analyze", "cosines.png"),
    ("analyze", "text-inputs-gelu.png"),
    ("sweep", "sweep.csv"),
    ("sweep", "map-top1.png"),
    ("bench", "bench.png"),
    ("demo", "index.html"),
    ("demo", "events/events.csv"),
    ("evaluate", "run.json"),
    ("evaluate", "zero-shot.json"),
    ("evaluate", "pictures/000.jpg"),
    ("detect", "events.csv"),
    ("detect", "thumbnails/0001.jpg"),
    ("caption", "c.jsonl"),
    ("caption as CSV", "c.csv"),
    ("report", "r.html"),
    ("report", "r.md"),
    ("report", "r.json"),
]
"""Files that they write there."""


@pytest.fixture
def run(monkeypatch, capsys, place):
    """Return a function from words to (exit code, standard output, standard error), run in `place`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    monkeypatch.chdir(place)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["vlmquant", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return streetworld.write_video(
        tmp_path_factory.mktemp("video") / "street.mp4", streetworld.script_video(0, seconds=5)
    )


@pytest.fixture
def place(tmp_path, video):
    """A folder with `photos` of two classes and a video."""
    rng = np.random.default_rng(0)
    for name in ("bus", "tree"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    shutil.copy(video, tmp_path / "street.mp4")
    return tmp_path


def refused(found, *words):
    """Check that a command ended as a user's error, with one sentence that has all `words`."""
    code, out, err = found
    assert (code, out) == (2, ""), err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err
    return True


@pytest.mark.parametrize(("case", "name"), WRITTEN)
def test_a_users_file_is_kept(run, place, case, name):
    words, output = VERBS[case]
    (place / "out" / name).parent.mkdir(parents=True)
    (place / "out" / name).write_text("mine")
    refused(run(*words, "-o", output.format("out")), f"out/{name} was not made by this program")
    assert (place / "out" / name).read_text() == "mine"
    assert [path.name for path in (place / "out").rglob("*") if path.is_file()] == [Path(name).name]


@pytest.mark.parametrize("inside", ["", "/deeper"])
@pytest.mark.parametrize("case", VERBS)
def test_nothing_is_put_into_a_bundle(run, place, tiny_bundle, case, inside):
    words, output = VERBS[case]
    shutil.copytree(tiny_bundle, place / "bundle")
    refused(run(*words, "-o", output.format(f"bundle{inside}")), "would become part of the bundle")
    checked_bundle(place / "bundle")


@pytest.mark.parametrize("case", VERBS)
def test_nothing_is_put_among_weights(run, place, tiny_checkpoint, case):
    words, output = VERBS[case]
    shutil.copytree(tiny_checkpoint, place / "clip")
    before = sorted((place / "clip").iterdir())
    refused(run(*words, "-o", output.format("clip")), "among the weights of a checkpoint")
    assert sorted((place / "clip").iterdir()) == before


@pytest.mark.parametrize(
    ("case", "data"), [("evaluate", "photos"), ("sweep", "photos"), ("sweep", "photos/bus"), ("analyze", "photos/bus")]
)
def test_nothing_is_put_into_the_data(run, place, case, data):
    words, output = VERBS[case]
    before = sorted((place / "photos").rglob("*"))
    for inside in ("", "/run"):
        refused(run(*words, "-o", output.format(data + inside)), "would become part of the input folder photos")
    assert sorted((place / "photos").rglob("*")) == before


def test_the_same_commands_again_replace_their_own(run, place, tiny_checkpoint):
    captioner = tiny_blip_folder(place / "blip", "captioning")
    again = (
        ("evaluate", tiny_checkpoint, "--data", "photos", "--task", "zero-shot", "-o", "run"),
        ("report", "run", "-o", "r.html"),
        ("caption", "photos/bus", "-m", captioner, "--max-tokens", 2, "-o", "c.jsonl"),
        ("caption", "photos/tree", "-m", captioner, "--max-tokens", 3, "-o", "c.jsonl"),
    )
    for _ in range(2):
        for words in again:
            code, _, err = run(*words)
            assert code == 0, err
    assert "tree" in (place / "c.jsonl").read_text()
    (place / "r.md").write_text("mine")
    refused(run(*again[1]), "r.md was not made by this program")
    refused(run("caption", "photos/bus", "-m", captioner, "-o", "r.csv"), "r.csv was made by `vlmquant report`")
    # A page that is called as a file of a run or a bench would put its own JSON there.
    refused(run("report", "run", "-o", "run/evaluation.html"), "run/evaluation.json is an input")
    shutil.copytree(place / "run", place / "other")
    refused(run("report", "run", "-o", "other/run.html"), "other/run.json was made by `vlmquant evaluate`")
    for _ in range(2):
        assert run("report", "run", "-o", "run/page.html")[0] == 0
    assert {path.name for path in place.glob("vlmquant*")} == {RECORD}


def test_a_record_takes_nothing_away_from_the_data(run, place, tiny_checkpoint):
    """Captions beside the pictures are harmless, and so is their record."""
    captioner = tiny_blip_folder(place / "blip", "captioning")
    words = ("evaluate", tiny_checkpoint, "--data", "photos", "--task", "zero-shot", "--json")
    code, before, err = run(*words)
    assert code == 0, err
    code, _, err = run("caption", "photos/bus", "-m", captioner, "--max-tokens", 2, "-o", "photos/bus/words.jsonl")
    assert code == 0, err
    assert run(*words)[1] == before
