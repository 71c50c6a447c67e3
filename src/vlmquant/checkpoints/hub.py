"""From what a user typed to a checkpoint folder: a local folder, or a download from the Hugging Face hub."""

import re
from pathlib import Path

from vlmquant.errors import ModelError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILES = ["*.json", "*.safetensors", "*.txt"]
_PICKLES = ["pytorch_model*.bin"]
_TIMEOUT_SECONDS = 5.0


def resolve(name_or_path: str | Path, *, allow_pickle: bool = False) -> Path:
    """Return the folder of a checkpoint; a local folder wins over a hub id `organisation/name` of the same spelling.

    A hub id is downloaded unless it is in the hub's local cache; `HF_HUB_OFFLINE=1` keeps to that cache. Pickled
    weights are fetched only with `allow_pickle`. Raises ModelError when there is no such folder, or when the hub
    cannot be reached or has no such checkpoint; what cannot be a hub id is never looked up.
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        return folder
    name = str(name_or_path)
    if folder.exists():
        raise ModelError(f"{name!r} is a file; pass the folder that holds config.json and model.safetensors")
    if isinstance(name_or_path, Path) or not _HUB_ID.fullmatch(name):
        raise ModelError(
            f"there is no folder {name!r}, and it is no hub id either (organisation/name); "
            "pass a folder with config.json, model.safetensors, tokenizer.json and preprocessor_config.json"
        )
    return _download(name, _FILES + _PICKLES * allow_pickle)


def _download(name: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=patterns, etag_timeout=_TIMEOUT_SECONDS))
    except Exception as error:  # which HTTP library's errors come through depends on huggingface_hub's version
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"there is no folder {name!r}, and it could not be fetched from the hub ({reason}); without a network, "
            "download the checkpoint elsewhere and pass its folder: vlmquant quantize path/to/folder"
        ) from error
