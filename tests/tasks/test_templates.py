"""Template sets have the sizes that they are known by and agree with the reference."""

import json
from pathlib import Path

import pytest

from vlmquant.errors import DataError
from vlmquant.tasks.templates import TEMPLATES, get_templates


def test_sizes_and_places() -> None:
    assert {name: len(texts) for name, texts in TEMPLATES.items()} == {
        "none": 1,
        "one": 1,
        "openai-7": 7,
        "cifar-18": 18,
        "openai-80": 80,
    }
    assert all(text.count("{}") == 1 for texts in TEMPLATES.values() for text in texts)
    assert all(len(set(texts)) == len(texts) for texts in TEMPLATES.values())
    assert set(get_templates("openai-7")) <= set(get_templates("openai-80"))
    with pytest.raises(DataError, match="unknown template set 'all'; known: cifar-18"):
        get_templates("all")


def test_equal_to_the_reference(shared_data: Path) -> None:
    path = shared_data / "reference" / "en_zeroshot_classification_templates.json"
    reference = json.loads(path.read_text(encoding="utf-8"))
    for name, key in (("cifar-18", "cifar10"), ("openai-80", "imagenet1k")):
        assert tuple(text.replace("{c}", "{}") for text in reference[key]) == TEMPLATES[name]
