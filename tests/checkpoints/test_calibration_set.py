"""Pictures of a calibration folder: which are read, what is warned of, and that they are not all in memory."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.data import images as images_module
from vlmquant.errors import CalibrationError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for index in range(20):
        pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        PillowImage.fromarray(pixels).save(tmp_path / f"{index:02}.png")
    return tmp_path


def test_a_good_folder_is_read_without_a_warning(folder: Path) -> None:
    (folder / ".thumbnails").mkdir()
    for hidden in (".thumbnails/a.png", "._00.png", ".DS_Store"):
        (folder / hidden).write_bytes(b"x")
    found = CalibrationSet.from_files(folder, count=16)
    assert (len(found.images), found.warnings) == (16, ())
    assert found.images_from == f"16 images of folder {folder.name}"
    assert found.to_dict()["warnings"] == []
    assert found.digest == CalibrationSet(list(found.images), found.texts, "", "").digest


def test_a_broken_picture_is_left_out_with_a_warning(folder: Path) -> None:
    (folder / "07.png").write_bytes(b"\x89PNG broken")
    found = CalibrationSet.from_files(folder)
    assert len(found.images) == 19
    (warning,) = found.warnings
    assert warning.startswith("1 of 20 calibration pictures left out as broken: 07.png (")
    for path in folder.iterdir():
        path.write_bytes(b"")
    with pytest.raises(CalibrationError, match=r"none of 20 pictures.*00\.png \(empty file\)"):
        CalibrationSet.from_files(folder)


def test_files_of_other_kinds_are_counted(folder: Path) -> None:
    for name in ("a.heic", "b.txt"):
        (folder / name).write_bytes(b"x")
    found = CalibrationSet.from_files(folder)
    assert found.warnings == ("2 files of the calibration folder ignored, of a kind that is not read: .heic, .txt",)


def test_few_and_equal_pictures_are_warned_of(folder: Path) -> None:
    for path in sorted(folder.iterdir())[1:]:
        path.write_bytes((folder / "00.png").read_bytes())
    repeated, few = CalibrationSet.from_files(folder).warnings
    assert repeated.startswith("19 of 20 calibration pictures are the same as another")
    assert few.startswith("calibrated on only one picture")
    (few,) = CalibrationSet.from_files(folder, count=1).warnings
    assert "only one picture" in few


def test_one_picture_at_a_time_is_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = CalibrationSet.from_files(folder)
    opened: list[int] = []
    real = images_module.open_picture
    monkeypatch.setattr(images_module, "open_picture", lambda data: opened.append(len(data)) or real(data))
    first = next(iter(found.images))
    assert first.size == (8, 8)
    assert len(opened) == 1
