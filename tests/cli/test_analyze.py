"""`vlmquant analyze` as a user types it."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from vlmquant.cli import main


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
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def test_page_pictures_and_json_are_written(run, tiny_checkpoint, photos, tmp_path) -> None:
    out = tmp_path / "out"
    words = ("--recipes", "vanilla-w4a4", "-o", out, "--json")
    code, text, err = run("analyze", tiny_checkpoint, "--calibrate", photos, *words)
    assert code == 0, err
    content = json.loads(text)
    assert [one["name"] for one in content["similarities"]] == ["float", "static-int8", "vanilla-w4a4"]
    distances = [one["wasserstein"] for one in content["similarities"]]
    assert distances[0] == 0
    assert distances[1] < distances[2]
    sensitivity = [layer["cosine_loss"] for layer in content["towers"]["image"]["sensitivity"]]
    assert sensitivity == sorted(sensitivity, reverse=True)
    assert len(sensitivity) == len(content["towers"]["image"]["sites"])
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "The weights are random" in page
    assert "<script" not in page
    names = {path.name for path in out.glob("*.png")}
    assert names >= {"cosines.png", "similarities.png", "image-sensitivity.png", "text-inputs-gelu.png"}
    assert json.loads((out / "analysis.json").read_text(encoding="utf-8"))["recipe"] == "static-int8"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--recipe", "int9"), "unknown recipe 'int9'"),
        (("--recipe", "fp16"), "stores no integers"),
        (("--recipes", "int9"), "unknown recipe 'int9'"),
    ],
)
def test_mistakes_are_one_line(run, tiny_checkpoint, photos, tmp_path, words, message) -> None:
    code, _, err = run("analyze", tiny_checkpoint, "--calibrate", photos, "-o", tmp_path / "out", *words)
    assert code == 2
    assert message in err
    assert not (tmp_path / "out").exists()
