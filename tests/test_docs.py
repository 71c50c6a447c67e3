"""The pages are executed: every example of the README and of docs/getting-started.md, and their tables and links."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakes import tiny_blip_folder
from vlmquant.cli import main

ROOT = Path(__file__).resolve().parents[1]
README, GETTING_STARTED = ROOT / "README.md", ROOT / "docs" / "getting-started.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))
ONCE = ["--rounds", "1", "--iterations", "1"]
QUICK = {
    "analyze": ["--recipes", "vanilla-w4a4"],
    "bench": ONCE,
    "recover": ["--steps", "2"],
    "sweep": ["--recipes", "int8-weights", "--components", "image", "--bits", "", *ONCE],
}
"""What is added to an example so that it ends in seconds."""
PICTURES, CLASSES, OF_A_CLASS = 16, ("bus", "dog"), 10


def examples(page: Path) -> list[list[str]]:
    """Return the command of each line of a page's ```bash blocks, without comments."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return [words for line in "".join(blocks).splitlines() if (words := shlex.split(line, comments=True))]


@pytest.fixture(scope="module")
def prepared(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples name: checkpoints under hub ids' spelling, pictures, classes, captions, a video."""
    import streetworld

    folder = tmp_path_factory.mktemp("prepared")
    shutil.copytree(tiny_checkpoint, folder / "openai" / "clip-vit-base-patch32")
    for name, kind in (("blip-image-captioning-base", "captioning"), ("blip-vqa-base", "vqa")):
        tiny_blip_folder(folder / "Salesforce" / name, kind)
    generator = np.random.default_rng(0)
    photos, captioned = folder / "photos", folder / "captioned"
    for place in (photos, captioned / "images", *(folder / "dev" / name for name in CLASSES)):
        place.mkdir(parents=True)
        for index in range(OF_A_CLASS if place.parent.name == "dev" else PICTURES):
            pixels = generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{index}.png")
    rows = "".join(f"{index}.png,a picture of noise\n" for index in range(PICTURES))
    (captioned / "captions.csv").write_text(f"image,caption\n{rows}", encoding="utf-8")
    streetworld.write_video(folder / "street.mp4", streetworld.script_video(0, seconds=5))
    return folder


@pytest.fixture
def workplace(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "work"))


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"


def run_examples(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Run the commands of a page in this process: what they import is imported once."""
    monkeypatch.chdir(folder)
    for program, verb, *words in examples(page):
        assert program == "vlmquant"
        monkeypatch.setattr(sys, "argv", [program, verb, *words, *QUICK.get(verb, ())])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert not ended.value.code, f"{shlex.join(sys.argv)}\n{said.out}\n{said.err}"


def test_the_python_example_runs(workplace: Path) -> None:
    found = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    run([sys.executable, "-c", found.group(1)], workplace)
    assert (workplace / "clip-int8" / "manifest.json").is_file()


@pytest.mark.timeout(900)
def test_the_commands_of_the_readme_run(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_examples(README, workplace, monkeypatch, capsys)
    written = {path.name for path in (workplace / "out").iterdir()}
    expected = "events.jsonl events.csv scores.csv events.vtt timeline.png annotated.mp4 index.html"
    assert written >= set(expected.split())
    assert len((workplace / "captions.jsonl").read_text(encoding="utf-8").splitlines()) == PICTURES


@pytest.mark.timeout(900)
def test_the_commands_of_getting_started_run(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_examples(GETTING_STARTED, workplace, monkeypatch, capsys)
    assert all((workplace / name).is_dir() for name in ("clip-budget", "inside", "sweep", "recovered"))


def test_the_tables_are_those_of_the_committed_results() -> None:
    command = [sys.executable, "-m", "benchmarks", "tables", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_everything_a_page_links_to_exists(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_readme_fits_a_screen_or_two() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 120
