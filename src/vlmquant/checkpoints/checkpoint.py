"""A checkpoint folder as a value: its configuration, its tensors, and the checks they must pass."""

import hashlib
import pickle
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard, TypeVar, cast

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PretrainedConfig

from vlmquant.checkpoints.weight_files import weight_files
from vlmquant.errors import ModelError, unknown
from vlmquant.models.spec import read_json, refuse_pointer

Config = TypeVar("Config", bound=PretrainedConfig)
STATE_KEYS = ("state_dict", "model_state_dict", "model")
"""Where training scripts put the weights in what they pickle."""
_FOREIGN = re.compile(r"GLOBAL (\S+)")
"""How torch names what a pickle asks for beside tensors."""
RANDOM_WEIGHTS_KEY = "vlmquant_random_weights"
"""Key of `config.json` that says the weights were drawn, not trained."""


SETTINGS = (
    "added_tokens.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
"""Every file beside the weights that can change a result."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a folder holds: `config` is its `config.json`, `state` all tensors as float32 (integers as they are).

    `weights_sha256` is over the bytes of the weight files, in the order of their names; `settings_sha256` over all
    other files that decide a result (`SETTINGS`).
    """

    folder: Path
    config: dict[str, Any]
    state: dict[str, Tensor]
    weights_sha256: str
    settings_sha256: str

    @property
    def model_type(self) -> str:
        """Which loader understands it."""
        return str(self.config["model_type"])

    @property
    def random_weights(self) -> bool:
        """Whether the weights were drawn, not trained."""
        return bool(self.config.get(RANDOM_WEIGHTS_KEY, False))

    @classmethod
    def open(cls, folder: Path, config: dict[str, Any], allow_pickle: bool) -> "Checkpoint":
        """Read the weights of `folder` beside its `config`. Raises ModelError when a file is missing or broken."""
        files = weight_files(folder, allow_pickle)
        return cls(folder.resolve(), config, _read_weights(files), _sha256(files), settings_sha256(folder))


def usable_device(device: str) -> torch.device:
    """Return torch's name for `device`; "auto" is CUDA where it is present and the CPU where not.

    Raises ModelError listing the devices present when it cannot be used.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        target = torch.device(device)
        torch.empty(1, device=target)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        present = ["cpu"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        raise ModelError(f"device {device!r} cannot be used here; present: {', '.join(present)}") from error
    return target


def settings_sha256(folder: Path) -> str:
    """Return the digest of every file of `SETTINGS` that `folder` holds, with its name."""
    sha = hashlib.sha256()
    for path in (folder / name for name in SETTINGS):
        if path.is_file():
            sha.update(f"{path.name} {_sha256([path])}\n".encode())
    return sha.hexdigest()


def identity_of(weights_sha256: str, settings_sha256: str) -> str:
    """Return the sha256 of a float model: equal identities give equal results."""
    return hashlib.sha256(f"{weights_sha256} {settings_sha256}".encode()).hexdigest()


def read_config(folder: Path, model_types: Collection[str]) -> dict[str, Any]:
    """Return the `config.json` of `folder`. Raises ModelError when it is missing, broken or of no known model type."""
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder} has no config.json; expected a Hugging Face checkpoint folder")
    content = read_json(path)
    if "model_type" not in content:
        raise ModelError(f"{path} names no model_type; expected a Hugging Face checkpoint folder")
    if content["model_type"] not in model_types:
        named = content.get("architectures") or ["no architecture"]
        of_no_family = unknown(ModelError, "model_type", str(content["model_type"]), model_types)
        raise ModelError(f"{path} is of {', '.join(map(str, named))}: {of_no_family}")
    return content


def parse_config(checkpoint: Checkpoint, kind: type[Config]) -> Config:
    """Return the configuration as transformers' `kind`. Raises ModelError where it is none, or names no sizes."""
    path = checkpoint.folder / "config.json"
    for part in ("text_config", "vision_config"):
        if not isinstance(checkpoint.config.get(part), dict):
            raise ModelError(f"{path} has no {part}; without it the model's size would be a guess")
    try:
        return cast(Config, kind.from_dict(dict(checkpoint.config)))
    except Exception as error:  # its validators raise types of their own
        reason = " ".join(str(error).split())
        raise ModelError(f"{path} is not a {kind.model_type.upper()} configuration: {reason}") from error


def fill(module: nn.Module, state: Mapping[str, Tensor], folder: Path) -> None:
    """Put the tensors of `state` into `module`, which may be on the meta device, without copying them.

    Nothing may be missing, left over, of another shape or not finite; raises ModelError naming the tensors.
    """
    # Older checkpoints store the position indices 0, 1, 2, ... as well.
    state = {name: tensor for name, tensor in state.items() if not name.endswith("embeddings.position_ids")}
    expected = module.state_dict()
    problems = {
        "lacks": sorted(expected.keys() - state.keys()),
        "has unknown": sorted(state.keys() - expected.keys()),
        "has a wrong shape for": sorted(
            f"{name} {tuple(state[name].shape)}, expected {tuple(expected[name].shape)}"
            for name in expected.keys() & state.keys()
            if state[name].shape != expected[name].shape
        ),
        "holds infinite or undefined values in": sorted(
            name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()
        ),
    }
    found = []
    for problem, names in problems.items():
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        found += [f"{problem} tensors: {', '.join(names[:5])}{more}"] if names else []
    if found:
        raise ModelError(f"the checkpoint in {folder} {'; it '.join(found)}")
    module.load_state_dict(state, assign=True)
    for part in module.modules():
        positions = getattr(part, "position_embedding", None)
        # transformers' position indices are not part of the state and are still on the meta device.
        if isinstance(positions, nn.Embedding):
            part.position_ids = torch.arange(positions.num_embeddings).expand(1, -1)


def _read_weights(files: list[Path]) -> dict[str, Tensor]:
    """Return all tensors of `files` as float32, under their names without what all names begin with."""
    state: dict[str, Tensor] = {}
    for path in files:
        refuse_pointer(path)
        try:
            state |= safetensors.torch.load_file(path) if path.suffix == ".safetensors" else _read_pickle(path)
        except (SafetensorError, OSError, ValueError, RuntimeError, EOFError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise ModelError(f"{path} is damaged or truncated ({reason}); download it again") from error
    state = _without_common_prefix(state)
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a pickled state, which a training script may have put beside other things."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        foreign = _FOREIGN.search(str(error))
        what = f" ({foreign[1]})" if foreign else ""
        raise ModelError(
            f"{path} holds more than tensors{what} and was not opened, since that may run code; save its state_dict"
        ) from error
    if isinstance(content, Mapping):
        for state in (content, *(content.get(key) for key in STATE_KEYS)):
            if _is_state(state):
                return dict(state)
    kinds = sorted(map(str, content)) if isinstance(content, Mapping) else [type(content).__name__]
    raise ModelError(
        f"{path} holds no tensors by name but {', '.join(kinds[:8])}; expected a state dict, or one under "
        f"{', '.join(STATE_KEYS)}"
    )


def _is_state(content: object) -> TypeGuard[Mapping[str, Tensor]]:
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items())
    )


def _without_common_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off what a wrapper put before every name ("module." of a parallel training); no family needs such a part."""
    first = {name.partition(".")[0] for name in state}
    if len(first) != 1 or len(state) == 1:
        return state
    return _without_common_prefix({name.partition(".")[2]: tensor for name, tensor in state.items()})


def _sha256(files: list[Path]) -> str:
    sha = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()
