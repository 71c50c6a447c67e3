"""Bundles that earlier versions wrote; the fixtures were made by them and are not to be made again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from vlmquant.bundle import Manifest, open_bundle, verify
from vlmquant.bundle.manifest import MANIFEST, SCHEMA_VERSION, add_file
from vlmquant.models.heads import CaptionerHead, DualEncoderHead, as_encoder, as_writer

FIXTURES = Path(__file__).with_name("fixtures")


@pytest.fixture
def schema_1(tmp_path: Path) -> Path:
    folder = shutil.copytree(FIXTURES / "schema-2-clip", tmp_path / "old")
    shutil.copy(FIXTURES / "schema-1-manifest.json", folder / MANIFEST)
    return Path(folder)


def test_schema_1_opens_as_the_dual_encoder_that_it_is(schema_1: Path) -> None:
    manifest = Manifest.read(schema_1)
    assert isinstance(manifest.head, DualEncoderHead)
    assert manifest == Manifest.read(FIXTURES / "schema-2-clip")
    assert manifest.precision == "static-int8"
    assert manifest.components["image"].activations == "static"
    assert min(row.cosine_min for row in verify(schema_1).rows) > 0.999
    assert as_encoder(open_bundle(schema_1, probe=False)).encode_texts(["a dog"]).shape == (1, 8)


def test_schema_2_of_a_blip_opens_as_a_captioner() -> None:
    folder = FIXTURES / "schema-2-blip"
    manifest = Manifest.read(folder)
    assert isinstance(manifest.head, CaptionerHead)
    assert {name: facts.precision for name, facts in manifest.components.items()} == dict.fromkeys(
        ("vision", "cross", "decoder"), "static-int8"
    )
    assert [row.equal_tokens for row in verify(folder).rows if row.component == "decoder"] == [1.0, 1.0]
    captioner = as_writer(open_bundle(folder, probe=False))
    assert len(captioner.caption([np.zeros((20, 20, 3), dtype=np.uint8)])) == 1


def test_what_is_written_again_is_of_this_schema_and_still_proved(schema_1: Path) -> None:
    before = Manifest.read(schema_1)
    add_file(schema_1, "notes.txt", "kept")
    assert json.loads((schema_1 / MANIFEST).read_text())["schema_version"] == SCHEMA_VERSION
    after = Manifest.read(schema_1)
    assert after.components == before.components
    assert after.head == before.head
    assert verify(schema_1, engine="onnxruntime").rows
