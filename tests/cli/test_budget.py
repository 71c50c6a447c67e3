"""`vlmquant budget` and its short form in `quantize`, as a user types them."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from fakes import tiny_blip_folder
from vlmquant.cli import main
from vlmquant.cli.budget import limits
from vlmquant.errors import DataError, ExitCode

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function from words to (exit code, standard output, standard error)."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vlmquant", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def captioner(tmp_path: Path) -> Path:
    return tiny_blip_folder(tmp_path / "captioner", "captioning")


@pytest.fixture
def captioned(tmp_path: Path) -> Path:
    pictures = tmp_path / "data" / "images"
    pictures.mkdir(parents=True)
    lines = ["image,caption"]
    for i in range(20):
        Image.new("RGB", (40, 40), (12 * i, 0, 0)).save(pictures / f"{i:02}.png")
        lines.append(f"{i:02}.png,a red bus {i}")
    (pictures.parent / "captions.csv").write_text("\n".join(lines))
    return pictures.parent


def test_a_blip_is_searched_over(run: Run, captioner: Path, captioned: Path, tmp_path: Path) -> None:
    words = ("budget", captioner, "--data", captioned, "--calibrate", captioned / "images", "--images", 2)
    output = tmp_path / "bundle"
    code, _, err = run(*words, "--max-drop", 1, "--metric", "vqa_accuracy", "-o", output)
    assert (code, "bleu-4, cider" in err) == (2, True), err
    code, _, err = run(*words, "--max-drop", 1, "--recipe", "fp16", "-o", output)
    assert (code, "leave recipe and components out" in err) == (2, True), err
    assert not output.exists()
    code, out, err = run(*words, "--max-drop", 100, "--max-tokens", 3, "--json", "-o", output)
    assert code == 0, err
    assert json.loads(out) == json.loads((output / "search.json").read_text())
    assert json.loads(out)["metric"] == "cider"


def test_quantize_is_short_for_it(run: Run, captioner: Path, captioned: Path, tmp_path: Path) -> None:
    words = ("quantize", captioner, "--data", captioned, "--calibrate", captioned / "images", "--images", 2)
    code, _, err = run(*words, "--max-drop", 1, "--component-recipe", "decoder=fp16", "-o", tmp_path / "b")
    assert (code, "itself" in err) == (2, True), err


def test_a_size_alone_is_for_a_clip(run: Run, captioner: Path, tmp_path: Path) -> None:
    code, _, err = run("budget", captioner, "--max-megabytes", 1, "-o", tmp_path / "b")
    assert (code, "needs --max-drop too" in err) == (2, True), err


def test_a_size_out_of_reach_is_beyond_the_budget(
    run: Run, tiny_checkpoint: Path, captioned: Path, tmp_path: Path
) -> None:
    words = ("budget", tiny_checkpoint, "--calibrate", captioned / "images", "--images", 2, "-o", tmp_path / "b")
    code, _, err = run(*words, "--max-megabytes", 0.001)
    assert (code, "are not enough" in err) == (ExitCode.BEYOND, True), err
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs a bound"),
        ({"max_drop": -1.0}, "between 0 and 100"),
        ({"max_drop": float("nan")}, "between 0 and 100"),
        ({"max_megabytes": float("nan")}, "above 0"),
        ({"max_megabytes": 1.0, "max_latency_ms": 5.0}, "give --max-drop and --data too"),
        ({"max_drop": 1.0, "max_latency_ms": 0.0}, "above 0 ms"),
        ({"max_drop": 1.0, "templates": "openai-8"}, "openai-80"),
    ],
)
def test_a_budget_that_nothing_is_inside_of_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        limits(**{"max_drop": None, "max_megabytes": None, **options})  # type: ignore[arg-type]
