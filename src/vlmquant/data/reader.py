"""Which reader a path is for, told by what lies in it; a wrong guess is an error and never a score."""

from pathlib import Path

from vlmquant.data.captions import read_caption_table
from vlmquant.data.cifar import ARCHIVES, cifar_place, read_cifar
from vlmquant.data.coco import read_coco_captions, read_karpathy, read_vqa
from vlmquant.data.folders import image_files, read_flat_folder, read_image_folder
from vlmquant.data.sets import MAX_PROBLEM_SHARE, ImageSet
from vlmquant.data.webdataset import read_webdataset, read_webdataset_captions
from vlmquant.errors import DataError
from vlmquant.files import why_no_folder
from vlmquant.progress import Track, silent

TABLES = ("captions.csv", "captions.tsv", "results.csv", "captions.txt", "results_20130124.token")
IMAGE_FOLDERS = (
    "images", "Images", "flickr30k_images", "flickr30k-images", "val2017", "val2014", "train2017", "train2014"
)  # fmt: skip


def read(
    path: Path,
    *,
    split: str | None = None,
    usual_split: str = "test",
    max_problem_share: float = MAX_PROBLEM_SHARE,
    track: Track = silent,
) -> ImageSet:
    """Read the data set at `path`: labelled, captioned, or only pictures, as its layout tells.

    Of data with several splits `split` is read, or `usual_split` where it is None.

    Known layouts: webdataset shards (`classnames.txt` or captions, and `<split>/*.tar`), a caption table with its
    folder of images (and `<split>.txt`, a list of image names, where there is one),
    VQA v2's `*questions.json` and `*annotations.json` with their folder, `annotations/captions_<split>*.json` with its
    folder, Karpathy's `dataset_*.json`, CIFAR as its authors give it out (the binary or Python version, unpacked or as
    .tar.gz), one sub-folder per class, and a flat folder.
    Raises DataError listing these when none fits, and where `split` is named and there is none of that name.
    """
    if not path.is_dir() and not (path.name in ARCHIVES and path.is_file()):
        raise DataError(f"{path} {why_no_folder(path)}; give the folder of a data set ({_KNOWN})")
    one = split or usual_split
    if next((path / one).glob("*.tar"), None):
        if (path / "classnames.txt").is_file():
            return read_webdataset(path, split=one, max_problem_share=max_problem_share, track=track)
        return read_webdataset_captions(path, split=one, max_problem_share=max_problem_share, track=track)
    for table in (path / name for name in TABLES):
        if table.is_file():
            listed = path / f"{one}.txt"
            if split and not listed.is_file():
                raise _no_split(path, split, f"it has no {listed.name} that lists its pictures")
            return read_caption_table(
                table,
                image_folder(path),
                split=listed if listed.is_file() else None,
                max_problem_share=max_problem_share,
                track=track,
            )
    for annotations in sorted((path / "annotations").glob(f"captions_{one}*.json")):
        images = path / annotations.stem.removeprefix("captions_")
        return read_coco_captions(annotations, images, max_problem_share=max_problem_share, track=track)
    for annotations in sorted(path.glob("dataset_*.json")):
        images = image_folder(path) if not (path / "val2014").is_dir() else path
        return read_karpathy(annotations, images, split=one, max_problem_share=max_problem_share, track=track)
    if place := cifar_place(path):
        if split not in (None, "test"):
            raise _no_split(path, split, "of CIFAR the split test is read")
        return read_cifar(place, track=track)
    if split:
        raise _no_split(path, split, "these data have no splits of that name")
    if pair := vqa_files(path):
        questions, annotations = pair
        images, image_name = vqa_images(path)
        return read_vqa(
            questions, annotations, images, image_name=image_name, max_problem_share=max_problem_share, track=track
        )
    return _read_folder(path, max_problem_share, track)


def _no_split(path: Path, split: str, reason: str) -> DataError:
    return DataError(f"{path} has no split {split!r}: {reason}; leave the split out, or name one that is there")


def vqa_files(path: Path) -> tuple[Path, Path] | None:
    """Return the two files of VQA v2's form in `path`, `*questions.json` and `*annotations.json`, or None.

    Raises DataError when there are several of either, as of two splits.
    """
    questions, annotations = sorted(path.glob("*questions.json")), sorted(path.glob("*annotations.json"))
    if not questions or not annotations:
        return None
    if len(questions) > 1 or len(annotations) > 1:
        names = ", ".join(file.name for file in (*questions, *annotations))
        raise DataError(f"{path} holds the questions of several splits ({names}); put one pair of files in a folder")
    return questions[0], annotations[0]


def vqa_images(path: Path) -> tuple[Path, str]:
    """Return the folder of the pictures that the questions are about, and their name with {} for the 12-digit id.

    Raises DataError when the first picture's name does not end in such an id.
    """
    folder = image_folder(path)
    first = next(iter(image_files(folder)), None)
    stem = "" if first is None else first.stem
    if first is None or not stem[-12:].isdigit() or len(stem) < 12:
        raise DataError(f"{folder} has no pictures named as VQA v2's are, such as COCO_val2014_000000000042.jpg")
    return folder, f"{stem[:-12]}{{}}{first.suffix}"


def image_folder(path: Path) -> Path:
    """Return the sub-folder of `path` that holds the pictures, or `path` itself where none has a usual name."""
    return next((path / name for name in IMAGE_FOLDERS if (path / name).is_dir()), path)


def _read_folder(path: Path, max_problem_share: float, track: Track) -> ImageSet:
    flat = image_files(path)
    below = [entry for entry in path.iterdir() if entry.is_dir() and image_files(entry)]
    if flat and not below:
        return read_flat_folder(path, max_problem_share=max_problem_share, track=track)
    if not below:
        raise DataError(f"{path} is not a data set that can be read; expected {_KNOWN}")
    if flat:
        raise DataError(
            f"{path} has images beside class folders ({flat[0].name}, {below[0].name}/); move one of them away"
        )
    return read_image_folder(path, max_problem_share=max_problem_share, track=track)


_KNOWN = (
    "webdataset shards, captions.csv with images, VQA v2's *questions.json and *annotations.json, "
    "COCO's annotations/captions_*.json, Karpathy's dataset_*.json, "
    "CIFAR's binary or Python version (or its .tar.gz), a folder per class, or a flat folder of images"
)
