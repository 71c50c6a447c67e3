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
