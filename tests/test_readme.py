"""The README is executed: its Python, its command line, and its tables against the committed results."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found.group(1)


@pytest.fixture(scope="module")
def workplace(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README's examples name: a checkpoint under a hub id's spelling, photos, a video."""
    from vlmquant import streetworld

    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(tiny_checkpoint, folder / "openai" / "clip-vit-base-patch32")
    (folder / "photos").mkdir()
    generator = np.random.default_rng(0)
    for index in range(6):
        picture = Image.fromarray(generator.integers(0, 256, (40, 50, 3), dtype=np.uint8))
        picture.save(folder / "photos" / f"{index}.png")
    streetworld.write_video(folder / "street.mp4", streetworld.script_video(0, seconds=5))
    return folder


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_python_example_runs(workplace: Path) -> None:
    run([sys.executable, "-c", block("python")], workplace)
    assert (workplace / "clip-int8" / "manifest.json").is_file()
    shutil.rmtree(workplace / "clip-int8")


def test_the_command_lines_run(workplace: Path) -> None:
    shutil.rmtree(workplace / "clip-int8", ignore_errors=True)
    for line in block("bash").strip().splitlines():
        words = shlex.split(line)
        assert words[0] == "vlmquant"
        extra = ["--rounds", "1", "--iterations", "1"] if words[1] == "bench" else []
        run([sys.executable, "-m", "vlmquant", *words[1:], *extra], workplace)
    written = {path.name for path in (workplace / "out").iterdir()}
    assert written >= {
        "events.jsonl",
        "events.csv",
        "scores.csv",
        "events.vtt",
        "timeline.png",
        "annotated.mp4",
        "index.html",
    }


def test_the_tables_are_those_of_the_committed_results() -> None:
    run([sys.executable, "-m", "benchmarks", "tables", "--check"], ROOT)


def test_everything_the_readme_links_to_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
