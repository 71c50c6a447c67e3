"""Reading JSON that a stranger wrote: every value is of the type expected, or a BundleError says where it is not."""

import math
from collections.abc import Mapping
from typing import Any

from vlmquant.errors import BundleError

LONGEST_TEXT = 10_000


class Fields:
    """The fields of one JSON object called `where`; each is asked for by name, and `done` refuses what was not.

    Raises BundleError for a field that is missing or of another type.
    """

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, dict):
            raise BundleError(f"{where} is {_shown(values)}, expected an object; build the bundle again")
        self._values, self._where, self._asked = values, where, set[str]()

    def text(self, name: str) -> str:
        """Return a text of printable characters."""
        value = self._value(name)
        if not isinstance(value, str) or len(value) > LONGEST_TEXT or not printable(value):
            raise self._wrong(name, f"a text of at most {LONGEST_TEXT:,} printable characters")
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`."""
        value = self._value(name)
        if type(value) is not int or not low <= value <= high:
            raise self._wrong(name, f"a whole number from {low} to {high}")
        return value

    def number(self, name: str) -> float:
        """Return a number that is finite."""
        value = self._value(name)
        if type(value) not in (int, float) or not math.isfinite(value):
            raise self._wrong(name, "a finite number")
        return float(value)

    def flag(self, name: str) -> bool:
        """Return true or false."""
        value = self._value(name)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts."""
        value = self._value(name)
        if not isinstance(value, list) or not all(isinstance(item, str) and printable(item) for item in value):
            raise self._wrong(name, "a list of texts")
        return tuple(value)

    def mapping(self, name: str) -> Mapping[str, Any]:
        """Return an object of whatever values; the names are printable."""
        value = self._value(name)
        if not isinstance(value, dict) or not all(printable(key) for key in value):
            raise self._wrong(name, "an object")
        return value

    def fields(self, name: str) -> "Fields":
        """Return an object to be read field by field."""
        return Fields(self.mapping(name), f"{self._where}.{name}")

    def all_fields(self, name: str) -> dict[str, "Fields"]:
        """Return an object of objects, each to be read field by field."""
        inside = self.fields(name)
        return {key: inside.fields(key) for key in self.mapping(name)}

    def numbers(self, name: str) -> dict[str, float]:
        """Return an object of numbers; what was measured may be no number at all."""
        value = self.mapping(name)
        if not all(type(item) in (int, float) for item in value.values()):
            raise self._wrong(name, "an object of numbers")
        return {key: float(item) for key, item in value.items()}

    def all_numbers(self, name: str) -> dict[str, dict[str, float]]:
        """Return an object of objects of numbers."""
        inside = self.fields(name)
        return {key: inside.numbers(key) for key in self.mapping(name)}

    def is_null(self, name: str) -> bool:
        """Whether the field is there and null."""
        return self._value(name) is None

    def done(self) -> None:
        """Raise BundleError where there are fields that nobody asked for."""
        if unexpected := set(self._values) - self._asked:
            raise BundleError(f"{self._where} has unknown fields {sorted(unexpected)}; expected {sorted(self._asked)}")

    def _value(self, name: str) -> Any:
        self._asked.add(name)
        if name not in self._values:
            raise BundleError(f"{self._where} has no {name!r}; it is damaged, build the bundle again")
        return self._values[name]

    def _wrong(self, name: str, expected: str) -> BundleError:
        return BundleError(f"{self._where}.{name} is {_shown(self._values[name])}, expected {expected}")


def printable(text: str) -> bool:
    """Whether a terminal can show `text` without being steered by it."""
    return not any(code < 32 or 127 <= code < 160 or 0xD800 <= code < 0xE000 for code in map(ord, text))


def _shown(value: Any) -> str:
    text = ascii(value) if isinstance(value, str | int | float | bool | None) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
