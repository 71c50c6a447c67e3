"""Tables of pruning: what it costs on small models, what it saves on a full-size one."""

from collections.abc import Mapping
from typing import Any

from benchmarks.tables.format import NOT_RUN, load, markdown, points

MODELS = {"pruning-real-tiny": "clip-real-tiny", "pruning-street": "street CLIP"}


def scores() -> str:
    results = {title: load(file) for file, title in MODELS.items()}
    names = dict.fromkeys(name for result in results.values() for name in result["rows"])
    rows = [
        [name, *(cell for result in results.values() for cell in _cells(result["rows"].get(name)))] for name in names
    ]
    cells = [f"{title}, {what}" for title in results for what in ("MACs left, image and text", "MB", "top-1", "cosine")]
    counts = ", ".join(
        f"{title} {result['labelled_images']} pictures, tuned on {result['unlabelled']['images']}, "
        f"{result['settings']['steps']} steps"
        for title, result in results.items()
    )
    said = f"Points of zero-shot top-1 against float, both towers static-int8, simulated in torch. {counts}."
    return f"{markdown(['pruned', *cells], rows)}\n\n{said}"


def _cells(row: Mapping[str, Any] | None) -> list[str]:
    if row is None:
        return [NOT_RUN, "", "", ""]
    left = row.get("macs_left")
    return [
        "" if left is None else f"{100 * left['image']:.0f}, {100 * left['text']:.0f} %",
        f"{row['bundle_bytes'] / 1e6:.2f}" if "bundle_bytes" in row else "",
        points(row["both"]["top1"]),
        f"{row['image_cosine_mean']:.4f}",
    ]


def speed() -> str:
    result = load("pruning-vit-b-32")
    engines = list(next(iter(result["rows"].values()))["engines"])
    whole = next(iter(result["rows"].values()))
    rows = [
        [
            name,
            f"{row['macs'] / 1e9:.2f} ({100 * row['macs'] / whole['macs']:.0f} %)",
            f"{row['bytes'] / 1e6:.1f}",
            *(cell for engine in engines for cell in _times(row["engines"][engine])),
        ]
        for name, row in result["rows"].items()
    ]
    columns = [f"{engine}, {what}" for engine in engines for what in ("ms", "times as fast")]
    return markdown(["image tower of ViT-B/32", "GMACs", "MB", *columns], rows) + (
        f"\n\nRandom weights, batch 1, {result['environment']['cpu_model']}, {result['threads']} threads, "
        f"{result['rounds']} rounds of {result['iterations']}."
    )


def _times(times: Mapping[str, Any]) -> list[str]:
    ratio = times["speedup"]
    return [f"{times['median_ms']:.2f}", f"{ratio['median']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f})"]
