import dataclasses
import json
from pathlib import Path

import pytest

from vlmquant.bundle.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    ComponentFacts,
    FileFacts,
    Manifest,
    check_files,
    file_facts,
)
from vlmquant.errors import BundleError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "image.onnx").write_bytes(b"graph")
    manifest = Manifest(
        name="test",
        source={"name": "x", "weights_sha256": "0", "random_weights": True},
        recipe={"name": "r"},
        calibration=None,
        logit_scale=100.0,
        components={
            "image": ComponentFacts(file="image.onnx", precision="r", fidelity={}, parity={}, integer_mac_share={})
        },
        requires_any_of=("avx512_vnni",),
        files={"image.onnx": file_facts(tmp_path / "image.onnx")},
        tools={},
    )
    manifest.write(tmp_path)
    return tmp_path


def edit(folder: Path, **changes: object) -> None:
    values = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**values, **changes}))


def test_what_is_written_is_read(folder: Path) -> None:
    manifest = Manifest.read(folder)
    expected = "eef93e1d14482804277fca0172464032d1a4fdbcc338524059fa1e861454ad4d"
    assert manifest.files["image.onnx"] == FileFacts(sha256=expected, bytes=5)
    assert manifest.total_bytes == 5
    manifest.write(folder)
    assert Manifest.read(folder) == manifest
    check_files(folder, manifest)


def test_a_flipped_byte_is_named(folder: Path) -> None:
    (folder / "image.onnx").write_bytes(b"grapi")
    with pytest.raises(BundleError, match=r"image\.onnx .* altered"):
        check_files(folder, Manifest.read(folder))


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "image.onnx").unlink()
    with pytest.raises(BundleError, match=r"image\.onnx is missing"):
        check_files(folder, Manifest.read(folder))


def test_a_link_is_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "image.onnx"
    elsewhere.write_bytes(b"graph")
    (folder / "image.onnx").unlink()
    (folder / "image.onnx").symlink_to(elsewhere)
    with pytest.raises(BundleError, match="symbolic link"):
        check_files(folder, Manifest.read(folder))


def test_a_newer_schema_is_refused(folder: Path) -> None:
    edit(folder, schema_version=SCHEMA_VERSION + 1)
    with pytest.raises(BundleError, match=f"schema version {SCHEMA_VERSION + 1}"):
        Manifest.read(folder)


@pytest.mark.parametrize("name", ["../image.onnx", "/etc/passwd", "a/b", "a\\b", "..", "", MANIFEST])
def test_a_path_that_leaves_the_folder_is_refused(folder: Path, name: str) -> None:
    edit(folder, files={name: {"sha256": "0", "bytes": 1}})
    with pytest.raises(BundleError, match="only plain names"):
        Manifest.read(folder)


def test_a_component_must_name_a_listed_file(folder: Path) -> None:
    facts = dataclasses.asdict(Manifest.read(folder).components["image"])
    edit(folder, components={"image": {**facts, "file": "other.onnx"}})
    with pytest.raises(BundleError, match=r"other\.onnx"):
        Manifest.read(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 1}', "not json"])
def test_a_damaged_manifest_is_a_bundle_error(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)
    with pytest.raises(BundleError, match=r"damaged|schema"):
        Manifest.read(folder)


def test_unknown_fields_are_refused(folder: Path) -> None:
    edit(folder, colour="red")
    with pytest.raises(BundleError, match="colour"):
        Manifest.read(folder)


def test_a_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a bundle"):
        Manifest.read(tmp_path)
    with pytest.raises(BundleError, match="does not exist"):
        Manifest.read(tmp_path / "nowhere")
