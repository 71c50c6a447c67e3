"""Events in a TOML file, each with its own prompts, negatives and rule.

    [[event]]
    name = "a person falls"
    prompts = ["a person falling", "a person lying on the ground"]   # the name where left out
    negatives = ["a person sitting"]
    on = 0.7
    off = 0.5
    min_duration_seconds = 1.0

What an event does not say about its rule it takes from the common one.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from vlmquant.errors import DataError, unknown
from vlmquant.video.events import EventRule
from vlmquant.video.score import EventQuery

RULE_KEYS = tuple(field.name for field in fields(EventRule))
KEYS = ("name", "prompts", "negatives", *RULE_KEYS)
_LARGEST_BYTES = 2**20


def read_events(path: str | Path, rule: EventRule, negatives: Sequence[str] = ()) -> list[EventQuery]:
    """Return the events of a file; `rule` is the common rule, and `negatives` are added to every event's own.

    Raises DataError, which names the file and the event, for anything that is not as the top of this module says.
    """
    path = Path(path)
    entries = _parse(path).get("event")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries) or not entries:
        raise DataError(f"{path} holds no events; expected tables that begin with [[event]]")
    return [_query(path, number, entry, rule, negatives) for number, entry in enumerate(entries, start=1)]


def _parse(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise DataError(f"{path} is larger than {_LARGEST_BYTES:,} bytes; expected a list of events in TOML")
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); expected a TOML file of events") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not TOML in UTF-8: {error}") from error
    for key in content:
        if key != "event":
            raise unknown(DataError, f"key in {path}", key, ("event",))
    return content


def _query(path: Path, number: int, entry: Mapping[str, Any], rule: EventRule, negatives: Sequence[str]) -> EventQuery:
    where = f"event {number} of {path}"
    for key in entry:
        if key not in KEYS:
            raise unknown(DataError, f"key of {where}", key, KEYS)
    name = entry.get("name")
    if not isinstance(name, str):
        raise DataError(f"{where} has the name {name!r}; expected a text")
    try:
        own = rule.changed(**{key: _number(entry[key], key, where) for key in RULE_KEYS if key in entry})
    except ValueError as error:
        raise DataError(f"{where} ({name!r}): {error}") from error
    prompts = _texts(entry.get("prompts", [name]), "prompts", where)
    return EventQuery(name, prompts, (*_texts(entry.get("negatives", []), "negatives", where), *negatives), own)


def _texts(value: object, key: str, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise DataError(f"{key} of {where} is {value!r}; expected a list of texts")
    return tuple(value)


def _number(value: object, key: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{key} of {where} is {value!r}; expected a number")
    return float(value)
