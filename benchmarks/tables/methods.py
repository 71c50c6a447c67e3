"""Tables of the quantization methods: peers, outliers, ablation, full-size models, budget and recovery."""

from collections.abc import Mapping
from typing import Any

from benchmarks.tables.format import NOT_RUN, load, markdown, points
from vlmquant.bench.table import int8_macs

MODELS = {"real-tiny": "clip-real-tiny", "street": "street CLIP"}
PEERS = {
    "peers-real-tiny": "clip-real-tiny",
    "peers-street": "street CLIP",
    "peers-stress-real-tiny": "clip-real-tiny with outliers",
    "peers-stress-street": "street CLIP with outliers",
}
RECOVERY = {"recovery-real-tiny": "clip-real-tiny"}
STRESS = {
    "stress-real-tiny": ("clip-real-tiny with outliers", "text_to_image_r10"),
    "stress-street": ("street CLIP with outliers", "text_to_image_r1"),
}


def peers() -> str:
    results = {file: load(file) for file in PEERS}
    names = dict.fromkeys(name for result in results.values() for name in result["contenders"])
    rows = [
        [name, *(_outcome(result["contenders"].get(name)) for result in results.values())]
        for name in names
        if name != "float"
    ]
    before = ", ".join(
        f"{title} {100 * row['float']:.2f} % (n = {row['samples']})"
        for file, title in PEERS.items()
        for row in [next(r["both"]["top1"] for r in results[file]["contenders"].values() if r["outcome"] == "ran")]
    )
    packages = ", ".join(f"{name} {version}" for name, version in results["peers-real-tiny"]["peers"].items())
    return markdown(["both towers by", *PEERS.values()], rows) + (
        f"\n\nPoints of zero-shot top-1 against float: {before}. All calibrated on the same samples. {packages}."
    )


def _outcome(row: Any) -> str:
    if row is None:
        return NOT_RUN
    return points(row["both"]["top1"]) if row["outcome"] == "ran" else f"{row['outcome']}: {row['reason'][:80]}"


def peers_speed() -> str:
    result = load("peers-vit-b-32")
    rows = [
        [name, *(cell for row in (image, result["text"][name]) for cell in _speed_cells(row))]
        for name, image in result["image"].items()
    ]
    columns = ["contender", "image, ms", "ours is faster by", "text, ms", "ours is faster by"]
    return (
        markdown(columns, rows) + f"\n\n{result['model']}, batch 1, {result['environment']['cpu_model']}, "
        f"{result['threads']} threads, {result['rounds']} rounds of {result['iterations']}; ours: on OpenVINO."
    )


def _speed_cells(row: Any) -> list[str]:
    if row["outcome"] != "ran":
        return [f"{row['outcome']}: {row['reason'][:80]}", ""]
    one = row["batches"]["1"]
    return [f"{one['median_ms']:.2f}", f"{one['ours_is_faster_by']['median']:.2f}"]


def stress() -> str:
    rows = [
        [title, recipe, *(points(found["both"][metric]) for metric in ("top1", recall)), _kept(found)]
        for file, (title, recall) in STRESS.items()
        for recipe, found in load(file)["recipes"].items()
    ]
    return markdown(["model", "both towers by", "zero-shot top-1, points", "text to image recall, points", "MB"], rows)


def _kept(found: Any) -> str:
    return "" if found["bundle_bytes"] is None else f"{found['bundle_bytes'] / 1e6:.1f}"


def methods() -> str:
    return _method_rows("methods", "preset", "recipe")


def ablation() -> str:
    return _method_rows("methods", "ablation", "step")


def compensation() -> str:
    return _gain_rows("compensation", "recipe, and what compensates", "without")


def equal() -> str:
    return _gain_rows("equal", "w4a4", "neither")


def _gain_rows(kind: str, what: str, base: str) -> str:
    results = {title: load(f"{kind}-{name}") for name, title in MODELS.items()}
    names = dict.fromkeys(name for result in results.values() for name in result["rows"])
    rows = [
        [name.removeprefix(f"{kind} "), *(cell for result in results.values() for cell in _gain_cells(result, name))]
        for name in names
    ]
    columns = [f"{title}, {cell}" for title in results for cell in ("top-1", f"top-1 against {base}", "image cosine")]
    images = ", ".join(f"{title} {result['labelled_images']['others']}" for title, result in results.items())
    return markdown([what, *columns], rows) + (
        f"\n\nPoints against float, both towers, simulated in torch, 95 % paired intervals. Labelled images: {images}."
    )


