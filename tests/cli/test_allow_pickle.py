"""A checkpoint whose weights are a pickle: refused with the flag's name, and read with it, in every command."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from fakes import tiny_blip_folder
from vlmquant.cli import main


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A folder with `clip` and `blip`, whose weights are pickles, and `photos`."""
    folder = tmp_path_factory.mktemp("pickles")
    shutil.copytree(tiny_checkpoint, folder / "clip")
    tiny_blip_folder(folder / "blip", "captioning")
    for kind in ("clip", "blip"):
        weights = folder / kind / "model.safetensors"
        torch.save(safetensors.torch.load_file(weights), folder / kind / "pytorch_model.bin")
        weights.unlink()
    (folder / "photos").mkdir()
    for index in range(10):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{index}.png")
    return folder


COMMANDS = {
    "quantize": "quantize clip --recipe fp16 -o out",
    "budget": "budget clip --data photos --max-drop 1 --calibrate photos -o out",
    "evaluate": "evaluate clip --data photos -o out",
    "evaluate --against": "evaluate {tiny} --against clip --data photos -o out",
    "caption": "caption photos -m blip",
    "answer": "answer photos/0.png hello -m blip",
    "detect": "detect {video} -e dog -m clip --float -o out",
    "analyze": "analyze clip --calibrate photos -o out",
    "sweep": "sweep clip --data photos --calibrate photos -o out",
    "bench": "bench clip -o out",
    "recover": "recover clip --images photos -o out",
}
QUICK = ("evaluate --against", "caption")
"""Commands that run to their end here; the others are told apart by their refusal."""


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["vlmquant", *words])
    with pytest.raises(SystemExit) as end:
        main()
    captured = capsys.readouterr()
    return int(end.value.code or 0), " ".join((captured.out + captured.err).split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_names_and_takes_the_flag(
    command: str,
    place: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    video = tmp_path / "v.gif"
    frames = [Image.open(path) for path in sorted((place / "photos").iterdir())]
    frames[0].save(video, save_all=True, append_images=frames[1:], duration=100)
    words = COMMANDS[command].replace(" out", f" {tmp_path / 'out'}").format(tiny=tiny_checkpoint, video=video).split()
    code, text = said(monkeypatch, capsys, words)
    assert code == 2
    assert "--allow-pickle" in text
    assert "pytorch_model.bin" in text
    code, help_text = said(monkeypatch, capsys, [words[0], "--help"])
    assert "--allow-pickle" in help_text
    if command in QUICK:
        code, text = said(monkeypatch, capsys, [*words, "--allow-pickle"])
        assert code == 0, text
