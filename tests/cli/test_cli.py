"""Commands as a user types them: results, JSON, and errors without a traceback."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlmquant.cli import main


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Return a function from words to (exit code, standard output, standard error)."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vlmquant", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def test_quantize_then_verify(run, tiny_checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("a red bus\n\nan empty street\n")
    code, out, err = run(
        "quantize", tiny_checkpoint, "--calibrate", photos, "--texts", texts, "-o", tmp_path / "b", "--json"
    )
    assert code == 0, err
    manifest = json.loads(out)
    assert manifest["calibration"]["images"] == 3
    assert manifest["calibration"]["texts"] == 2
    assert manifest["calibration"]["texts_from"] == "texts.txt"
    code, out, err = run("verify", tmp_path / "b", "--json")
    assert code == 0, err
    assert {row["component"] for row in json.loads(out)} == {"image", "text"}


def test_the_output_names_the_built_in_texts_and_the_random_weights(
    run, tiny_checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    code, out, err = run("quantize", tiny_checkpoint, "--calibrate", photos, "-o", tmp_path / "b")
    assert code == 0, err
    assert "built-in prompt list" in out
    assert "random" in out


def test_recipes_are_listed(run) -> None:
    code, out, _ = run("recipes")
    assert code == 0
    assert "static-int8" in out
    assert "dynamic-int8" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("quantize", "no/such", "-o", "b", "--recipe", "int9"), "unknown recipe 'int9'"),
        (("quantize", "./nowhere", "-o", "b", "--recipe", "dynamic-int8"), "pass"),
        (("verify", "nowhere"), "does not exist"),
        (("verify", __file__), "is a file, expected a folder"),
        (("evaluate", "m", "--data", __file__), "is a file, expected a folder"),
        (("quantize", "m", "-o", "b", "--calibrate", __file__), "is a file, expected a folder"),
        (
            (
                "quantize",
                "m",
                "-o",
                "b",
                "--component-recipe",
                "text=int8-weights",
                "--component-recipe",
                "text=float32",
            ),
            "names 'text' twice",
        ),
        (("bench", "b", "--recipe", "static-int8"), "goes with --random-weights"),
        (("bench", "b", "--random-weights", "ViT-B-32"), "leave b out"),
        (("caption", "p", "--beams", "65"), "beams=65 between 1 and 64"),
        (("bench",), "--random-weights"),
        (("bench", "--random-weights", "ViT-X"), "ViT-B-32"),
        (("detect", "nowhere.mp4", "--event", "a dog"), "not a file"),
    ],
)
def test_user_errors_are_one_line_and_exit_2(run, words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    code, out, err = run(*words)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err


def test_static_ranges_without_calibration_name_the_flag(run, tiny_checkpoint: Path, tmp_path: Path) -> None:
    code, _, err = run("quantize", tiny_checkpoint, "-o", tmp_path / "b")
    assert code == 2
    assert "--calibrate" in err
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("content", [None, "notes.txt"])
def test_a_calibration_folder_without_images_is_refused(
    run, tiny_checkpoint: Path, tmp_path: Path, content: str | None
) -> None:
    folder = tmp_path / "photos"
    if content is not None:
        folder.mkdir()
        (folder / content).write_text("no picture")
    code, _, err = run("quantize", tiny_checkpoint, "--calibrate", folder, "-o", tmp_path / "b")
    assert code == 2
    assert "photos" in err
    assert not (tmp_path / "b").exists()


def test_a_broken_calibration_image_is_named(run, tiny_checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"not a picture")
    code, out, err = run("quantize", tiny_checkpoint, "--calibrate", photos, "-o", tmp_path / "b")
    assert code == 0, err
    assert "warning" in out
    assert "broken.jpg" in out.replace("\n", "")
