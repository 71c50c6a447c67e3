"""Where results go: nothing there that this program did not make is ever replaced, and no input is changed.

A record in the folder lists the files that were made, each with its size and the verb that made it. A file that is not
listed, or was changed since, belongs to the user. One record serves whole folders and single files alike: a CSV file
cannot say who made it.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlmquant.errors import DataError
from vlmquant.files import alone, check_writable, parse_json, write_whole
from vlmquant.text import printable

RECORD = "vlmquant-files.json"
"""The record's name: {"made_by": "vlmquant", "files": {name: {"bytes": ..., "verb": ...}}}."""

_BUNDLE_KEYS = {"schema_version", "components", "files", "requires_any_of"}
"""A manifest.json with these is a bundle's, of any version; other programs have files of this name as well."""
_LARGEST_MANIFEST = 16 << 20


@dataclass(frozen=True)
class Made:
    """A file of the record: its size, None while a run may be writing it, and the verb (None: any) that made it."""

    bytes: int | None
    verb: str | None


class OutputFolder:
    """The folder in which `verb` puts results, made when the first is written.

    A name that ends in "/" is a folder of numbered pictures, such as 0001.jpg. Raises DataError when the record cannot
    be read.
    """

    def __init__(self, path: str | Path, verb: str) -> None:
        self.path = Path(path)
        self._verb = verb
        self._claimed: tuple[str, ...] = ()
        self._made = self._read_record()

    def check(self, names: Collection[str], inputs: Sequence[Path] = ()) -> None:
        """See, before any work, that the files `names` can be written here and that nothing is lost by it.

        Raises DataError when one would replace one of `inputs` or what this verb did not make, when the folder is
        inside one of `inputs`, a bundle or a checkpoint, and VlmQuantError when it cannot be written or has no room.
        """
        folders = [self.path / name for name in names if name.endswith("/")]
        for folder in (self.path, *folders):
            _check_place(folder, inputs)
        for path in self._existing(names):
            if path.exists() and any(given.exists() and path.samefile(given) for given in inputs):
                raise DataError(f"{_shown(path)} is an input and would be replaced; choose another output")
            maker = self._maker(path)
            if maker is None:
                raise DataError(
                    f"{_shown(path)} was not made by this program and would be replaced; move it, or choose another "
                    "output"
                )
            if maker != self._verb:
                raise DataError(
                    f"{_shown(path)} was made by `vlmquant {maker}` and would be replaced; choose another output"
                )
        check_writable(self.path)

    def claim(self, names: Collection[str]) -> None:
        """Make the folder and put down what is about to be written, so that a run cut short is known for ours."""
        with writing(self.path, so_far=""):
            self.path.mkdir(parents=True, exist_ok=True)
        self._claimed = (*self._claimed, *names)
        self._write_record(dict.fromkeys(names, Made(None, self._verb)))

    def settle(self) -> None:
        """Put down the size of everything that was claimed and is there now, at the end of a run."""
        found = [path for path in self._existing(self._claimed) if path.is_file()]
        self._write_record({self._name(path): Made(path.stat().st_size, self._verb) for path in found}, self._claimed)

    def own_pictures(self, name: str) -> list[Path]:
        """Return the numbered pictures in the folder `name` that this verb made."""
        return [path for path in _numbered(self.path / name) if self._maker(path) == self._verb]

    def _existing(self, names: Collection[str]) -> list[Path]:
        found = []
        for name in names:
            path = self.path / name
            if name.endswith("/") and path.is_dir():
                found += _numbered(path)
            elif path.exists() or path.is_symlink():
                found.append(path)
        return found

    def _maker(self, path: Path) -> str | None:
        """Return the verb that made what lies at `path`; None where no verb did, or it was changed since."""
        name = self._name(path)
        made = self._made.get(f"{Path(name).parent}/") or self._made.get(name)
        if made is None or path.is_symlink() or not path.is_file() or made.bytes not in (None, path.stat().st_size):
            return None
        return made.verb or self._verb

    def _name(self, path: Path) -> str:
        return path.relative_to(self.path).as_posix()

    def _read_record(self) -> dict[str, Made]:
        path = self.path / RECORD
        try:
            record = parse_json(path.read_bytes())
            if record["made_by"] != "vlmquant":
                raise ValueError(record["made_by"])
            return {str(name): _made(values) for name, values in record["files"].items()}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise DataError(f"{_shown(path)} cannot be read ({error.strerror}); choose another output") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{_shown(path)} is not a record of this program; move it, or choose another output"
            ) from error

    def _write_record(self, made: Mapping[str, Made], gone: Collection[str] = ()) -> None:
        """Put `made` into the record in the place of `gone`; runs beside this one have their entries there too."""
        path = self.path / RECORD
        with writing(path), alone(path, wait=True):
            kept = {name: one for name, one in self._read_record().items() if self._stays(name, one, gone)}
            self._made = kept | dict(made)
            files = {name: asdict(one) for name, one in self._made.items()}
            write_whole(path, json.dumps({"made_by": "vlmquant", "files": files}, indent=1))

    def _stays(self, name: str, made: Made, gone: Collection[str]) -> bool:
        """Return whether the record keeps an entry: it is none of `gone`, and its file is there or being written."""
        if name in gone or f"{Path(name).parent}/" in gone:
            return False
        return made.bytes is None or (self.path / name).exists()


