"""A BLIP is benched from picture to text, float beside its bundle."""

from pathlib import Path

import pytest

from fakes import tiny_blip_folder
from vlmquant.bench import bench
from vlmquant.bench.table import heading, rows
from vlmquant.bench.targets import named_targets
from vlmquant.bench.writing import GENERATION, TOKENS
from vlmquant.build.build import quantize_model
from vlmquant.checkpoints import load_blip
from vlmquant.errors import BundleError, ModelError
from vlmquant.quantize.recipes.presets import get_recipe


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_blip_folder(tmp_path_factory.mktemp("blip") / "captions", "captioning")


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Path:
    recipe = get_recipe("int8-weights")
    return quantize_model(load_blip(checkpoint), recipe, None, checkpoint.parent / "bundle")


def test_float_and_bundle_are_timed_from_picture_to_text(checkpoint: Path, bundle: Path) -> None:
    result = bench(named_targets(str(bundle), str(checkpoint)), batches=(1,), rounds=2, iterations=1, threads=1)
    assert result.component == GENERATION
    ran = {row.name for row in result.contenders if row.outcome == "ran"}
    assert ran == {"torch-fp32", "bundle-openvino", "bundle-onnxruntime"}
    for name in ran:
        measured = result.contender(name).at(1)
        assert measured is not None
        assert measured.input_shape == (1, 32, 32, 3)
        assert measured.median_ms > 0
        assert measured.speedup is not None
    assert result.contender("openvino-fp32").reason == "times the towers of a CLIP only"
    assert result.contender("bundle-onnxruntime").bytes_on_disk == result.bundle_bytes
    assert "from picture to text, batch 1 (1 x 32 x 32 x 3), 1 thread" in heading(result, 1)
    assert len(rows(result, 1)) == 3
    assert any(f"{TOKENS} tokens long" in note for note in result.notes)


def test_the_usual_component_follows_from_the_model(checkpoint: Path, bundle: Path, tiny_checkpoint: Path) -> None:
    assert named_targets(str(checkpoint), None).component == GENERATION
    assert named_targets(str(bundle), None).component == GENERATION
    assert named_targets(str(tiny_checkpoint), None).component == "image"


def test_a_bundle_of_another_kind_than_its_float_original_is_refused(
    bundle: Path, checkpoint: Path, tiny_bundle: Path
) -> None:
    with pytest.raises(ModelError, match=r"is a dual-encoder and .* a captioner"):
        named_targets(str(tiny_bundle), str(checkpoint))


def test_a_tower_of_a_blip_is_refused(bundle: Path) -> None:
    with pytest.raises(BundleError, match="unknown component of a captioner to bench 'image'; known: generation"):
        bench(named_targets(str(bundle), None, "image"))
