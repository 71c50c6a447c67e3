"""`manifest.json`: what a bundle is, where it came from and what was proved about it; read, write, check.

The format is described in docs/bundle.md. Reading needs neither torch nor an engine.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmquant.errors import BundleError
from vlmquant.files import write_whole

MANIFEST = "manifest.json"
SCHEMA_VERSION = 2
# Version 1 knew encoders only; its fields are a part of version 2's.
READABLE_VERSIONS = (1, 2)


@dataclass(frozen=True, kw_only=True)
class ComponentFacts:
    """One component of a bundle and what was measured when it was built.

    `precision` is the recipe's name or "float32". `fidelity` compares the simulation with the float model (cosine of
    embeddings over the calibration inputs), `parity` each engine with the simulation (over the stored probes), and
    `integer_mac_share` is the share of multiply-accumulates that an engine ran in INT8 kernels, by engine. `smoothed`
    and `kept_float` (layers by name or pattern) say what was done about its outliers.
    """

    file: str
    precision: str
    fidelity: Mapping[str, float]
    parity: Mapping[str, Mapping[str, float]]
    integer_mac_share: Mapping[str, float]
    smoothed: bool = False
    kept_float: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """The size and SHA-256 of one file of a bundle."""

    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything a bundle says about itself.

    `kind` is "encoder" (image and text embeddings; `logit_scale` is theirs), "captioning", "vqa" or "matching" (BLIP;
    `logit_scale` is null). `generation` holds what decoding needs: start_id, end_id, pad_id. The `components` of a
    BLIP are its graphs, and `recipe` is by component. `requires_any_of` lists instruction sets of which a CPU needs one
    to add the integer products without overflow; empty means any CPU will do. On others they are multiplied as floats.
    """

    name: str
    source: Mapping[str, Any]
    recipe: Mapping[str, Any]
    calibration: Mapping[str, Any] | None
    logit_scale: float | None
    components: Mapping[str, ComponentFacts]
    requires_any_of: tuple[str, ...]
    files: Mapping[str, FileFacts]
    tools: Mapping[str, str]
    kind: str = "encoder"
    generation: Mapping[str, int] | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def total_bytes(self) -> int:
        """Bytes of all listed files; the manifest itself is not among them."""
        return sum(facts.bytes for facts in self.files.values())

    def write(self, folder: Path) -> None:
        """Write `manifest.json` into `folder`, whole or not at all."""
        write_whole(folder / MANIFEST, json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read the manifest of a bundle folder.

        Raises BundleError when the folder is no bundle, the schema is newer than this program, a field is missing or
        a file name leads out of the folder.
        """
        path = folder / MANIFEST
        if not folder.is_dir():
            raise BundleError(f"bundle folder {str(folder)!r} does not exist")
        if not path.is_file():
            raise BundleError(f"{str(folder)!r} is not a bundle: it has no {MANIFEST}; `vlmquant quantize` makes one")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return _from_dict(cls, values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"{path} is damaged ({type(error).__name__}: {error}); build the bundle again") from error


def _from_dict(cls: type[Manifest], values: Mapping[str, Any]) -> Manifest:
    version = values["schema_version"]
    if version not in READABLE_VERSIONS:
        raise BundleError(
            f"the bundle has schema version {version!r}, this vlmquant reads {SCHEMA_VERSION}; "
            "install the vlmquant that wrote it, or build the bundle again"
        )
    known = {field.name for field in dataclasses.fields(cls)}
    if unexpected := set(values) - known:
        raise BundleError(f"{MANIFEST} has unknown fields {sorted(unexpected)}; expected {sorted(known)}")
    manifest = cls(
        **{
            **values,
            "components": {
                name: ComponentFacts(**{**facts, "kept_float": tuple(facts.get("kept_float", ()))})
                for name, facts in values["components"].items()
            },
            "files": {name: FileFacts(**facts) for name, facts in values["files"].items()},
            "requires_any_of": tuple(values["requires_any_of"]),
        }
    )
    for name in (*manifest.files, *(facts.file for facts in manifest.components.values())):
        _check_plain_name(name)
    for component, facts in manifest.components.items():
        if facts.file not in manifest.files:
            raise BundleError(f"component {component!r} names {facts.file!r}, which is not among the listed files")
    return manifest


def _check_plain_name(name: str) -> None:
    if not isinstance(name, str) or Path(name).name != name or "\\" in name or name in ("", ".", "..", MANIFEST):
        raise BundleError(f"{MANIFEST} names the file {name!r}; only plain names inside the bundle folder are allowed")


def file_facts(path: Path) -> FileFacts:
    """Return the size and SHA-256 of `path`."""
    with path.open("rb") as stream:
        return FileFacts(sha256=hashlib.file_digest(stream, "sha256").hexdigest(), bytes=path.stat().st_size)


def add_file(folder: Path, name: str, content: str) -> None:
    """Put one more file into the bundle `folder` and list it in the manifest."""
    manifest = Manifest.read(folder)
    _check_plain_name(name)
    files = {**manifest.files, name: file_facts(write_whole(folder / name, content))}
    dataclasses.replace(manifest, files=files).write(folder)


def check_files(folder: Path, manifest: Manifest) -> None:
    """Compare every listed file with its size and SHA-256. Raises BundleError naming the first that differs."""
    for name, expected in manifest.files.items():
        path = folder / name
        if path.is_symlink():
            raise BundleError(f"{name} in {str(folder)!r} is a symbolic link; a bundle holds its files itself")
        if not path.is_file():
            raise BundleError(f"{name} is missing from bundle {str(folder)!r}")
        found = file_facts(path)
        if found != expected:
            raise BundleError(
                f"{name} in bundle {str(folder)!r} was altered: it has {found.bytes} bytes and SHA-256 "
                f"{found.sha256[:12]}…, the manifest says {expected.bytes} and {expected.sha256[:12]}…; build it again"
            )
