"""How a bundle's manifest is printed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmquant.bundle.manifest import Manifest
from vlmquant.cli import show
from vlmquant.text import counted, megabytes


def print_bundle(folder: Path, *, json_output: bool = False) -> None:
    """Print what a new bundle is and what was proved about it, or all of its manifest for a machine."""
    manifest = Manifest.read(folder)
    if json_output:
        show.as_json(manifest.to_dict())
    else:
        print_manifest(folder, manifest)


def print_manifest(folder: Path, manifest: Manifest) -> None:
    """Print what a new bundle is and what was proved about it."""
    rows = [
        (
            component,
            facts.precision,
            megabytes(manifest.files[facts.file].bytes),
            f"{facts.fidelity['cosine_mean']:.5f}",
            f"{facts.fidelity['cosine_min']:.5f}",
            ", ".join(f"{engine} {share:.1%}" for engine, share in facts.integer_mac_share.items()),
            f"{min(parity['cosine_min'] for parity in facts.parity.values()):.6f}",
        )
        for component, facts in manifest.components.items()
    ]
    columns = ("component", "precision", "size", "cosine to float", "worst", "MACs in INT8 kernels", "engine parity")
    show.table(f"{manifest.name}: {megabytes(manifest.total_bytes)} in {folder}", columns, rows)
    for component, facts in manifest.components.items():
        if facts.kept_float:
            show.line(f"{component}: {counted(len(facts.kept_float), 'layer')} in float: {', '.join(facts.kept_float)}")
    if manifest.calibration is not None:
        about = manifest.calibration
        show.line(f"calibrated on {about['images_from']} and {_texts(about)}")
        show.calibration_warnings(about)
    if manifest.source["random_weights"]:
        show.line("the weights of this checkpoint are random: sizes and speeds mean something, embeddings nothing")


def _texts(calibration: Mapping[str, Any]) -> str:
    """Say which texts a bundle was calibrated on; a captioner without any reads what its float model writes."""
    number = calibration["texts"]
    return f"{number} texts of {calibration['texts_from']}" if number else f"texts of {calibration['texts_from']}"
