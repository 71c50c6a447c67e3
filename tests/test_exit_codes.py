"""One table of exit codes: the verdicts differ from a user's error and from a crash, and the page lists them all."""

import re
from pathlib import Path

from vlmquant.cli.evaluate import EXIT_CODES
from vlmquant.errors import BudgetError, ExitCode, NotComparableError, VlmQuantError
from vlmquant.tasks.compare import Verdict

PAGE = Path(__file__).parents[1] / "docs" / "exit-codes.md"


def test_the_page_lists_every_code() -> None:
    rows = re.findall(r"^\| (\d+) \| (\w+) \|", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {name: int(code) for code, name in rows} == {code.name: code.value for code in ExitCode}


def test_every_verdict_has_a_code_and_none_is_a_crash_or_a_mistake() -> None:
    assert set(EXIT_CODES) == {None, *Verdict}
    assert not {ExitCode.CRASH, ExitCode.USER_ERROR} & set(EXIT_CODES.values())
    assert len({EXIT_CODES[verdict] for verdict in Verdict}) == len(Verdict)


def test_errors_carry_their_code() -> None:
    assert (VlmQuantError("").exit_code, NotComparableError("").exit_code, BudgetError("").exit_code) == (2, 3, 6)
