"""The data sets of the sources as they are published, so that a page can say where the user's are others."""

from dataclasses import dataclass

from vlmquant.errors import DataError, unknown


@dataclass(frozen=True)
class PublishedSet:
    """A test set: how many samples and classes (None: it has none) it has, and where people get it."""

    name: str
    samples: int
    classes: int | None
    where: str


PUBLISHED: dict[str, PublishedSet] = {
    "cifar-100": PublishedSet(
        "CIFAR-100",
        samples=10_000,
        classes=100,
        where="https://www.cs.toronto.edu/~kriz/cifar.html (cifar-100-python.tar.gz or cifar-100-binary.tar.gz), or "
        "webdataset shards from https://huggingface.co/clip-benchmark/wds_vtab-cifar100",
    ),
    "imagenetv2": PublishedSet(
        "ImageNetV2",
        samples=10_000,
        classes=1000,
        where="https://huggingface.co/datasets/vaishaal/ImageNetV2 (imagenetv2-matched-frequency.tar.gz), with the "
        "names of the classes as classnames.txt, one a line",
    ),
    "coco-val2017": PublishedSet(
        "COCO val2017",
        samples=5_000,
        classes=None,
        where="https://cocodataset.org/#download (val2017.zip, annotations_trainval2017.zip)",
    ),
    "coco-karpathy-test": PublishedSet(
        "COCO Karpathy test",
        samples=5_000,
        classes=None,
        where="https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip (dataset_coco.json), with "
        "the pictures of https://cocodataset.org/#download (val2014.zip)",
    ),
    "flickr30k-test": PublishedSet(
        "Flickr30k test",
        samples=1_000,
        classes=None,
        where="https://shannon.cs.illinois.edu/DenotationGraph/ (pictures, on request), with Karpathy's "
        "dataset_flickr30k.json",
    ),
    "flickr8k-test": PublishedSet(
        "Flickr8k test",
        samples=1_000,
        classes=None,
        where="https://www.kaggle.com/datasets/adityajn105/flickr8k, with Karpathy's dataset_flickr8k.json",
    ),
    "vqa-v2-val": PublishedSet(
        "VQA v2 validation (214,354 questions)",
        samples=40_504,
        classes=None,
        where="https://visualqa.org/download.html (validation questions and annotations), with the pictures of "
        "https://cocodataset.org/#download (val2014.zip)",
    ),
}


def count_remark(name: str, samples: int) -> str | None:
    """Say so where `samples` are not as many as the published set called `name` has; None where they are."""
    if name not in PUBLISHED:
        raise unknown(DataError, "published set", name, PUBLISHED)
    published = PUBLISHED[name]
    if samples == published.samples:
        return None
    return (
        f"{published.name} has {published.samples:,} test samples, these are {samples:,}; get it from {published.where}"
    )
