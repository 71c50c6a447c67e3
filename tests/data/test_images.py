"""Which files are opened as pictures at all: untrusted ones may be anything."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from vlmquant.data import images
from vlmquant.data.folders import image_files, read_flat_folder
from vlmquant.data.images import FileImage, LazyImages, inspect, open_picture
from vlmquant.errors import DataError

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"


def encoded(kind: str, size: tuple[int, int] = (40, 30)) -> bytes:
    file = io.BytesIO()
    PillowImage.new("RGB", size, (200, 10, 10)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", images.FORMATS)
def test_the_usual_formats_open_whatever_their_name(kind: str) -> None:
    assert open_picture(encoded(kind)).size == (40, 30)


def test_no_other_program_is_started_for_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path / 'called'}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "a.jpg").write_bytes(EPS)
    assert "no image in a format that is known here" in str(inspect(FileImage(tmp_path / "a.jpg")).broken)
    with pytest.raises(DataError, match=r"a\.jpg.*no image in a format"):
        _ = LazyImages(("a.jpg",), (FileImage(tmp_path / "a.jpg"),))[0]
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("kind", ["ICNS", "TGA", "PCX", "ICO"])
def test_rare_formats_are_refused(kind: str) -> None:
    with pytest.raises(DataError, match="BMP, GIF, JPEG"):
        open_picture(encoded(kind, (32, 32)))


def test_what_is_no_regular_file_is_named_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "z.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "device.png").symlink_to("/dev/zero")
    for name in ("z.png", "folder.png", "device.png"):
        assert inspect(FileImage(tmp_path / name)).broken == "not a regular file"
    assert inspect(FileImage(tmp_path / "absent.png")).missing
    with pytest.raises(DataError, match=r"z\.png \(not a regular file\)"):
        read_flat_folder(tmp_path)


def test_huge_files_and_pictures_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    monkeypatch.setattr(images, "MAX_PIXELS", 1_199)
    with pytest.raises(DataError, match="1,200 pixels, expected at most 1,199"):
        open_picture(encoded("PNG"))
    monkeypatch.setattr(images, "MAX_BYTES", 50)
    assert "expected at most 50" in str(inspect(FileImage(tmp_path / "a.png")).broken)


def test_whatever_a_broken_file_makes_pillow_raise_is_a_sentence() -> None:
    generator = np.random.default_rng(0)
    said = []
    for kind in images.FORMATS:
        data = bytearray(encoded(kind))
        for _ in range(20):
            at = int(generator.integers(4, len(data)))
            data[at] = int(generator.integers(256))
            try:
                open_picture(bytes(data))
            except DataError as error:
                said.append(str(error))
    assert said
    assert all(said)


def test_hidden_files_are_passed_over_and_jfif_is_a_picture(tmp_path: Path) -> None:
    for name in ("._a.jpg", ".b.png", "c.jfif", "d.heic"):
        (tmp_path / name).write_bytes(encoded("JPEG"))
    assert [path.name for path in image_files(tmp_path)] == ["c.jfif"]
