"""How an engine's package is imported: what is missing, broken or interrupted is told apart."""

from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from vlmquant.engines import session
from vlmquant.engines.session import import_engine
from vlmquant.errors import EngineError


def raising(error: BaseException, cause: BaseException | None = None) -> Callable[[str], Any]:
    def fail(name: str) -> NoReturn:
        raise error from cause

    return fail


@pytest.mark.parametrize("signal", [KeyboardInterrupt(), SystemExit(143)])
def test_a_signal_while_importing_goes_on_as_what_it_was(
    monkeypatch: pytest.MonkeyPatch, signal: BaseException
) -> None:
    monkeypatch.setattr(session.importlib, "import_module", raising(ImportError("initialization failed"), signal))
    with pytest.raises(type(signal)):
        import_engine("openvino")


def test_missing_and_broken_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.importlib, "import_module", raising(ModuleNotFoundError("no", name="openvino")))
    with pytest.raises(EngineError, match="openvino is not installed; run: pip install openvino"):
        import_engine("openvino")
    monkeypatch.setattr(session.importlib, "import_module", raising(ImportError("libtbb.so: no such file")))
    with pytest.raises(
        EngineError, match=r"openvino cannot be loaded \(libtbb\.so: no such file\); run: pip install --force"
    ):
        import_engine("openvino")
