"""From what a user typed to a checkpoint folder: a local folder, or a download from the Hugging Face hub."""

import json
import re
from pathlib import Path

from vlmquant.errors import ModelError

_HUB_ID = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w][\w./-]*))?")
_FILES = ["*.json", "*.safetensors", "*.txt"]
_PICKLES = ["pytorch_model*.bin"]
_TIMEOUT_SECONDS = 5.0


def resolve(name_or_path: str | Path, *, allow_pickle: bool = False) -> Path:
    """Return the folder of a checkpoint; a local folder wins over a hub id of the same spelling.

    A hub id is `organisation/name`, or `organisation/name@revision` with a branch, tag or commit. It is downloaded
    unless it is in the hub's local cache; `HF_HUB_OFFLINE=1` keeps to that cache. Pickled weights are fetched only with
    `allow_pickle`. In a sentence-transformers folder, the model inside is meant. Raises ModelError when there is no
    such folder, or when the hub cannot be reached or has no such checkpoint; what cannot be a hub id is never looked
    up.
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        return _model_in(folder)
    name = str(name_or_path)
    if folder.exists():
        raise ModelError(f"{name!r} is a file; pass the folder that holds config.json and model.safetensors")
    hub_id = _HUB_ID.fullmatch(name)
    if isinstance(name_or_path, Path) or not hub_id:
        raise ModelError(
            f"there is no folder {name!r}, and it is not a hub id either (organisation/name); "
            "pass a folder with config.json, model.safetensors, tokenizer.json and preprocessor_config.json"
        )
    folder = _model_in(_download(hub_id["name"], hub_id["revision"], _FILES + _PICKLES * allow_pickle))
    if not allow_pickle and not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{name!r} has no safetensors weights on the hub; name a revision with some ({hub_id['name']}@REVISION), "
            "or pass allow_pickle (--allow-pickle), which fetches a pickle, if you trust where it came from"
        )
    return folder


def _model_in(folder: Path) -> Path:
    """Return `folder`, or the one inside with the model where sentence-transformers wrote `folder`.

    Raises ModelError where further modules would change the embeddings.
    """
    listing = folder / "modules.json"
    if (folder / "config.json").is_file() or not listing.is_file():
        return folder
    try:
        modules = [(str(module["path"]), str(module["type"])) for module in json.loads(listing.read_text("utf-8"))]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelError(f"{listing} is not a list of sentence-transformers modules; copy it again") from error
    path = modules[0][0] if modules else ""
    others = [kind for _, kind in modules[1:] if not kind.endswith(".Normalize")]
    # A name with a way in it could lead out of the folder.
    if others or not path or Path(path).name != path or not (folder / path / "config.json").is_file():
        raise ModelError(
            f"{folder} is a sentence-transformers folder of {', '.join(kind for _, kind in modules) or 'no modules'}; "
            f"expected one CLIP inside; pass the folder of a CLIP, such as {folder / '0_CLIPModel'}"
        )
    return folder / path


def _download(name: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, etag_timeout=_TIMEOUT_SECONDS))
    except Exception as error:  # which HTTP library's errors come through depends on huggingface_hub's version
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        called = name if revision is None else f"{name}@{revision}"
        raise ModelError(
            f"there is no folder {called!r}, and it could not be fetched from the hub ({reason}); without a network, "
            "download the checkpoint elsewhere and pass its folder: vlmquant quantize path/to/folder"
        ) from error