def there(folder: Path, patterns: Collection[str]) -> list[str]:
    """Return the names in `folder` that fit one of `patterns`, for results whose names only the work tells."""
    return sorted({path.name for pattern in patterns for path in folder.glob(pattern)})


@contextmanager
def results(folder: Path, verb: str, names: Collection[str]) -> Iterator[Path]:
    """Yield `folder`, made where it is missing, to write the files `names` into, and put down that they are ours.

    Raises as `OutputFolder.check` does, before anything is written.
    """
    target = OutputFolder(folder, verb)
    target.check(names)
    target.claim(names)
    yield target.path
    target.settle()


@contextmanager
def writing(path: Path, so_far: str = "; what was finished beside it is whole") -> Iterator[None]:
    """Turn what goes wrong while `path` is written into a DataError that names it, and says what there is `so_far`."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{_shown(path)} cannot be written ({error.strerror or error}){so_far}; make room, or choose another "
            "output folder"
        ) from error


def _check_place(output: Path, inputs: Sequence[Path]) -> None:
    """Raise DataError where results would become part of an input folder, a bundle or a checkpoint.

    Anything below a bundle fails its check. What lies deeper in a checkpoint changes nothing, and whoever works in the
    folder of one must be able to put results somewhere.
    """
    folder = output.resolve()
    for given in inputs:
        if given.is_dir() and folder.is_relative_to(given.resolve()):
            raise DataError(
                f"results in {_shown(output)} would become part of the input folder {_shown(given)}; choose an output "
                "outside of it"
            )
    for above in (folder, *folder.parents):
        if _is_bundle(above):
            raise DataError(
                f"results in {_shown(output)} would become part of the bundle {_shown(above)}, which then fails its "
                "check; choose an output outside of it"
            )
    if _is_checkpoint(folder):
        raise DataError(
            f"results in {_shown(output)} would lie among the weights of a checkpoint; choose another output"
        )


def _is_bundle(folder: Path) -> bool:
    with suppress(OSError, ValueError):
        path = folder / "manifest.json"
        if path.stat().st_size <= _LARGEST_MANIFEST:
            values = parse_json(path.read_bytes())
            return isinstance(values, dict) and values.keys() >= _BUNDLE_KEYS
    return False


def _is_checkpoint(folder: Path) -> bool:
    weights = (path for pattern in ("*.safetensors", "pytorch_model*.bin") for path in folder.glob(pattern))
    return (folder / "config.json").is_file() and any(weights)


def _numbered(folder: Path) -> list[Path]:
    """Return the pictures of `folder` that are called by a number of three digits or more, sorted."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.glob("*.jpg") if path.stem.isdecimal() and len(path.stem) >= 3)


def _made(values: Any) -> Made:
    """Return an entry of the record; in older ones it is the size alone."""
    return Made(**values) if isinstance(values, dict) else Made(values, None)


def _shown(path: Path) -> str:
    return printable(str(path))
