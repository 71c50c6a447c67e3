"""Proving a bundle on this machine; needs neither torch nor transformers."""

from dataclasses import dataclass
from pathlib import Path

from vlmquant.bundle.check import checked_bundle
from vlmquant.bundle.manifest import Manifest
from vlmquant.bundle.proof import ProbeRow, prove
from vlmquant.engines import installed_engines
from vlmquant.errors import BundleError


@dataclass(frozen=True)
class VerifyReport:
    """The outcome of `verify`: the manifest and one row per engine and component."""

    folder: Path
    manifest: Manifest
    rows: tuple[ProbeRow, ...]


def verify(folder: str | Path, *, engine: str = "all", threads: int | None = None) -> VerifyReport:
    """Re-hash every file and re-run the stored probes on `engine` ("all": every installed one).

    Raises BundleError naming the file that was altered or the engine and component whose results differ.
    """
    folder = Path(folder)
    manifest = checked_bundle(folder)
    engines = installed_engines() if engine == "all" else (engine,)
    rows = []
    for name in engines:
        for row in prove(folder, manifest, name, list(manifest.components), threads=threads):
            if not row.right:
                raise BundleError(
                    f"component {row.component!r} on {name} gives results with cosine {row.cosine_min:.4f} to the "
                    f"stored ones, expected at least {row.floor:.4f}; this engine or CPU computes something else"
                )
            rows.append(row)
    return VerifyReport(folder, manifest, tuple(rows))
