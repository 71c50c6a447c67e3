"""Parity of the Pillow preprocessing with transformers' own, and its handling of odd pictures."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage
from PIL import ImageOps
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from vlmquant.data import images as images_module
from vlmquant.errors import DataError
from vlmquant.models.preprocess import preprocess, read_image, to_rgb
from vlmquant.models.spec import ImageSpec

SHAPES = [
    (1, 1), (1, 7), (5, 3), (2, 200), (200, 2), (31, 32), (32, 32), (33, 32), (63, 64), (64, 65),
    (99, 101), (224, 224), (225, 223), (300, 451), (451, 300), (640, 480), (480, 641), (768, 577),
    (1000, 333), (37, 900),
]  # fmt: skip
MODES = ["RGB", "RGBA", "L", "LA", "P", "CMYK", "1", "YCbCr"]


def varied_images() -> Iterator[PillowImage.Image]:
    """Yield 52 pictures of noise on a gradient: every shape, every mode, every EXIF orientation."""
    generator = np.random.default_rng(7)
    for index in range(52):
        width, height = SHAPES[index % len(SHAPES)]
        ramp = np.linspace(0, 200, width)[None, :, None] + np.zeros((height, 1, 3))
        pixels = (ramp + generator.integers(0, 56, (height, width, 3))).astype(np.uint8)
        image = PillowImage.fromarray(pixels)
        mode = MODES[index % len(MODES)]
        if mode in ("RGBA", "LA"):
            image.putalpha(PillowImage.fromarray(generator.integers(0, 256, (height, width), dtype=np.uint8)))
        image = image.convert(mode)
        if index % 5 == 0:
            image.getexif()[0x0112] = 1 + index // 5 % 8
        yield image


def spec_and_processor(**settings: object) -> tuple[ImageSpec, CLIPImageProcessorPil]:
    processor = CLIPImageProcessorPil(**settings)
    return ImageSpec.from_config(processor.to_dict()), processor


def greatest_difference(image: PillowImage.Image, spec: ImageSpec, processor: CLIPImageProcessorPil) -> float:
    """Return the difference to transformers in units of the pixel range 0 to 1, before normalization."""
    expected = np.asarray(processor(ImageOps.exif_transpose(image))["pixel_values"][0])
    result = preprocess(image, spec)
    assert result.dtype == np.float32
    assert result.shape == expected.shape
    return float((np.abs(result - expected) * np.reshape(spec.std, (3, 1, 1))).max())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"size": {"shortest_edge": 37}, "crop_size": {"height": 37, "width": 37}},
        {"size": {"shortest_edge": 40}, "crop_size": {"height": 55, "width": 31}},
        {"size": {"height": 48, "width": 64}, "crop_size": {"height": 48, "width": 64}},
        {"size": {"shortest_edge": 50}, "crop_size": {"height": 33, "width": 50}, "resample": 2},
    ],
)
def test_every_pixel_equals_transformers_processor(settings: dict[str, object]) -> None:
    spec, processor = spec_and_processor(**settings)
    differences = [greatest_difference(image, spec, processor) for image in varied_images()]
    assert max(differences) < 1e-6  # far below 1/255: every byte after resizing is the same


def test_real_photographs_equal_transformers_processor(shared_data: Path) -> None:
    spec, processor = spec_and_processor()
    paths = (
        sorted((shared_data / "coco-mini").rglob("*.jpg"))[:12] + sorted((shared_data / "flickr8k").rglob("*.jpg"))[:4]
    )
    assert paths
    assert max(greatest_difference(read_image(path), spec, processor) for path in paths) < 1e-6


def test_values_by_hand() -> None:
    spec = ImageSpec(
        shortest_edge=2, resize_height=None, resize_width=None, resample=0, crop_height=2, crop_width=2,
        rescale_factor=1 / 255, mean=(0.5, 0.0, 1.0), std=(0.5, 1.0, 0.25),
    )  # fmt: skip
    pixels = np.zeros((2, 4, 3), dtype=np.uint8)
    pixels[:, 1] = (255, 0, 51)  # the centre 2 x 2 of a 2 x 4 picture are its columns 1 and 2
    result = preprocess(pixels, spec)
    np.testing.assert_allclose(result[:, 0, 0], [1.0, 0.0, -3.2], atol=1e-6)
    np.testing.assert_allclose(result[:, 1, 1], [-1.0, 0.0, -4.0], atol=1e-6)


def test_an_array_and_its_picture_give_the_same() -> None:
    spec, _ = spec_and_processor()
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    np.testing.assert_array_equal(preprocess(pixels, spec), preprocess(PillowImage.fromarray(pixels), spec))
    np.testing.assert_array_equal(preprocess(pixels[:, ::-1], spec)[:, :, ::-1].shape, (3, 224, 224))


def test_a_picture_too_thin_to_resize_is_refused() -> None:
    spec, _ = spec_and_processor()
    with pytest.raises(DataError, match="1 x 100000 is too long and thin"):
        preprocess(PillowImage.new("RGB", (1, 100_000)), spec)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, tmp_path: Path) -> None:
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    PillowImage.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    assert to_rgb(read_image(tmp_path / "a.jpg")).size == ((20, 10) if orientation < 5 else (10, 20))


def test_sixteen_bit_grey_keeps_its_upper_byte() -> None:
    grey = PillowImage.fromarray(np.array([[0, 0x80FF, 0xFFFF]], dtype=np.uint16))
    assert np.asarray(to_rgb(grey))[0, :, 0].tolist() == [0, 0x80, 0xFF]


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)],
)
def test_another_kind_of_array_is_refused(array: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"uint8 \(height, width, 3\)"):
        to_rgb(array)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    PillowImage.new("RGB", (64, 64), (1, 2, 3)).save(buffer, "JPEG")
    contents = {"empty.jpg": b"", "text.jpg": b"hello", "cut.jpg": buffer.getvalue()[:-200]}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name in [*contents, "absent.jpg"]:
        with pytest.raises(DataError, match=name):
            read_image(tmp_path / name)
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path)


def test_too_many_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PillowImage.new("L", (101, 100)).save(tmp_path / "big.png")
    monkeypatch.setattr(images_module, "MAX_PIXELS", 10_000)
    with pytest.raises(DataError, match=r"big\.png.*10,100 pixels"):
        read_image(tmp_path / "big.png")
    monkeypatch.setattr(PillowImage, "MAX_IMAGE_PIXELS", 5_000)
    with pytest.raises(DataError, match=r"big\.png"):
        read_image(tmp_path / "big.png")


def test_a_colour_that_stands_for_transparent_lies_on_white() -> None:
    spec, processor = spec_and_processor()
    (marked := PillowImage.new("P", (40, 50), 3)).info["transparency"] = 3
    marked.putpixel((4, 4), 5)
    assert greatest_difference(marked, spec, processor) < 1e-6
    assert np.asarray(to_rgb(marked))[0, 0].tolist() == [255, 255, 255]