def _gain_cells(result: Mapping[str, Any], name: str) -> list[str]:
    row = result["rows"].get(name)
    if row is None:
        return [NOT_RUN, "", ""]
    gain = row.get("gain")
    against = (
        ""
        if gain is None
        else f"{gain['estimate_points']:+.2f} [{gain['low_points']:+.2f}, {gain['high_points']:+.2f}]"
    )
    return [points(row["both"]["top1"]), against, f"{row['image_cosine_mean']:.5f}"]


def _method_rows(file: str, kind: str, what: str) -> str:
    results = {title: load(f"{file}-{name}") for name, title in MODELS.items()}
    names = dict.fromkeys(name for result in results.values() for name in result["rows"] if name.startswith(kind))
    rows = [
        [name.removeprefix(f"{kind} "), *(cell for result in results.values() for cell in _method_cells(result, name))]
        for name in names
    ]
    columns = [
        what,
        *(cell for title in MODELS.values() for cell in (f"{title}, top-1", "image cosine", "text cosine")),
    ]
    images = ", ".join(
        f"{title} {result['labelled_images']['preset' if kind == 'preset' else 'others']}"
        for title, result in results.items()
    )
    return markdown(columns, rows) + f"\n\nPoints, both towers, simulated in torch. Labelled images: {images}."


def _method_cells(result: Mapping[str, Any], name: str) -> list[str]:
    row = result["rows"].get(name)
    if row is None:
        return [NOT_RUN, "", ""]
    return [points(row["both"]["top1"]), f"{row['image_cosine_mean']:.5f}", f"{row['text_cosine_mean']:.5f}"]


def full_size() -> str:
    rows = []
    for name, found in load("full-size").items():
        shares = [share for part in found["components"].values() for share in part["integer_mac_share"].values()]
        rows.append(
            [
                name,
                found["recipe"],
                f"{found['bundle_bytes'] / 1e6:.1f}",
                f"{found['quantize_seconds']:.0f}",
                f"{found['peak_rss_bytes'] / 1e9:.2f}",
                f"{min(row['cosine_min'] for row in found['verify']):.5f}",
                f"{100 * min(shares):.1f} %",
                *_speedups(found.get("latency")),
            ]
        )
    columns = ["model, random weights", "recipe", "MB on disk", "seconds to quantize", "peak GB", "engines to stored"]
    return markdown([*columns, "MACs in INT8, least", "OpenVINO x torch FP32", "ONNX Runtime x torch FP32"], rows)


def _speedups(latency: Any) -> list[str]:
    if not latency:
        return ["", ""]
    return [_speedup(latency[name]) for name in ("bundle-openvino", "bundle-onnxruntime")]


def _speedup(row: Mapping[str, Any]) -> str:
    times, share, fast_share = row["speedup"]["median"], row.get("int8_mac_share"), row.get("fast_int8_mac_share")
    return f"{times:.2f}" if share == fast_share else f"{times:.2f}, INT8 MACs {int8_macs(share, fast_share)}"


def budget() -> str:
    rows = []
    for kind, found in load("budget-vit-b-32")["searches"].items():
        log = found["log"]
        chosen = next((one for one in log["tried"] if one["name"] == log["chosen"]), None)
        rows.append(
            [
                kind,
                f"{log['max_drop_points']:g} of {log['metric']}",
                f"{found['minutes']:.1f}",
                str(len(log["tried"])),
                log["chosen"] or "none inside",
                "" if chosen is None else f"{chosen['drop']['points']:.3f}",
                "" if log["held_out"] is None else f"{log['held_out']['points']:.3f}: {log['confirmed']}",
            ]
        )
    columns = ["ViT-B/32, random weights", "points allowed", "minutes", "tried", "chosen", "points lost", "held out"]
    return markdown(columns, rows)


def recovery() -> str:
    rows = [
        [
            title,
            recipe,
            points(found["without"]["top1"]),
            points(found["recovered"]["top1"]),
            str(found["facts"]["steps"]),
            f"{found['facts']['seconds'] / 60:.1f}",
        ]
        for file, title in RECOVERY.items()
        for recipe, found in load(file)["recipes"].items()
    ]
    columns = ["model", "recipe", "without, points of top-1", "recovered, points of top-1", "steps", "minutes"]
    return markdown(columns, rows)
