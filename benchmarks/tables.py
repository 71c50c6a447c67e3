"""Writes the README's tables from the committed results; `--check` only says whether they are up to date.

python benchmarks/tables.py
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
METRICS = {
    "top1": "zero-shot top-1",
    "image_to_text_r1": "image to text R@1",
    "text_to_image_r1": "text to image R@1",
    "image_to_text_r10": "image to text R@10",
    "text_to_image_r10": "text to image R@10",
}
MODELS = {
    "accuracy-street": ("street CLIP, held-out scenes", ("top1", "image_to_text_r1", "text_to_image_r1")),
    "accuracy-real-tiny": (
        "clip-real-tiny, CIFAR-10 and Flickr8k",
        ("top1", "image_to_text_r10", "text_to_image_r10"),
    ),
}
PEERS = {
    "peers-real-tiny": MODELS["accuracy-real-tiny"],
    "peers-street": MODELS["accuracy-street"],
    "peers-stress-real-tiny": ("clip-real-tiny with outliers", MODELS["accuracy-real-tiny"][1]),
    "peers-stress-street": ("street CLIP with outliers", MODELS["accuracy-street"][1]),
}
STRESS = {
    "stress-real-tiny": ("clip-real-tiny with outliers", ("top1", "text_to_image_r10")),
    "stress-street": ("street CLIP with outliers", ("top1", "text_to_image_r1")),
}


def load(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def bench() -> str:
    result = load("bench-vit-b-32")["image"]
    rows = []
    for row in result["contenders"]:
        if row["outcome"] != "ran":
            rows.append([row["name"], row["reason"], "", "", "", ""])
            continue
        one = next(found for found in row["measurements"] if found["batch"] == 1)
        eight = next(found for found in row["measurements"] if found["batch"] == 8)
        share = row["int8_mac_share"]
        rows.append(
            [
                row["name"],
                f"{one['median_ms']:.1f}",
                f"{one['speedup']['median']:.2f}",
                f"{eight['speedup']['median']:.2f}",
                f"{row['bytes_on_disk'] / 2**20:.1f}",
                "" if share is None else f"{100 * share:.1f} %",
            ]
        )
    columns = ["contender", "ms", "x torch FP32", "x at batch 8", "MiB on disk", "MACs in INT8 kernels"]
    where = result["environment"]
    return (
        markdown(columns, rows)
        + f"\n\nThe whole bundle, both towers, is {result['bundle_bytes'] / 2**20:.1f} MiB. {where['cpu_model']}, "
        f"{result['threads']} threads, {result['rounds']} rounds of {result['iterations']}."
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


def peers() -> str:
    rows = []
    for file, (title, metrics) in PEERS.items():
        for name, row in load(file)["contenders"].items():
            if row["outcome"] == "ran":
                found = [points(row["both"][metric]) for metric in metrics]
                rows.append([title, name, *found, f"{row['bytes_on_disk'] / 2**20:.1f}"])
            else:
                rows.append([title, name, f"{row['outcome']}: {row['reason']}", "", "", ""])
    where = ", ".join(f"{title} R@{metrics[1].rpartition('r')[2]}" for title, metrics in PEERS.values())
    columns = ["model and data", "both towers by", "zero-shot top-1", "image to text", "text to image", "MiB"]
    return markdown(columns, rows) + f"\n\nPoints against the float model; retrieval by {where}."


def peers_speed() -> str:
    result = load("peers-vit-b-32")
    rows = []
    for name, image in result["image"].items():
        text = result["text"][name]
        rows.append([name, *(cell for row in (image, text) for cell in speed_cells(row))])
    where = result["environment"]
    columns = ["contender", "image, ms", "ours is faster by", "text, ms", "ours is faster by"]
    return (
        markdown(columns, rows) + f"\n\n{result['model']}, batch 1, {where['cpu_model']}, {result['threads']} threads, "
        f"{result['rounds']} rounds of {result['iterations']}; ours is static-int8 on OpenVINO."
    )


def speed_cells(row: Any) -> list[str]:
    if row["outcome"] != "ran":
        return [f"{row['outcome']}: {row['reason']}", ""]
    one = row["batches"]["1"]
    return [f"{one['median_ms']:.2f}", f"{one['ours_is_faster_by']['median']:.2f}"]


def stress() -> str:
    rows = []
    for file, (title, metrics) in STRESS.items():
        for recipe, found in load(file)["recipes"].items():
            for metric in metrics:
                row = found["both"][metric]
                label = f"{METRICS[metric]}, n = {row['samples']}"
                rows.append(
                    [title, recipe, label, f"{100 * row['float']:.2f}", f"{100 * row['int8']:.2f}", points(row)]
                )
    return markdown(["model and data", "recipe (both towers)", "metric", "float %", "INT8 %", "points"], rows)


def points(row: Any) -> str:
    return f"{row['difference_points']:+.2f} [{row['low_points']:+.2f}, {row['high_points']:+.2f}]"


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


def blip() -> str:
    result = load("bench-blip-base")
    greedy, beams, vision = (result["phases"][phase] for phase in ("beam-1", "beam-3", "vision"))
    rows = []
    for name, row in greedy.items():
        rows.append(
            [
                name,
                *(f"{found[name]['ms_per_image_median']:.0f}" for found in (greedy, vision)),
                f"{result['ms_per_token'][name]:.1f}",
                *(f"{found[name]['times_as_fast']['median']:.2f}" for found in (greedy, beams)),
                f"{row['peak_rss_bytes'] / 2**20:.0f}",
                f"{row['bytes_on_disk'] / 1e6:.0f}",
            ]
        )
    shares = "; ".join(
        f"{graph} {', '.join(f'{100 * share:.1f} % on {engine}' for engine, share in engines.items())}"
        for graph, engines in result["int8_mac_share"].items()
    )
    recipes = ", ".join(f"{component} {recipe}" for component, recipe in result["recipes"].items())
    columns = [
        "contender",
        "ms per image",
        "vision ms",
        "ms per token",
        "x greedy",
        "x 3 beams",
        "peak MiB",
        "MB on disk",
    ]
    return (
        markdown(columns, rows)
        + f"\n\nRandom weights, {result['tokens']} forced tokens, {recipes}, {result['environment']['cpu_model']}, "
        f"{result['threads']} threads, {result['rounds']} rounds. MACs in INT8 kernels: {shares}."
    )


def blip_accuracy() -> str:
    result = load("blip-street")
    rows = []
    for mix, found in result["mixes"].items():
        captions, answers = found["captioning"], found["vqa"]
        rows.append(
            [
                mix,
                *(change(captions["changes"][metric]) for metric in ("CIDEr", "BLEU-4")),
                change(answers["changes"]["vqa_accuracy"]),
                *(
                    f"{100 * part['equal_tokens']:.1f} / {part['bundle_bytes'] / 1e6:.1f}"
                    for part in (captions, answers)
                ),
            ]
        )
    (first,) = list(result["mixes"].values())[:1]
    before = ", ".join(
        f"{metric} {100 * part['changes'][metric]['reference']:.1f}"
        for part, metrics in ((first["captioning"], ("CIDEr", "BLEU-4")), (first["vqa"], ("vqa_accuracy",)))
        for metric in metrics
    )
    columns = ["recipe", "CIDEr", "BLEU-4", "VQA accuracy", "captions: equal tokens % / MB", "answers: the same"]
    return markdown(columns, rows) + (
        f"\n\nPoints against the float models ({before}); {result['pictures']['captioning']} captioned pictures, "
        f"questions about {result['pictures']['vqa']}."
    )


def language() -> str:
    guided, coattention = load("guided-street"), load("coattention-street")
    rows = []
    for recipe, row in coattention["recipes"].items():
        written = guided["recipes"].get(recipe)
        rows.append(
            [
                recipe,
                f"{100 * row['against_float']['vqa_accuracy']['candidate']:.1f}",
                change(row["against_float"]["vqa_accuracy"]),
                f"{100 * written['against_float']['CIDEr']['candidate']:.1f}" if written else "not run",
                change(written["against_float"]["CIDEr"]) if written else "",
            ]
        )
    columns = ["CLIP under it", "VQA accuracy", "points", "CIDEr of steered captions", "points"]
    return markdown(columns, rows)


def change(row: Any) -> str:
    difference = row["difference"]
    estimate, low, high = (100 * difference[name] for name in ("estimate", "low", "high"))
    return f"{estimate:+.2f} [{low:+.2f}, {high:+.2f}]"


TABLES: dict[str, Callable[[], str]] = {
    "bench": bench,
    "accuracy": accuracy,
    "events": events,
    "peers": peers,
    "peers_speed": peers_speed,
    "stress": stress,
    "blip": blip,
    "blip_accuracy": blip_accuracy,
    "language": language,
}


def filled(text: str) -> str:
    for name, make in TABLES.items():
        start, end = f"<!-- table:{name} -->", "<!-- /table -->"
        pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
        text = pattern.sub(lambda _, start=start, end=end, make=make: f"{start}\n{make()}\n{end}", text, count=1)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    path = ROOT / "README.md"
    before = path.read_text(encoding="utf-8")
    after = filled(before)
    if arguments.check:
        if before != after:
            sys.exit("README.md's tables differ from benchmarks/results; run: python benchmarks/tables.py")
        return
    path.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
