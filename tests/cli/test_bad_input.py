"""Bad input to `vlmquant quantize`: one line that names it, exit code 2, nothing half-written."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from PIL import Image

from fakes import tiny_clip_folder
from vlmquant.cli import main

NAMED = {"name": "mine", "description": "of the test"}


@dataclass(frozen=True)
class Place:
    """A folder with a `checkpoint`, calibration `photos`, and room for what a case writes."""

    folder: Path
    checkpoint: Path

    @property
    def photos(self) -> Path:
        return self.folder / "photos"

    def recipe(self, text: str, suffix: str = ".json") -> Path:
        path = self.folder / f"mine{suffix}"
        path.write_text(text)
        return path

    def like(self, **fields: object) -> Path:
        return self.recipe(json.dumps({**NAMED, **fields}))


@pytest.fixture
def place(tmp_path: Path, tiny_checkpoint: Path) -> Place:
    (tmp_path / "photos").mkdir()
    for index in range(2):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{index}.png")
    return Place(tmp_path, tiny_checkpoint)


def empty_folder(place: Place) -> Path:
    (place.folder / "nothing").mkdir()
    return place.folder / "nothing"


def folder_of_notes(place: Place) -> Path:
    (place.folder / "notes").mkdir()
    (place.folder / "notes" / "notes.txt").write_text("no picture")
    return place.folder / "notes"


def broken_link(place: Place) -> Path:
    (place.folder / "link").symlink_to(place.folder / "nowhere")
    return place.folder / "link"


def checkpoint_with(value: float) -> Callable[[Place], Path]:
    def write(place: Place) -> Path:
        folder = tiny_clip_folder(place.folder / "bad")
        state = safetensors.torch.load_file(folder / "model.safetensors")
        state["vision_model.encoder.layers.1.mlp.fc1.weight"][3, 4] = value
        safetensors.torch.save_file(state, folder / "model.safetensors", {"format": "pt"})
        return folder

    return write


# What goes into which option, and what the error must name.
CASES: dict[str, tuple[str, Callable[[Place], object], str]] = {
    "unknown recipe": ("--recipe", lambda _: "int9", "unknown recipe 'int9'; known: "),
    "recipe file missing": ("--recipe", lambda _: "nowhere.json", "'nowhere.json' cannot be read"),
    "recipe file broken": ("--recipe", lambda place: place.recipe("{"), "is not JSON"),
    "recipe file broken TOML": ("--recipe", lambda place: place.recipe("name = ", ".toml"), "is not TOML"),
    "recipe no object": ("--recipe", lambda place: place.recipe("[1]"), "holds a list"),
    "recipe key": ("--recipe", lambda place: place.like(colour=1), "unknown Recipe key 'colour'"),
    "recipe of a wrong type": ("--recipe", lambda place: place.like(weights=8), "mine.json"),
    "too many bits": ("--recipe", lambda place: place.like(weights={"bits": 9}), "got 9"),
    "too few bits": ("--recipe", lambda place: place.like(activations={"bits": 1}), "got 1"),
    "bits in words": ("--recipe", lambda place: place.like(weights={"bits": "eight"}), "eight"),
    "pattern of nothing": ("--recipe", lambda place: place.like(keep_float=["*.fc3"]), "'*.fc3' matches no layer"),
    "override of nothing": (
        "--recipe",
        lambda place: place.like(overrides=[{"pattern": "*.fc7", "weights": 4}]),
        "'*.fc7' matches no layer",
    ),
    "simulation only": ("--recipe", lambda _: "torch-dynamic", "'torch-dynamic' is simulation only"),
    "no such folder": ("--calibrate", lambda place: place.folder / "absent", "absent' does not exist"),
    "empty folder": ("--calibrate", empty_folder, "nothing' holds no image"),
    "folder of notes": ("--calibrate", folder_of_notes, "notes' holds no image"),
    "a file as folder": ("--calibrate", lambda place: place.photos / "0.png", "0.png"),
    "no images asked for": ("--images", lambda _: 0, "got 0"),
    "no texts": ("--texts", lambda place: place.recipe("\n\n", ".txt"), "is empty"),
    "texts in no encoding": ("--texts", lambda place: place.photos / "0.png", "0.png"),
    "unknown component": ("--components", lambda _: "image,audio", "component of a dual-encoder 'audio'"),
    "a drop without data": ("--max-drop", lambda _: 5, "--max-drop and --data go together"),
    "data without a drop": ("--data", lambda place: place.photos, "a budget needs a bound"),
    "a size of nothing": ("--max-megabytes", lambda _: 0, "must be above 0"),
    "an output below a file": ("-o", lambda place: place.photos / "0.png" / "b", "Not a directory"),
    "an output with a long name": ("-o", lambda place: place.folder / ("n" * 300) / "b", "File name too long"),
    "an output in a broken link": ("-o", lambda place: broken_link(place) / "b", "it is a link to nothing"),
    "an option that is not there": ("--colour", lambda _: "red", "No such option: --colour"),
    "NaN weight": ("checkpoint", checkpoint_with(float("nan")), "vision_model.encoder.layers.1.mlp.fc1.weight"),
    "infinite weight": ("checkpoint", checkpoint_with(float("inf")), "vision_model.encoder.layers.1.mlp.fc1.weight"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_named_and_nothing_is_written(
    case: str, place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    option, value, message = CASES[case]
    options: dict[str, object] = {"checkpoint": place.checkpoint, "--calibrate": place.photos, "-o": place.folder / "b"}
    options[option] = value(place)
    before = sorted(place.folder.iterdir())
    words = [options.pop("checkpoint"), *(word for pair in options.items() for word in pair)]
    monkeypatch.setattr(sys, "argv", ["vlmquant", "quantize", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    assert ended.value.code == 2
    assert captured.out == ""
    error = captured.err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in captured.err
    assert sorted(place.folder.iterdir()) == before
