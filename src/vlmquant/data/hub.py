"""A data set of the Hugging Face hub by name; the only reader that needs a network and the `datasets` library."""

from importlib import import_module
from typing import Any

import numpy as np

from vlmquant.data.images import EncodedImage
from vlmquant.data.sets import MAX_PROBLEM_SHARE, Entry, LabelledImages, Problem, screen
from vlmquant.errors import DataError
from vlmquant.progress import Track, silent


def read_hub(
    name: str, *, split: str = "test", max_problem_share: float = MAX_PROBLEM_SHARE, track: Track = silent
) -> LabelledImages:
    """Download `name` and read its `split`: one Image column and one ClassLabel column, found by their types.

    Raises DataError without the `datasets` library, without a network, or where the columns are not these two.
    """
    try:
        datasets = import_module("datasets")
    except ImportError as error:
        raise DataError(
            f"reading {name!r} from the hub needs `pip install datasets`, or give a local folder"
        ) from error
    try:
        table = datasets.load_dataset(name, split=split)
    except Exception as error:  # the library raises many kinds, from requests' to its own
        raise DataError(
            f"the hub data set {name!r} ({split}) cannot be loaded: {error}; give a local folder"
        ) from error
    image_column = _only(name, table.features, datasets.Image)
    label_column = _only(name, table.features, datasets.ClassLabel)
    encoded = table.cast_column(image_column, datasets.Image(decode=False))
    problems: list[Problem] = []
    records: list[Entry[int]] = []
    for index, row in enumerate(encoded):
        data, label = row[image_column]["bytes"], row[label_column]
        if not data:
            problems.append(Problem(str(index), "missing image"))
        elif label is None or label < 0:
            problems.append(Problem(str(index), "unknown label"))
        else:
            records.append(Entry(str(index), EncodedImage(data), int(label)))
    names = list(table.features[label_column].names)
    screened = screen(name, records, problems=problems, max_problem_share=max_problem_share, track=track)
    return LabelledImages(
        name=name,
        images=screened.images,
        digest=screened.digest(screened.payloads, names),
        problems=screened.problems,
        labels=np.array(screened.payloads, dtype=np.int64),
        class_names=tuple(names),
    )


def _only(name: str, features: Any, kind: type) -> str:
    found = [column for column, feature in features.items() if isinstance(feature, kind)]
    if len(found) != 1:
        raise DataError(f"{name!r} has {len(found)} columns of type {kind.__name__} ({', '.join(found)}); expected one")
    return str(found[0])
