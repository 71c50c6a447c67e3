"""`manifest.json`: what a bundle is, where it came from and what was proved about it; read, write, check.

The format is described in docs/bundle.md. Reading needs neither torch nor an engine, and takes nothing on trust.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmquant.bundle.fields import Fields
from vlmquant.bundle.older import upgraded
from vlmquant.engines import Activations
from vlmquant.errors import BundleError, unknown
from vlmquant.files import parse_json, sha256_of, why_no_folder, write_whole
from vlmquant.models.heads import HEADS, BundleHead

MANIFEST = "manifest.json"
SCHEMA_VERSION = 3
READABLE_VERSIONS = (1, 2, 3)
LARGEST_MANIFEST = 16 << 20
LONGEST_NAME = 255
"""Bytes of a file's name, the most that file systems take."""
LARGEST_ID = (1 << 24) - 1
"""No vocabulary has so many tokens."""


@dataclass(frozen=True, kw_only=True)
class GraphRecipe:
    """The recipe that was carried out on one graph: what running and reporting need of it, and all its `settings`.

    `activation_bits` is None where activations stay float; `smoothing` and `keep_float` (layers by name or pattern) say
    what was done about outliers.
    """

    name: str
    weight_bits: int
    activation_bits: int | None
    activations: Activations
    smoothing: bool
    keep_float: tuple[str, ...]
    settings: Mapping[str, Any]

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], where: str = "recipe") -> "GraphRecipe":
        """Read what `Recipe.to_dict` gives. Raises BundleError naming the field that is none of a recipe's."""
        fields = Fields(settings, where)
        bits, activations = None, None
        if not fields.is_null("activations"):
            scheme = fields.fields("activations")
            bits, activations = scheme.integer("bits", 1, 32), scheme.text("ranges")
        return cls(
            name=fields.text("name"),
            weight_bits=fields.fields("weights").integer("bits", 1, 32),
            activation_bits=bits,
            activations="float" if activations is None else "static" if activations == "static" else "dynamic",
            smoothing=fields.flag("smoothing"),
            keep_float=fields.texts("keep_float"),
            settings=settings,
        )


