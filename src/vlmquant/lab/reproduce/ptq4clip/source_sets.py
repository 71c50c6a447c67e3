"""The data of `ptq4clip` in a user's folder, recognised by their layout, and thinned to a number of pictures."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vlmquant.data.cifar import cifar_place
from vlmquant.data.coco import read_coco_captions, read_karpathy, read_vqa
from vlmquant.data.folders import class_folders, image_files
from vlmquant.data.reader import TABLES, image_folder, read, vqa_files, vqa_images
from vlmquant.data.sets import CaptionedImages, ImageSet, LabelledImages, QuestionedImages, summarize
from vlmquant.errors import DataError
from vlmquant.files import why_no_folder
from vlmquant.lab.reproduce.published import PUBLISHED, count_remark
from vlmquant.progress import Track

KARPATHY = {
    "dataset_coco.json": "coco-karpathy-test",
    "dataset_flickr30k.json": "flickr30k-test",
    "dataset_flickr8k.json": "flickr8k-test",
}
FEWEST_CLASSES = 2
SYNSET = re.compile(r"n\d{8}")
KNOWN = (
    "ImageNetV2 or other folders with one sub-folder per class, CIFAR, COCO's annotations/captions_val2017.json with "
    "val2017/, Karpathy's dataset_*.json with images/, captions.csv with images/, or VQA v2's *questions.json and "
    "*annotations.json with val2014/"
)


@dataclass(frozen=True)
class Recognised:
    """A data set that lies in `folder`; `name` is a key of `PUBLISHED`, or what its folder is called."""

    name: str
    folder: Path
    reading: Callable[[Track], ImageSet]


@dataclass(frozen=True, kw_only=True)
class SourceSets:
    """What there is to score, by name, the source's own first; `remarks` say what was left out and what differs."""

    labelled: dict[str, LabelledImages]
    captioned: dict[str, CaptionedImages]
    questioned: dict[str, QuestionedImages]
    remarks: tuple[str, ...] = ()

    @property
    def all(self) -> dict[str, ImageSet]:
        """Every set by name."""
        return {**self.labelled, **self.captioned, **self.questioned}


def source_sets(folder: Path, track: Track) -> SourceSets:
    """Read every data set that `folder` is or that its sub-folders are.

    A set that cannot be read is left out with a remark. Raises DataError where none is left.
    """
    found, remarks = {}, []
    for one in recognised(folder):
        if one.name in found:
            remarks.append(f"{one.folder} was left out: {title(one.name)} was there already.")
            continue
        try:
            found[one.name] = one.reading(track)
        except DataError as error:
            remarks.append(f"{one.folder} was left out: {error}.")
    if not found:
        raise DataError(f"{folder} holds no data that ptq4clip can read; give {KNOWN}. {' '.join(remarks)}".strip())
    for name, data in found.items():
        if data.problems:
            remarks.append(f"Left out {len(data.problems)} entries of {title(name)}: {summarize(data.problems)}.")
        if name in PUBLISHED and (remark := count_remark(name, len(data))):
            remarks.append(f"{remark}.")
    return SourceSets(
        labelled=_of(LabelledImages, found),
        captioned=_of(CaptionedImages, found),
        questioned=_of(QuestionedImages, found),
        remarks=tuple(remarks),
    )


def title(name: str) -> str:
    """Return what to call a set in tables."""
    return PUBLISHED[name].name if name in PUBLISHED else name


def recognised(folder: Path) -> list[Recognised]:
    """Return the data sets that `folder` is or that its direct sub-folders are, the source's own first."""
    if not folder.is_dir():
        raise DataError(f"{folder} {why_no_folder(folder)}; give a folder with {KNOWN}")
    below = [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
    annotated = [one for place in (folder, *below) for one in _annotated(place)]
    taken = {one.folder for one in annotated}
    classes = [_classes(place) for place in below if place not in taken and folder not in taken and _has_classes(place)]
    if not annotated and _has_classes(folder):
        classes.insert(0, _classes(folder))
    order = list(PUBLISHED)
    return sorted([*classes, *annotated], key=lambda one: order.index(one.name) if one.name in order else len(order))


Kind = TypeVar("Kind", bound=ImageSet)


def _of(kind: type[Kind], found: dict[str, ImageSet]) -> dict[str, Kind]:
    return {name: data for name, data in found.items() if isinstance(data, kind)}


def _annotated(folder: Path) -> list[Recognised]:
    """Return what files of annotations in `folder` tell of; there may be several, as in a folder of all of COCO."""
    found = []
    captions = folder / "annotations" / "captions_val2017.json"
    if captions.is_file():
        val2017 = folder / "val2017"
        found.append(
            Recognised("coco-val2017", folder, lambda track: read_coco_captions(captions, val2017, track=track))
        )
    for listed in sorted(folder.glob("dataset_*.json")):
        found.append(Recognised(KARPATHY.get(listed.name, listed.stem), folder, _karpathy(listed)))
    if any((folder / table).is_file() for table in TABLES):
        found.append(Recognised(_table_name(folder), folder, lambda track: read(folder, track=track)))
    if any(folder.glob("*questions.json")) and any(folder.glob("*annotations.json")):
        found.append(Recognised("vqa-v2-val", folder, lambda track: _vqa(folder, track)))
    return found


def _karpathy(listed: Path) -> Callable[[Track], ImageSet]:
    folder = listed.parent
    of_coco = listed.name == "dataset_coco.json" and (folder / "val2014").is_dir()
    return lambda track: read_karpathy(listed, folder if of_coco else image_folder(folder), track=track)


def _table_name(folder: Path) -> str:
    name = folder.resolve().name.lower()
    return next((key for key in ("flickr30k-test", "flickr8k-test") if key.removesuffix("-test") in name), name)


def _vqa(folder: Path, track: Track) -> QuestionedImages:
    files = vqa_files(folder)
    assert files is not None
    images, image_name = vqa_images(folder / "val2014" if (folder / "val2014").is_dir() else folder)
    return read_vqa(*files, images, image_name=image_name, track=track)


def _has_classes(folder: Path) -> bool:
    """Tell whether the pictures of `folder` have labels: in folders by class, shards, or CIFAR's own files."""
    if cifar_place(folder) or any((folder / "test").glob("*.tar")):
        return True
    below = [entry for entry in folder.iterdir() if entry.is_dir()]
    return not image_files(folder) and sum(any(image_files(entry)) for entry in below) >= FEWEST_CLASSES


def _classes(folder: Path) -> Recognised:
    of_imagenet = "imagenetv2" in folder.resolve().name.lower() or "imagenetv2" in folder.name.lower()
    name = "imagenetv2" if of_imagenet else folder.name
    return Recognised(name, folder, lambda track: _labelled(folder, track))


def _labelled(folder: Path, track: Track) -> ImageSet:
    shards_or_batches = any((folder / "test").glob("*.tar")) or not any(entry.is_dir() for entry in folder.iterdir())
    if not shards_or_batches and not (folder / "classnames.txt").is_file():
        named = class_folders(folder)
        if all(SYNSET.fullmatch(entry.name) for entry in named):
            raise DataError(
                f"the class folders of {folder} are WordNet numbers, which name nothing; add classnames.txt with the "
                f"names of the {len(named)} classes, one a line, in the folders' sorted order"
            )
    return read(folder, track=track)
