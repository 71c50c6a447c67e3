"""One word for one thing, and plain English: the glossary, the names of classes, and what nobody writes."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "vlmquant"
STREETWORLD = ROOT / "packages" / "streetworld" / "src"
DESIGN = ROOT / "docs" / "design.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
"""Docstrings, comments, messages and --help texts all stand in the source."""

BANNED = {
    r"(?<!\bthere )\b(?:is|are|was|were) no (?!longer\b|more\b|better\b|nearer\b|faster\b|slower\b|other\b)": (
        'write "is not a ..." or "has no ..."'
    ),
    r"\b[Ee]lse as\b": 'write "otherwise like"',
    r"\bin so many words\b": "leave it out",
    r"\bin few words\b": 'write "in short"',
    r"\banew\b": 'write "again"',
    r"\b(?:hold|holds|held)\b[^.,;:]{0,30}\bagainst\b": 'write "compare with"',
    r"\b(?:does|do|did) not tell\b(?! \w* ?(?:apart|from))": 'who does not tell does not "say"',
    r"\bstands? in the (?:help|manifest|report|table|page|place of|command)": 'write "is in" or "takes the place of"',
    r"\bnot of (?:the same|one) \w+": 'write "from different ..."',
    r"\b(?:tokenizer|network|file|bundle|checkpoint) that opens\b": 'write "that can be opened"',
    r"\bgive such a\b": "say what to give",
    r"\bhitherto\b|\bthereof\b|\bwhilst\b|\blest\b": "nobody says it",
    r"\b[Qq]uantis": "spell it with a z",
    r"\bopen_blip\b|\bquantize_blip\b": "it is gone; one name for every family",
}
"""A pattern of what is not to be written, and what to write."""


def modules() -> list[Path]:
    """Return all modules, of both distributions."""
    return sorted([*SOURCE.rglob("*.py"), *STREETWORLD.rglob("*.py")])


def running_text(path: Path) -> str:
    """Return a file's text with every line break in a sentence, string or comment taken out."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"[\"']\s*\n\s*f?[\"']", "", text)
    return re.sub(r"\s*\n\s*(?:#:? )?", " ", text)


@pytest.mark.parametrize("pattern", BANNED)
def test_nobody_writes(pattern: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}: ...{text[max(0, match.start() - 40) : match.end() + 40]}..."
        for path in [*PAGES, *modules()]
        if path.name != "CHANGELOG.md" or "gone" not in BANNED[pattern]
        for text in [running_text(path)]
        for match in re.finditer(pattern, text)
    ]
    assert not found, f"{BANNED[pattern]}:\n" + "\n".join(found)


def test_no_two_classes_have_one_name() -> None:
    places = defaultdict(list)
    for path in modules():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def glossary() -> dict[str, str]:
    """Return each word of the glossary with what it means."""
    section = DESIGN.read_text(encoding="utf-8").split("## Words")[1].split("\n## ")[0]
    return dict(re.findall(r"^- \*\*(.+?)\*\* (.+)$", section, re.MULTILINE))


def test_each_word_of_the_glossary_is_there_once_and_its_code_exists() -> None:
    words = glossary()
    assert len(words) >= 30
    assert list(words) == sorted(words), "in the order of the alphabet"
    for word, meaning in words.items():
        code = re.match(r"\(`([A-Za-z_]+)` in `([a-z_/]+(?:\.py)?)`\): ", meaning)
        assert code, f"{word}: expected (`Name` in `file.py`): meaning"
        name, place = code.groups()
        text = (SOURCE / place).read_text(encoding="utf-8")
        assert re.search(rf"^(?:class |def )?{name}\b", text, re.MULTILINE), f"{word}: no {name} in {place}"
