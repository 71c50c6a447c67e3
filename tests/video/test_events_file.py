from pathlib import Path

import pytest

from vlmquant.errors import DataError
from vlmquant.video.events import EventRule
from vlmquant.video.events_file import read_events

COMMON = EventRule(on=0.7, off=0.5, min_duration_seconds=1.0)


def test_each_event_has_its_own_prompts_negatives_and_rule(tmp_path: Path) -> None:
    path = tmp_path / "events.toml"
    path.write_text(
        """
        [[event]]
        name = "a person falls"
        prompts = ["a person falling", "a person lying on the ground"]
        negatives = ["a person sitting"]
        on = 0.4
        min_duration_seconds = 2

        [[event]]
        name = "a dog"
        """
    )
    falls, dog = read_events(path, COMMON, ["a cat"])
    assert falls.prompts == ("a person falling", "a person lying on the ground")
    assert falls.negatives == ("a person sitting", "a cat")
    assert falls.rule == EventRule(on=0.4, off=0.4, min_duration_seconds=2.0)
    assert (dog.prompts, dog.negatives, dog.rule) == (("a dog",), ("a cat",), COMMON)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no events"),
        ("event = 3", "holds no events"),
        ("event = []", "holds no events"),
        ("[[event]", "is not TOML"),
        ("[[events]]\nname = 'a dog'", "unknown key in .*'events'; known: event"),
        ("[[event]]\nname = 'a dog'\nfps = 3", "unknown key of event 1 of .*'fps'; known: .*prompts"),
        ("[[event]]", "has the name None"),
        ("[[event]]\nname = 7", "has the name 7"),
        ("[[event]]\nname = 'a dog'\nprompts = 'a dog'", "expected a list of texts"),
        ("[[event]]\nname = 'a dog'\nprompts = []", "no prompt"),
        ("[[event]]\nname = 'a dog'\nnegatives = [1]", "expected a list of texts"),
        ("[[event]]\nname = 'a dog'\non = '0.5'", "on of event 1 of .* expected a number"),
        ("[[event]]\nname = 'a dog'\non = true", "expected a number"),
        ("[[event]]\nname = 'a dog'\non = 1.5", "'a dog'.: thresholds must"),
        ("[[event]]\nname = 'a dog'\non = 0.3\noff = 0.5", "thresholds must"),
        ("[[event]]\nname = 'a dog'\nmin_duration_seconds = nan", "must be a finite number"),
        ("[[event]]\nname = '...'", "no words"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "events.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        read_events(path, COMMON)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    (tmp_path / "large.toml").write_bytes(b"#" * (2**20 + 1))
    for name, said in (("none.toml", "cannot be read"), ("bytes.toml", "not TOML"), ("large.toml", "larger than")):
        with pytest.raises(DataError, match=said):
            read_events(tmp_path / name, COMMON)
