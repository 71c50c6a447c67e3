"""webdataset tar shards in the layout that CLIP_benchmark reads and writes."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vlmquant.data.folders import read_lines
from vlmquant.data.images import IMAGE_SUFFIXES, ArchiveImage
from vlmquant.data.sets import MAX_PROBLEM_SHARE, CaptionedImages, Entry, LabelledImages, Problem, screen
from vlmquant.errors import DataError
from vlmquant.progress import Track, silent


@dataclass
class _Sample:
    """The members of one sample: files that share a name up to the first dot."""

    key: str
    image: ArchiveImage | None = None
    members: dict[str, bytes] = field(default_factory=dict)


def read_webdataset(
    folder: Path, *, split: str = "test", max_problem_share: float = MAX_PROBLEM_SHARE, track: Track = silent
) -> LabelledImages:
    """Read image + `.cls` samples (an integer as text) of `folder/split/*.tar`, names from `folder/classnames.txt`.

    Where `nshards.txt` is present, there must be exactly that many shards. A sample without a picture or a label, or
    with a label beyond the class names, is reported by name. Raises DataError when the layout is different.
    """
    names = read_lines(folder / "classnames.txt")
    problems: list[Problem] = []
    records: list[Entry[int]] = []
    for sample in _samples(folder, split):
        label = sample.members.get("cls", b"").decode("utf-8", "replace").strip()
        if sample.image is None:
            problems.append(Problem(sample.key, "missing image"))
        elif not label.isdecimal() or int(label) >= len(names):
            problems.append(Problem(sample.key, "unknown label", repr(label)))
        else:
            records.append(Entry(sample.key, sample.image, int(label)))
    screened = screen(f"{folder}/{split}", records, problems=problems, max_problem_share=max_problem_share, track=track)
    return LabelledImages(
        name=folder.name,
        images=screened.images,
        digest=screened.digest(screened.payloads, names),
        problems=screened.problems,
        labels=np.array(screened.payloads, dtype=np.int64),
        class_names=tuple(names),
    )


def read_webdataset_captions(
    folder: Path, *, split: str = "test", max_problem_share: float = MAX_PROBLEM_SHARE, track: Track = silent
) -> CaptionedImages:
    """Read image + `.txt` samples (one caption a line) of `folder/split/*.tar`."""
    problems: list[Problem] = []
    records: list[Entry[tuple[str, ...]]] = []
    for sample in _samples(folder, split):
        lines = sample.members.get("txt", b"").decode("utf-8", "replace").splitlines()
        captions = tuple(line.strip() for line in lines if line.strip())
        if sample.image is None:
            problems.append(Problem(sample.key, "missing image"))
        elif not captions:
            problems.append(Problem(sample.key, "no caption"))
        else:
            records.append(Entry(sample.key, sample.image, captions))
    screened = screen(f"{folder}/{split}", records, problems=problems, max_problem_share=max_problem_share, track=track)
    return CaptionedImages(
        name=folder.name,
        images=screened.images,
        digest=screened.digest(screened.payloads),
        problems=screened.problems,
        captions=screened.payloads,
    )


def _samples(folder: Path, split: str) -> Iterator[_Sample]:
    for shard in _shards(folder / split):
        sample: _Sample | None = None
        try:
            with tarfile.open(shard, "r:") as archive:
                for member in archive:
                    if not member.isfile():
                        continue
                    key, _, suffix = member.name.partition(".")
                    if sample is None or sample.key != key:
                        if sample is not None:
                            yield sample
                        sample = _Sample(key)
                    if f".{suffix.lower()}" in IMAGE_SUFFIXES:
                        sample.image = ArchiveImage(shard, member.offset_data, member.size)
                    elif (content := archive.extractfile(member)) is not None:
                        sample.members[suffix.lower()] = content.read()
        except tarfile.TarError as error:
            raise DataError(f"{shard} is not a whole uncompressed tar file: {error}; copy or build it again") from error
        if sample is not None:
            yield sample


def _shards(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder of tar shards; expected 0.tar, 1.tar, ...")
    shards = sorted(folder.glob("*.tar"), key=lambda path: (len(path.stem), path.stem))
    listed = folder / "nshards.txt"
    if listed.is_file() and read_lines(listed) != [str(len(shards))]:
        raise DataError(f"{folder} holds {len(shards)} tar shards but nshards.txt says {' '.join(read_lines(listed))}")
    if not shards:
        raise DataError(f"{folder} holds no .tar shard")
    return shards
