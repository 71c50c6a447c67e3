"""Whether a folder holds the bundle that its manifest describes, and nothing that a stranger could do harm with."""

from pathlib import Path

from vlmquant.bundle.graph_check import check_graph
from vlmquant.bundle.manifest import MANIFEST, Manifest, file_facts
from vlmquant.errors import BundleError, ModelError

LARGEST_SIDE = 4096
"""Pixels; no model takes pictures that are larger."""


def checked_bundle(folder: str | Path) -> Manifest:
    """Return the manifest of a bundle after comparing every file with it. Raises BundleError."""
    folder = Path(folder)
    manifest = Manifest.read(folder)
    check_files(folder, manifest)
    return manifest


def check_files(folder: Path, manifest: Manifest) -> None:
    """Compare every file with its size and SHA-256, and look into graphs and image settings.

    Raises BundleError naming the first that differs, that is not listed, or that no bundle holds.
    """
    if strange := unlisted(folder, manifest):
        raise BundleError(
            f"{', '.join(strange)} in bundle {str(folder)!r}: {MANIFEST} does not list it, so nothing says that it "
            "belongs there; move it out of the folder"
        )
    for name, expected in manifest.files.items():
        path = folder / name
        if path.is_symlink():
            raise BundleError(f"{name} in {str(folder)!r} is a symbolic link; a bundle holds its files itself")
        if not path.is_file():
            raise BundleError(f"{name} is missing from bundle {str(folder)!r}")
        if path.stat().st_size != expected.bytes or (found := file_facts(path)) != expected:
            digest = "" if path.stat().st_size != expected.bytes else f" and SHA-256 {found.sha256[:12]}…"
            raise BundleError(
                f"{name} in bundle {str(folder)!r} was altered: it has {path.stat().st_size} bytes{digest}, the "
                f"manifest says {expected.bytes} and {expected.sha256[:12]}…; build it again"
            )
    graphs = {facts.file for facts in manifest.components.values()}
    weights = {name: facts.bytes for name, facts in manifest.files.items() if name not in graphs}
    for name in sorted(graphs):
        check_graph(folder / name, weights)
    _check_images(folder, manifest)


def unlisted(folder: Path, manifest: Manifest, *, hidden: bool = False) -> list[str]:
    """Return what is in `folder` and not in `manifest`; hidden files, which nothing reads, only where asked for."""
    names = {path.name for path in folder.iterdir() if hidden or not path.name.startswith(".")}
    return sorted(names - {MANIFEST, *manifest.files})


def _check_images(folder: Path, manifest: Manifest) -> None:
    try:
        spec = manifest.head.image_spec(folder)
    except (ModelError, TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise BundleError(f"the image settings in {str(folder)!r} cannot be read: {error}; build it again") from error
    sides = (
        spec.shortest_edge or 1,
        spec.resize_height or 1,
        spec.resize_width or 1,
        spec.crop_height,
        spec.crop_width,
    )
    if not all(0 < side <= LARGEST_SIDE for side in sides):
        raise BundleError(f"the image settings in {str(folder)!r} ask for pictures of {sides} pixels; build it again")
