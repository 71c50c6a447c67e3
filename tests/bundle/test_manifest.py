import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vlmquant.bundle.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    ComponentFacts,
    FileFacts,
    GraphRecipe,
    Manifest,
    file_facts,
)
from vlmquant.errors import BundleError
from vlmquant.models.heads import DualEncoderHead

SETTINGS = {
    "name": "r",
    "activations": {"bits": 8, "ranges": "static"},
    "weights": {"bits": 4},
    "smoothing": False,
    "keep_float": ["a.b"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("image.onnx", "text.onnx"):
        (tmp_path / name).write_bytes(b"graph")
    manifest = Manifest(
        name="test",
        source={"name": "x", "weights_sha256": "0", "random_weights": True},
        calibration={"images": 1, "images_from": "i", "texts": 1, "texts_from": "t", "sha256": "0"},
        head=DualEncoderHead(logit_scale=100.0),
        components={"image": component("image.onnx"), "text": component("text.onnx")},
        requires_any_of=("avx512_vnni",),
        files={name: file_facts(tmp_path / name) for name in ("image.onnx", "text.onnx")},
        tools={"numpy": "2"},
    )
    manifest.write(tmp_path)
    return tmp_path


def component(file: str) -> ComponentFacts:
    return ComponentFacts(
        file=file,
        recipe=GraphRecipe.from_settings(SETTINGS),
        fidelity={"cosine_min": 1.0},
        parity={"openvino": {"cosine_min": 1.0}},
        integer_mac_share={"openvino": 0.5},
    )


def edit(folder: Path, **changes: object) -> None:
    values = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**values, **changes}))


def test_what_is_written_is_read(folder: Path) -> None:
    manifest = Manifest.read(folder)
    expected = "eef93e1d14482804277fca0172464032d1a4fdbcc338524059fa1e861454ad4d"
    assert manifest.files["image.onnx"] == FileFacts(sha256=expected, bytes=5)
    assert manifest.total_bytes == 10
    recipe = manifest.components["image"].recipe
    assert recipe is not None
    assert (recipe.weight_bits, recipe.activation_bits, recipe.activations) == (4, 8, "static")
    assert manifest.components["text"].kept_float == ("a.b",)
    assert manifest.precision == "r"
    manifest.write(folder)
    assert Manifest.read(folder) == manifest


def test_a_newer_schema_is_refused(folder: Path) -> None:
    edit(folder, schema_version=SCHEMA_VERSION + 1)
    with pytest.raises(BundleError, match=f"schema version {SCHEMA_VERSION + 1}"):
        Manifest.read(folder)


@pytest.mark.parametrize("name", ["../image.onnx", "/etc/passwd", "a/b", "a\\b", "C:x", "..", "", MANIFEST, "a" * 300])
def test_a_path_that_leaves_the_folder_is_refused(folder: Path, name: str) -> None:
    edit(folder, files={name: {"sha256": "0", "bytes": 1}})
    with pytest.raises(BundleError, match="only plain names"):
        Manifest.read(folder)


def test_every_value_of_another_type_is_a_bundle_error(folder: Path) -> None:
    content = (folder / MANIFEST).read_text()
    strange = [
        None,
        True,
        5,
        -1,
        2**64,
        1.5,
        float("nan"),
        float("inf"),
        "x",
        "\x1b[2J",
        "\ud800",
        [],
        [1, 2],
        {},
        {"a": 1},
    ]
    refused: list[str] = []
    for path in list(paths(json.loads(content))):
        for value in [*strange, REMOVED]:
            values = json.loads(content)
            inside = values
            for step in path[:-1]:
                inside = inside[step]
            if value is REMOVED:
                del inside[path[-1]]
            else:
                inside[path[-1]] = value
            (folder / MANIFEST).write_text(json.dumps(values))
            try:
                Manifest.read(folder)
            except BundleError as error:
                refused.append(str(error))
    assert len(refused) > 500
    assert not any("\x1b" in message for message in refused)


REMOVED = object()


def paths(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value inside of JSON `values`."""
    steps = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for step, inside in steps:
        yield (*path, step)
        yield from paths(inside, (*path, step))


@pytest.mark.parametrize(
    "change", [{"type": "oracle"}, {"logit_scale": "x"}, {"logit_scale": float("nan")}, {"start_id": 2**31}]
)
def test_a_head_that_is_none_is_refused(folder: Path, change: dict[str, object]) -> None:
    edit(folder, head={**Manifest.read(folder).to_dict()["head"], **change})
    with pytest.raises(BundleError, match=r"head|start_id"):
        Manifest.read(folder)


def test_a_head_without_one_of_its_graphs_is_refused(folder: Path) -> None:
    components = Manifest.read(folder).to_dict()["components"]
    edit(folder, components={"image": components["image"]})
    with pytest.raises(BundleError, match="image, text"):
        Manifest.read(folder)


def test_a_component_must_name_a_listed_file(folder: Path) -> None:
    components = Manifest.read(folder).to_dict()["components"]
    edit(folder, components={**components, "image": {**components["image"], "file": "other.onnx"}})
    with pytest.raises(BundleError, match=r"other\.onnx"):
        Manifest.read(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 1}', "not json", "[" * 100_000])
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
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(BundleError, match="holds a list, expected an object"):
        Manifest.read(tmp_path)


def test_identity_is_of_all_that_decides_a_result(folder: Path) -> None:
    manifest = Manifest.read(folder)
    same = dataclasses.replace(manifest, name="another name", tools={}, calibration=None)
    assert same.identity == manifest.identity
    (folder / "image.onnx").write_bytes(b"other")
    others = (
        dataclasses.replace(manifest, head=DualEncoderHead(logit_scale=99.0)),
        dataclasses.replace(manifest, files={**manifest.files, "image.onnx": file_facts(folder / "image.onnx")}),
        dataclasses.replace(manifest, components={"image": component("text.onnx"), "text": component("image.onnx")}),
    )
    assert len({manifest.identity, *(other.identity for other in others)}) == 4
