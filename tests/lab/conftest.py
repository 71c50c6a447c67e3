"""What the tests of reproductions share."""

from typing import Any

import pytest

from vlmquant.lab.reproduce import turns as in_turn


@pytest.fixture
def turns_taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The contenders in the order of their turns, the second of which is killed."""
    real, taken = in_turn.in_its_own_process, list[str]()

    def dies_in_the_second(worker: str, asked: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
        taken.append(asked["contender"])
        if len(taken) == 2:
            raise KeyboardInterrupt
        return real(worker, asked, timeout_seconds)

    monkeypatch.setattr(in_turn, "in_its_own_process", dies_in_the_second)
    return taken
