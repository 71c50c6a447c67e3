"""What the benchmarks measure on: street world, the real sets of the shared data, and noise."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PictureFile

import streetworld
from streetworld.questions import IMAGE_NAME, write_questions
from vlmquant import CalibrationSet
from vlmquant.data.captions import read_caption_table
from vlmquant.data.coco import read_vqa
from vlmquant.data.images import FileImage, LazyImages
from vlmquant.data.sets import CaptionedImages, QuestionedImages
from vlmquant.data.webdataset import read_webdataset
from vlmquant.models.preprocess import read_image
from vlmquant.models.prompts import BUILTIN_PROMPTS, BUILTIN_PROMPTS_NAME
from vlmquant.models.spec import Image
from vlmquant.progress import bar

CALIBRATION_IMAGES = 64
UNLABELLED_SCENES = 512
DEVELOPMENT_SCENES = 200
REAL_TEMPLATES = (
    "a photo of a {}.",
    "a blurry photo of a {}.",
    "a photo of the small {}.",
    "a {}.",
    "a picture of one {}.",
    "a low resolution photo of a {}.",
    "a cropped photo of the {}.",
)


@dataclass(frozen=True, kw_only=True)
class Data:
    """A labelled set, a captioned set, what to calibrate on and what to tune on without labels, neither of them scored.

    `development` is what to search on, given a scratch folder.
    """

    checkpoint: Path
    images: Sequence[Image]
    labels: NDArray[np.int64]
    class_names: Sequence[str]
    templates: Sequence[str]
    captioned: Sequence[Image]
    captions: Sequence[Sequence[str]]
    calibration: CalibrationSet
    unlabelled: Callable[[], CalibrationSet]
    development: Callable[[Path], CaptionedImages]

    def first_labelled(self, count: int | None) -> "Data":
        """Keep the first `count` labelled images; None keeps all."""
        return replace(self, images=self.images[:count], labels=self.labels[:count])

    def first_captioned(self, count: int | None) -> "Data":
        """Keep the first `count` captioned images; None keeps all."""
        return replace(self, captioned=self.captioned[:count], captions=self.captions[:count])

    def limited(self, count: int | None) -> "Data":
        """Keep the first `count` images of either set, to try a benchmark out; None keeps all."""
        return self.first_labelled(count).first_captioned(count)


def street(shared: Path) -> Data:
    labelled, captioned = streetworld.zero_shot_set(2000), streetworld.retrieval_set(1000)
    return Data(
        checkpoint=streetworld.checkpoint(),
        images=labelled.images,
        labels=np.asarray(labelled.labels),
        class_names=labelled.class_names,
        templates=labelled.templates,
        captioned=captioned.images,
        captions=captioned.captions,
        calibration=streetworld.calibration_set(CALIBRATION_IMAGES),
        unlabelled=partial(streetworld.calibration_set, UNLABELLED_SCENES, track=bar),
        development=_street_development,
    )


def _street_development(scratch: Path) -> CaptionedImages:
    drawn = streetworld.retrieval_set(DEVELOPMENT_SCENES, split="dev")
    rows = ["image,caption"]
    for i, (picture, captions) in enumerate(zip(drawn.images, drawn.captions, strict=True)):
        PictureFile.fromarray(picture).save(scratch / f"{i}.png")
        rows += [f'{i}.png,"{caption}"' for caption in captions]
    (scratch / "captions.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return read_caption_table(scratch / "captions.csv", scratch)


def real(shared: Path) -> Data:
    cifar = read_webdataset(shared / "cifar10", track=bar)
    flickr, pictures = shared / "flickr8k", shared / "flickr8k" / "images"
    test = read_caption_table(flickr / "captions.csv", pictures, split=flickr / "test.txt", track=bar)
    dev = read_caption_table(flickr / "captions.csv", pictures, split=flickr / "dev.txt", track=bar)
    calibration = CalibrationSet(
        images=tuple(read_image(pictures / name) for name in dev.ids[:CALIBRATION_IMAGES]),
        texts=tuple(captions[0] for captions in dev.captions),
        images_from=f"{CALIBRATION_IMAGES} images of Flickr8k dev",
        texts_from="100 captions of Flickr8k dev",
    )
    return Data(
        checkpoint=shared / "checkpoints" / "clip-real-tiny",
        images=cifar.images,
        labels=cifar.labels,
        class_names=cifar.class_names,
        templates=REAL_TEMPLATES,
        captioned=test.images,
        captions=test.captions,
        calibration=calibration,
        unlabelled=lambda: _photographs(shared, dev),
        development=lambda scratch: dev,
    )


def _photographs(shared: Path, dev: CaptionedImages) -> CalibrationSet:
    """Return photographs of which none is scored, and nothing is known."""
    coco = sorted((shared / "coco-mini").glob("*2017/*.jpg"))
    images = LazyImages((*dev.images.ids, *map(str, coco)), (*dev.images.refs, *map(FileImage, coco)))
    return CalibrationSet(
        images=images,
        texts=tuple(chain.from_iterable(dev.captions)),
        images_from=f"{len(dev.images)} pictures of Flickr8k dev and {len(coco)} of COCO 2017",
        texts_from="the captions of Flickr8k dev",
    )


DATA: dict[str, Callable[[Path], Data]] = {"street": street, "real": real}


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add what `DATA[arguments.data](arguments.shared).limited(arguments.limit)` needs."""
    parser.add_argument("data", choices=list(DATA))
    add_shared(parser)
    parser.add_argument("--limit", type=int, help="only the first so many images of either set, for a trial")


def add_shared(parser: argparse.ArgumentParser) -> None:
    """Add the folder of real data beside the project."""
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))


def street_questions(folder: Path, pictures: int) -> QuestionedImages:
    """Write the questions about the first `pictures` held-out scenes into `folder` and read them as VQA v2."""
    questions, annotations, images = write_questions(folder, pictures, track=bar)
    return read_vqa(questions, annotations, images, image_name=IMAGE_NAME)


def noise(count: int) -> CalibrationSet:
    """Return pictures of noise for random weights: no value in either changes speed or size."""
    generator = np.random.default_rng(0)
    images = tuple(generator.integers(0, 256, (224, 224, 3), dtype=np.uint8) for _ in range(count))
    return CalibrationSet(
        images=images, texts=BUILTIN_PROMPTS, images_from=f"{count} images of noise", texts_from=BUILTIN_PROMPTS_NAME
    )
