"""Tables of the README about CLIP: speed, accuracy and events."""

from benchmarks.tables.format import METRICS, load, markdown, points
from vlmquant.bench.result import RANDOM_WEIGHTS_SENTENCE
from vlmquant.bench.table import int8_macs

MODELS = {
    "accuracy-street": ("street CLIP, held-out scenes", ("top1", "image_to_text_r1", "text_to_image_r1")),
    "accuracy-real-tiny": (
        "clip-real-tiny, CIFAR-10 and Flickr8k",
        ("top1", "image_to_text_r10", "text_to_image_r10"),
    ),
}


CONTENDERS = {
    "torch-fp32": "torch float32, as transformers runs it",
    "torch-dynamic-int8": "torch `quantize_dynamic`",
    "torchscript-dynamic-int8": "torch `quantize_dynamic`, TorchScript",
    "onnxruntime-fp32": "ONNX Runtime float32",
    "openvino-fp32": "OpenVINO float32",
}
"""What the README's one table holds our bundle against."""


def headline() -> str:
    result = load("bench-vit-b-32-vnni")["image"]
    rows = {row["name"]: row for row in result["contenders"]}
    ours = f"**this bundle, on {result['auto'].removeprefix('bundle-')}**"
    table = []
    for name, title in {**CONTENDERS, result["auto"]: ours}.items():
        one = next(found for found in rows[name]["measurements"] if found["batch"] == 1)
        megabytes = f"{rows[name]['bytes_on_disk'] / 1e6:.0f}"
        table.append([title, f"{one['median_ms']:.1f}", f"{one['speedup']['median']:.2f}", megabytes])
    where = result["environment"]
    return (
        markdown(["CLIP ViT-B/32, one image", "ms", "times as fast", "MB of this tower"], table)
        + f"\n\n{where['cpu_model']} ({', '.join(where['cpu_features'])}), {result['threads']} threads, each in a "
        "process of its own, rounds alternated in one run; random weights, on which neither speed nor size depends."
    )


def bench(file: str = "bench-vit-b-32") -> str:
    result = load(file)["image"]
    rows = []
    for row in result["contenders"]:
        if row["outcome"] != "ran":
            rows.append([row["name"], row["reason"], "", "", "", ""])
            continue
        one = next(found for found in row["measurements"] if found["batch"] == 1)
        eight = next(found for found in row["measurements"] if found["batch"] == 8)
        share, fast_share = row["int8_mac_share"], row.get("fast_int8_mac_share")
        rows.append(
            [
                row["name"],
                f"{one['median_ms']:.1f}",
                f"{one['speedup']['median']:.2f}",
                f"{eight['speedup']['median']:.2f}",
                f"{row['bytes_on_disk'] / 2**20:.1f}",
                "" if share is None else int8_macs(share, fast_share),
            ]
        )
    columns = ["contender", "ms", "x torch FP32", "x at batch 8", "MiB on disk", "MACs in INT8 kernels"]
    where = result["environment"]
    return (
        markdown(columns, rows)
        + f"\n\nThe whole bundle, both towers, is {result['bundle_bytes'] / 2**20:.1f} MiB. {where['cpu_model']}, "
        f"{result['threads']} threads, {result['rounds']} rounds of {result['iterations']}."
        + "".join(f"\n\n{note.rstrip('.')}." for note in result["notes"] if note != RANDOM_WEIGHTS_SENTENCE)
    )


def accuracy() -> str:
    rows = []
    for file, (title, metrics) in MODELS.items():
        result = load(file)
        for recipe, found in result["recipes"].items():
            for metric in metrics:
                row = found["both"][metric]
                rows.append(
                    [
                        title,
                        recipe,
                        f"{METRICS[metric]}, n = {row['samples']}",
                        f"{100 * row['float']:.2f}",
                        f"{100 * row['int8']:.2f}",
                        points(row),
                    ]
                )
    return markdown(["model and data", "recipe (both towers)", "metric", "float %", "INT8 %", "points"], rows)


def events() -> str:
    result = load("events-street")
    before, after = result["results"]["float"], result["results"]["int8"]
    rows = [
        [name, str(row["true"]), f"{row['f1']:.2f}", f"{after['events'][name]['f1']:.2f}"]
        for name, row in before["events"].items()
    ]
    rows.append(
        [
            "**state events together**",
            str(sum(row["true"] for row in before["events"].values() if row["state"])),
            f"**{before['state_events_micro_f1']:.3f}**",
            f"**{after['state_events_micro_f1']:.3f}**",
        ]
    )
    seconds = result["video_seconds"]
    return (
        markdown(["event", "true events", "F1 float", "F1 INT8"], rows)
        + f"\n\n{result['videos']} videos, {seconds / 60:.0f} minutes, {result['fps']:g} frames per second looked at."
    )
