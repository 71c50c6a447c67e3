"""What exactly was measured, in one line that is part of every result; unlike results are never compared."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vlmquant.errors import NotComparableError
from vlmquant.files import digest

PROTOCOL_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Everything that must be equal before two results may be compared.

    `dataset` is a digest over the pictures and their labels or captions, `settings` the task's choices as
    (name, value) pairs, such as templates and the tie rule. What may differ, because it is what one compares, is not
    in here: the weights, their precision and the engine.
    """

    task: str
    dataset: str
    samples: int
    settings: tuple[tuple[str, str], ...]
    version: int = PROTOCOL_VERSION

    def __str__(self) -> str:
        """Return the signature, such as `zero-shot|data:3f2a...|n:10000|templates:...|tie:expectation|v1`."""
        settings = "".join(f"|{name}:{value}" for name, value in self.settings)
        return f"{self.task}|data:{self.dataset[:12]}|n:{self.samples}{settings}|v{self.version}"

    def with_setting(self, name: str, value: str) -> "Protocol":
        """Return the protocol with one setting more."""
        return replace(self, settings=(*self.settings, (name, value)))

    def require_equal(self, other: "Protocol") -> None:
        """Raise NotComparableError naming every field in which `other` differs."""
        mine, theirs = self._fields(), other._fields()
        unlike = [
            f"{name} ({mine.get(name, 'absent')} / {theirs.get(name, 'absent')})"
            for name in dict.fromkeys([*mine, *theirs])
            if mine.get(name) != theirs.get(name)
        ]
        if unlike:
            raise NotComparableError(
                f"these results cannot be compared: they differ in {', '.join(unlike)}; "
                "evaluate both models again with the same data and settings"
            )

    def _fields(self) -> dict[str, object]:
        fixed = {"task": self.task, "dataset": self.dataset, "samples": self.samples, "version": self.version}
        return {**fixed, **dict(self.settings)}


def list_digest(items: Sequence[str]) -> str:
    """Return "number:digest" of a list of texts, for a setting of the protocol."""
    return f"{len(items)}:{digest(list(items))[:12]}"
