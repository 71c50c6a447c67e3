"""Code keeps a shape that can be read: few parameters, short files, one module for one thing."""

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("src/vlmquant", "packages", "benchmarks", "training")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
MOST_PARAMETERS = 12
MOST_LINES = 400


def crowded(code: str) -> Iterator[str]:
    """Name every function of `code` with more than `MOST_PARAMETERS` parameters; `*args` and `**kwargs` count too."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            given = node.args
            named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
            if len(named) + (given.vararg is not None) + (given.kwarg is not None) > MOST_PARAMETERS:
                yield getattr(node, "name", "lambda")


def test_there_are_files_to_look_at() -> None:
    assert {"src", "benchmarks", "training"} <= {path.relative_to(ROOT).parts[0] for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_function_is_crowded_and_no_file_long(path: Path) -> None:
    code = path.read_text(encoding="utf-8")
    assert list(crowded(code)) == []
    assert len(code.splitlines()) <= MOST_LINES


def test_what_counts_as_a_parameter() -> None:
    names = ", ".join(f"p{n}" for n in range(11))
    assert list(crowded(f"def fits({names}, *rest): ...")) == []
    assert list(crowded(f"def method(self, {names}, *rest): ...")) == ["method"]
    assert list(crowded(f"class A:\n    async def far({names}, *, a, **b): ...")) == ["far"]
    assert list(crowded(f"f = lambda {names}, /, a, *, b: 0")) == ["lambda"]


def twins(modules: Iterable[str]) -> dict[str, set[str]]:
    """Return the names of modules that differ only by a model family in front, by what they have in common."""
    found: dict[str, set[str]] = {}
    for name in modules:
        found.setdefault(re.sub(r"^(blip|clip)_", "", name), set()).add(name)
    return {common: names for common, names in found.items() if len(names) > 1}


def test_no_module_is_the_twin_of_another_for_one_family() -> None:
    """What differs by family lies in a folder for each, or is a row of a table."""
    assert twins(path.stem for path in FILES) == {}


def test_what_counts_as_a_twin() -> None:
    assert twins(["blip_inputs", "inputs", "blip", "clip"]) == {"inputs": {"blip_inputs", "inputs"}}
    assert twins(["blip_inputs", "clip_inputs"]) == {"inputs": {"blip_inputs", "clip_inputs"}}


def test_pytest_passes_over_no_folder_of_tests() -> None:
    """Its default leaves out those called "build"."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    folders = {path.parent.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert "build" in folders
    assert [name for name in folders if any(fnmatch(name, one) for one in settings["norecursedirs"])] == []
