"""The benchmarks' one entry, their result files, and that every committed result says where it was measured."""

import ast
import json
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import events_street
from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.results import RESULTS, ROOT, ResultFile, code_state, preset_hashes
from benchmarks.tables.pages import PAGES, TABLE, TABLES, filled
from benchmarks.tables.stale import why_stale
from streetworld.videos import EVENT_NAMES
from vlmquant.errors import DataError, VlmQuantError
from vlmquant.quantize.recipes.presets import RECIPES
from vlmquant.tasks.events import score_events

HEAD = {"model": "a CLIP", "calibration": ("64 images",)}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def functions_and_docstring(path: Path) -> tuple[set[str], str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, ast.get_docstring(tree) or ""


def test_the_entry_knows_every_module_that_can_be_run() -> None:
    modules = {module_of(path): functions_and_docstring(path) for path in (ROOT / "benchmarks").rglob("*.py")}
    assert {name for name, (functions, _) in modules.items() if "run" in functions} == set(BENCHMARKS.values())
    for name, module in BENCHMARKS.items():
        functions, docstring = modules[module]
        assert "add_arguments" in functions
        assert f"-m benchmarks {name}" in docstring, f"{module} does not say how to run it"


def test_an_unknown_name_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["acuracy"])
    assert stopped.value.code == 2
    assert "unknown benchmark 'acuracy'; known: accuracy, bench_blip" in capsys.readouterr().err


def test_a_result_says_what_was_measured_where_and_by_which_code(tmp_path: Path) -> None:
    result = ResultFile(tmp_path / "found.json", HEAD)
    result.save({"rows": {"one": 1}})
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert list(found) == ["model", "calibration", "rows", "environment", "code", "presets"]
    assert found["environment"]["cores"] >= 1
    assert found["code"] == code_state(ROOT)


def test_a_stopped_run_goes_on_and_says_that_it_started_twice(tmp_path: Path) -> None:
    output, partial = tmp_path / "found.json", tmp_path / "found.partial.json"
    ResultFile(output, HEAD).add("one", {"top1": 0.5})
    assert not output.exists()
    again = ResultFile(output, HEAD)
    assert again.rows == {"one": {"top1": 0.5}}
    again.add("two", {"top1": 0.25})
    again.save({"rows": again.rows})
    found = json.loads(output.read_text(encoding="utf-8"))
    assert found["rows"] == {"one": {"top1": 0.5}, "two": {"top1": 0.25}}
    assert [set(start) for start in found["earlier_starts"]] == [{"environment", "code", "presets"}]
    assert not partial.exists()


@pytest.mark.parametrize("other", ["code_state", "preset_hashes"])
def test_rows_of_other_code_or_presets_are_measured_again(tmp_path: Path, monkeypatch, capsys, other: str) -> None:
    ResultFile(tmp_path / "found.json", HEAD).add("one", {"top1": 0.5})
    monkeypatch.setattr(f"benchmarks.results.{other}", lambda *_: {"another": "one"})
    assert ResultFile(tmp_path / "found.json", HEAD).rows == {}
    assert "its 1 rows are measured again" in capsys.readouterr().out


def test_a_table_says_which_of_its_files_todays_code_would_not_make(monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"code": {"commit": "a"}, "presets": preset_hashes(), "recipes": {"static-int8": {"both": 1}}}
    assert why_stale(content) == ""
    assert why_stale({**content, "code": None}) == "the file names no commit"
    assert why_stale({"code": {"commit": "a"}, "rows": [RECIPES["w4a8"].to_dict()]}) == ""
    edited = replace(RECIPES["static-int8"], bias_correction=not RECIPES["static-int8"].bias_correction)
    monkeypatch.setitem(RECIPES, "static-int8", edited)
    assert why_stale(content) == "other forms of static-int8"
    assert why_stale({**content, "recipes": {"w4a8": {}}}) == ""
    assert why_stale({"code": {"commit": "a"}, "rows": [edited.to_dict()]}) == ""


def test_a_recipe_that_is_edited_makes_the_tables_differ_from_the_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs" / "results.md"
    assert filled(page.read_text(encoding="utf-8")) == page.read_text(encoding="utf-8")
    edited = replace(RECIPES["int4-weights"], bias_correction=not RECIPES["int4-weights"].bias_correction)
    monkeypatch.setitem(RECIPES, "int4-weights", edited)
    assert filled(page.read_text(encoding="utf-8")) != page.read_text(encoding="utf-8")


@pytest.mark.parametrize("content", ['{"static-int8": {}}', "[]", "{", '{"head": {}, "starts": [], "rows": {}}'])
def test_rows_of_another_run_are_not_mixed_in(tmp_path: Path, content: str) -> None:
    partial = tmp_path / "found.partial.json"
    partial.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="another model, data or options; delete it"):
        ResultFile(tmp_path / "found.json", HEAD)
    assert partial.read_text(encoding="utf-8") == content


def test_code_that_differs_from_its_commit_is_told_apart(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
        command = ["git", "-C", str(tmp_path), *identity, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    assert code_state(tmp_path) is None
    (tmp_path / "code.py").write_text("1\n")
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    (results / "found.json").write_text("{}\n")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    (results / "found.json").write_text('{"a": 1}\n')
    assert code_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "changed": False}
    (tmp_path / "code.py").write_text("2\n")
    once = code_state(tmp_path)
    (tmp_path / "code.py").write_text("3\n")
    again = code_state(tmp_path)
    for found in (once, again):
        assert found is not None
        assert (found["commit"], found["changed"]) == (git("rev-parse", "HEAD"), True)
    assert once != again
    assert code_state(tmp_path / "absent") is None


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_every_committed_result_names_its_environment(path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    parts = [content] if "environment" in content else [part for name, part in content.items() if name != "quantize"]
    assert parts
    for part in parts:
        assert part["environment"]["cpu_model"]


def test_each_table_stands_on_a_page_and_one_that_is_not_known_is_refused() -> None:
    marked = [name for page in PAGES for _, name, _ in TABLE.findall(page.read_text(encoding="utf-8"))]
    assert sorted(set(marked)) == sorted(TABLES)
    with pytest.raises(VlmQuantError, match="unknown table 'speeds'; known: ablation"):
        filled("<!-- table:speeds -->\n<!-- /table -->")


@dataclass(frozen=True)
class Timed:
    """One event, true or found."""

    name: str
    start_seconds: float
    end_seconds: float
    mean_score: float = 0.8


class SearchedVideo:
    """Ten seconds in which one event was found."""

    names = EVENT_NAMES
    end_seconds = 10.0
    pts_seconds = np.arange(10.0)
    scores = np.full((10, len(EVENT_NAMES)), 0.1, np.float32)
    events = (Timed(EVENT_NAMES[0], 1, 5),)


def test_a_ratio_of_no_events_is_null_in_the_result(tmp_path: Path) -> None:
    video = SearchedVideo()
    scores = events_street.table(score_events([video], [[Timed(EVENT_NAMES[0], 1, 5)]]))
    ResultFile(tmp_path / "found.json", {}).save(scores)
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["events"][EVENT_NAMES[0]]["f1"] == found["all_micro_f1"] == 1.0
    assert [found["events"][EVENT_NAMES[1]][ratio] for ratio in ("precision", "recall", "f1")] == [None] * 3
    assert found["state_events_macro_f1"] is None
    events_street.show("float", found)