@dataclass(frozen=True, kw_only=True)
class ComponentFacts:
    """One graph of a bundle and what was measured when it was built.

    `recipe` None means float32. `fidelity` compares the simulation with the float model (cosine of what comes out, over
    the calibration inputs), `parity` each engine with the simulation (over the stored probes), and
    `integer_mac_share` is the share of multiply-accumulates that an engine ran in INT8 kernels, by engine.
    """

    file: str
    recipe: GraphRecipe | None
    fidelity: Mapping[str, float]
    parity: Mapping[str, Mapping[str, float]]
    integer_mac_share: Mapping[str, float]

    @property
    def precision(self) -> str:
        """The recipe's name, or "float32"."""
        return "float32" if self.recipe is None else self.recipe.name

    @property
    def activations(self) -> Activations:
        """When its activations become integers."""
        return "float" if self.recipe is None else self.recipe.activations

    @property
    def kept_float(self) -> tuple[str, ...]:
        """The layers that its recipe left float, by name or pattern."""
        return () if self.recipe is None else self.recipe.keep_float

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**dataclasses.asdict(self), "recipe": None if self.recipe is None else dict(self.recipe.settings)}


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """The size and SHA-256 of one file of a bundle."""

    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything a bundle says about itself.

    `head` says what its graphs do together and holds the numbers that this takes. `components` are the graphs by name.
    `requires_any_of` lists instruction sets of which a CPU needs one to add the integer products without overflow;
    empty means any CPU will do. On others they are multiplied as floats.
    """

    name: str
    source: Mapping[str, Any]
    calibration: Mapping[str, Any] | None
    head: BundleHead
    components: Mapping[str, ComponentFacts]
    requires_any_of: tuple[str, ...]
    files: Mapping[str, FileFacts]
    tools: Mapping[str, str]

    @property
    def total_bytes(self) -> int:
        """Bytes of all listed files; the manifest itself is not among them."""
        return sum(facts.bytes for facts in self.files.values())

    @property
    def identity(self) -> str:
        """A SHA-256 over all that decides a result: the head with its numbers, and every file."""
        deciding = {name: self.to_dict()[name] for name in ("head", "files")}
        deciding["graphs"] = {name: facts.file for name, facts in self.components.items()}
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()

    @property
    def precision(self) -> str:
        """One name where all graphs have the same precision, "image=static-int8 text=float32" otherwise."""
        return in_few_words({name: facts.precision for name, facts in self.components.items()})

    @property
    def recipes(self) -> dict[str, dict[str, Any] | None]:
        """The settings of each graph's recipe; None: float32."""
        return {
            name: None if facts.recipe is None else dict(facts.recipe.settings)
            for name, facts in self.components.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "source": dict(self.source),
            "calibration": None if self.calibration is None else dict(self.calibration),
            "head": self.head.to_dict(),
            "components": {name: facts.to_dict() for name, facts in self.components.items()},
            "requires_any_of": list(self.requires_any_of),
            "files": {name: dataclasses.asdict(facts) for name, facts in self.files.items()},
            "tools": dict(self.tools),
        }

    def write(self, folder: Path) -> None:
        """Write `manifest.json` into `folder`, whole or not at all."""
        write_whole(folder / MANIFEST, json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read the manifest of a bundle folder.

        Raises BundleError when the folder is not a bundle, the schema is newer than this program, a field is missing or
        of another type, or a file name leads out of the folder.
        """
        path = folder / MANIFEST
        if not folder.is_dir():
            raise BundleError(f"bundle folder {str(folder)!r} {why_no_folder(folder)}; `vlmquant quantize` makes one")
        if not path.is_file():
            raise BundleError(f"{str(folder)!r} is not a bundle: it has no {MANIFEST}; `vlmquant quantize` makes one")
        if (size := path.stat().st_size) > LARGEST_MANIFEST:
            raise BundleError(f"{path} has {size:,} bytes; no manifest has more than {LARGEST_MANIFEST:,}")
        try:
            values = parse_json(path.read_bytes())
            if not isinstance(values, dict):
                raise BundleError(f"{path} holds a {type(values).__name__}, expected an object; build the bundle again")
            version = values["schema_version"]
            if version not in READABLE_VERSIONS:
                raise BundleError(
                    f"the bundle has schema version {version!r}, this vlmquant reads {SCHEMA_VERSION}; "
                    "install the vlmquant that wrote it, or build the bundle again"
                )
            return _read(Fields(values if version == SCHEMA_VERSION else upgraded(values), MANIFEST))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"{path} is damaged ({type(error).__name__}: {error}); build the bundle again") from error


def in_few_words(names: Mapping[str, str]) -> str:
    """Return one name where all are the same, "image=static-int8 text=float32" otherwise."""
    if len(set(names.values())) == 1:
        return next(iter(names.values()))
    return " ".join(f"{part}={name}" for part, name in names.items())


def _read(fields: Fields) -> Manifest:
    fields.integer("schema_version", 1, SCHEMA_VERSION)
    files = {name: _file_facts(facts) for name, facts in fields.all_fields("files").items()}
    components = {name: _component(facts) for name, facts in fields.all_fields("components").items()}
    manifest = Manifest(
        name=fields.text("name"),
        source=_source(fields),
        calibration=_calibration(fields),
        head=_head(fields.fields("head")),
        components=components,
        requires_any_of=fields.texts("requires_any_of"),
        files=files,
        tools={tool: fields.fields("tools").text(tool) for tool in fields.mapping("tools")},
    )
    fields.done()
    for name in (*files, *(facts.file for facts in components.values())):
        _check_plain_name(name)
    for component, facts in components.items():
        if facts.file not in files:
            raise BundleError(f"component {component!r} names {facts.file!r}, which is not among the listed files")
    if set(components) != set(manifest.head.graphs):
        wanted = ", ".join(manifest.head.graphs)
        raise BundleError(f"a {manifest.head.name} has the graphs {wanted}; {MANIFEST} lists {sorted(components)}")
    return manifest


def _file_facts(fields: Fields) -> FileFacts:
    facts = FileFacts(sha256=fields.text("sha256"), bytes=fields.integer("bytes", 0, 1 << 50))
    fields.done()
    return facts


def _component(fields: Fields) -> ComponentFacts:
    recipe = None if fields.is_null("recipe") else GraphRecipe.from_settings(fields.mapping("recipe"))
    facts = ComponentFacts(
        file=fields.text("file"),
        recipe=recipe,
        fidelity=fields.numbers("fidelity"),
        parity=fields.all_numbers("parity"),
        integer_mac_share=fields.numbers("integer_mac_share"),
    )
    fields.done()
    return facts


def _source(fields: Fields) -> Mapping[str, Any]:
    source = fields.fields("source")
    source.text("name"), source.text("weights_sha256"), source.flag("random_weights")
    return fields.mapping("source")


def _calibration(fields: Fields) -> Mapping[str, Any] | None:
    if fields.is_null("calibration"):
        return None
    calibration = fields.fields("calibration")
    for number in ("images", "texts"):
        calibration.integer(number, 0, 1 << 40)
    for text in ("images_from", "texts_from", "sha256"):
        calibration.text(text)
    return fields.mapping("calibration")


def _head(fields: Fields) -> BundleHead:
    """Return the head whose tag `fields` have; its numbers are a finite scale and ids of tokens."""
    name = fields.text("type")
    kind = next((head for known, head in HEADS.items() if known == name), None)
    if kind is None:
        raise unknown(BundleError, "head", name, HEADS)
    numbers: dict[str, Any] = {
        field.name: fields.integer(field.name, 0, LARGEST_ID) if field.type is int else fields.number(field.name)
        for field in dataclasses.fields(kind)
    }
    fields.done()
    return kind(**numbers)


def _check_plain_name(name: str) -> None:
    plain = Path(name).name == name and not re.search(r"[\\/:]", name) and len(name.encode()) <= LONGEST_NAME
    if not plain or name in ("", ".", "..", MANIFEST):
        raise BundleError(f"{MANIFEST} names the file {name!r}; only plain names inside the bundle folder are allowed")


def file_facts(path: Path) -> FileFacts:
    """Return the size and SHA-256 of `path`."""
    return FileFacts(sha256=sha256_of(path), bytes=path.stat().st_size)


def add_file(folder: Path, name: str, content: str) -> None:
    """Put one more file into the bundle `folder` and list it in the manifest."""
    manifest = Manifest.read(folder)
    _check_plain_name(name)
    files = {**manifest.files, name: file_facts(write_whole(folder / name, content))}
    dataclasses.replace(manifest, files=files).write(folder)
