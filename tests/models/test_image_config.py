"""Every value that transformers' image processors take: the same pixels, or a sentence that names the key."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from vlmquant.errors import ModelError
from vlmquant.models.image_config import BLIP, CLIP
from vlmquant.models.preprocess import preprocess
from vlmquant.models.spec import ImageSpec

PROCESSORS = {CLIP: CLIPImageProcessorPil, BLIP: BlipImageProcessorPil}
BASE: dict[str, dict[str, Any]] = {
    CLIP: {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
    BLIP: {"size": {"height": 32, "width": 32}},
}
WIDE = {"height": 40, "width": 36}
READ: list[dict[str, Any]] = [
    {},
    {"size": 40},
    {"size": [40, 36]},
    {"size": WIDE},
    {"size": {"shortest_edge": 40, "longest_edge": None}, "do_center_crop": True, "crop_size": 24},
    {"do_center_crop": None, "size": WIDE},
    {"do_center_crop": False, "size": WIDE},
    {"do_center_crop": True, "crop_size": 24},
    {"do_center_crop": True, "crop_size": [24, 28]},
    {"do_center_crop": None, "size": WIDE, "crop_size": None},
    {"image_mean": 0.5, "image_std": 0.25},
    {"do_normalize": False},
    {"do_normalize": None, "image_mean": None, "image_std": None},
    {"do_rescale": False},
    {"do_rescale": None, "rescale_factor": None},
    {"do_pad": None, "do_convert_rgb": None},
    {"rescale_factor": 1 / 127.5},
    {"resample": 0},
    {"do_pad": True},
    {"do_convert_rgb": False},
    {"unknown": "x"},
]
REFUSED: list[dict[str, Any]] = [
    {"size": None},
    {"size": {}},
    {"size": 0},
    {"size": 32.0},
    {"size": True},
    {"size": "32"},
    {"size": [32]},
    {"size": {**WIDE, "shortest_edge": None}},
    {"size": {"longest_edge": 32}},
    {"size": {"max_height": 32, "max_width": 32}},
    {"size": {"shortest_edge": 32, "longest_edge": 64}},
    {"do_center_crop": False, "size": {"shortest_edge": 32}},
    {"do_center_crop": "yes"},
    {"crop_size": {"shortest_edge": 32}, "do_center_crop": True},
    {"crop_size": 0, "do_center_crop": True},
    {"crop_size": None, "do_center_crop": True},
    {"resample": None},
    {"resample": 9},
    {"resample": "bicubic"},
    {"resample": True},
    {"image_mean": None},
    {"image_std": None},
    {"image_mean": [0.5]},
    {"image_mean": "0.5"},
    {"image_mean": [0.5, 0.5, float("nan")]},
    {"rescale_factor": None},
    {"rescale_factor": 0},
    {"rescale_factor": "1"},
    {"do_resize": False},
    {"do_resize": None},
    {"do_normalize": "false"},
    {"pad_size": WIDE, "do_pad": True},
    {"use_square_size": True},
]


@pytest.fixture(scope="module")
def pictures() -> list[PillowImage.Image]:
    generator = np.random.default_rng(4)
    sizes = ((50, 70), (90, 30), (20, 20))
    return [PillowImage.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("changes", READ, ids=str)
def test_pixels_equal_transformers(changes: dict[str, Any], processor: str, pictures: list[PillowImage.Image]) -> None:
    config = {**BASE[processor], **changes}
    theirs = PROCESSORS[processor](**config)
    spec = ImageSpec.from_config(config, processor=processor)
    for picture in pictures:
        expected = np.asarray(theirs(picture)["pixel_values"][0])
        level = spec.rescale_factor / min(spec.std)
        np.testing.assert_allclose(preprocess(picture, spec), expected, atol=level / 100)


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("changes", REFUSED, ids=str)
def test_other_values_are_refused_by_name(changes: dict[str, Any], processor: str) -> None:
    with pytest.raises(ModelError, match=rf"preprocessor_config\.json has {next(iter(changes))} = .*expected"):
        ImageSpec.from_config({**BASE[processor], **changes}, processor=processor)


@pytest.mark.parametrize("named", ["CLIPImageProcessorFast", "CLIPImageProcessorPil", "CLIPImageProcessor"])
def test_the_file_names_its_processor(named: str) -> None:
    spec = ImageSpec.from_config({"image_processor_type": named, "size": 40}, processor=BLIP)
    assert (spec.shortest_edge, spec.crop_height) == (40, 224)
    old = ImageSpec.from_config({"feature_extractor_type": "CLIPFeatureExtractor", "size": 40}, processor=BLIP)
    assert old == spec
    with pytest.raises(ModelError, match=r"unknown image_processor_type in .*'ViTImageProcessor'; known: Blip"):
        ImageSpec.from_config({"image_processor_type": "ViTImageProcessor"})


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("changes", READ, ids=str)
def test_a_saved_spec_is_read_back_here_and_by_transformers(
    changes: dict[str, Any], processor: str, tmp_path: Path, pictures: list[PillowImage.Image]
) -> None:
    spec = ImageSpec.from_config({**BASE[processor], **changes}, processor=processor)
    spec.save(tmp_path)
    assert ImageSpec.from_folder(tmp_path, processor=BLIP) == spec
    theirs = PROCESSORS[processor].from_pretrained(tmp_path)
    expected = np.asarray(theirs(pictures[0])["pixel_values"][0])
    level = spec.rescale_factor / min(spec.std)
    np.testing.assert_allclose(preprocess(pictures[0], spec), expected, atol=level / 100)
