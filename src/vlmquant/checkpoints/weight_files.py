"""Which files of a checkpoint folder hold its weights, and whether they may be opened; no torch here."""

import json
from pathlib import Path

from vlmquant.errors import ModelError

PICKLE = "pytorch_model.bin"


def weight_files(folder: Path, allow_pickle: bool) -> list[Path]:
    """Return the files with the weights of a checkpoint `folder`: safetensors, or with `allow_pickle` pickles.

    Raises ModelError where there are none, where they are pickles that were not asked for, or where an index names
    other files than safetensors beside it.
    """
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return _indexed_files(folder, index)
    pickles = [folder / PICKLE] if (folder / PICKLE).is_file() else sorted(folder.glob("pytorch_model-*-of-*.bin"))
    if pickles and not allow_pickle:
        raise ModelError(
            f"{folder} has its weights only as a pickle ({pickles[0].name}), which can run code when it is opened; use "
            "a safetensors checkpoint, or pass allow_pickle (--allow-pickle) if you trust where it came from"
        )
    if not pickles:
        raise ModelError(f"{folder} has no model.safetensors; expected a Hugging Face checkpoint folder with weights")
    return pickles


def _indexed_files(folder: Path, index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} is not an index of weight files; copy it again from the checkpoint") from error
    # A file of another kind or place must not slip past the ban on pickles.
    unsafe = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    if unsafe:
        raise ModelError(f"{index} names {', '.join(unsafe)}; expected safetensors files in the same folder")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"{folder} lacks the weight files {', '.join(missing)}, which its index names")
    return [folder / name for name in names]
