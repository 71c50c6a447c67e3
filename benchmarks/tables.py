"""Writes the tables of README.md and docs/results.md from the committed results; `--check` only compares.

python benchmarks/tables.py
"""

import argparse
import re
import sys
from collections.abc import Callable

import tables_methods
import tables_portable
from tables_format import NOT_RUN, ROOT, change, load, markdown, points

from vlmquant.bench.result import RANDOM_WEIGHTS_SENTENCE
from vlmquant.bench.table import int8_macs

PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md")
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
        + "".join(f"\n\n{note}." for note in result["notes"] if note != RANDOM_WEIGHTS_SENTENCE)
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
    fast = result.get("fast_int8_mac_share", {})
    shares = "; ".join(
        f"{graph} "
        + ", ".join(
            f"{int8_macs(share, fast.get(graph, {}).get(engine))} on {engine}" for engine, share in engines.items()
        )
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
                f"{100 * written['against_float']['CIDEr']['candidate']:.1f}" if written else NOT_RUN,
                change(written["against_float"]["CIDEr"]) if written else "",
            ]
        )
    columns = ["CLIP under it", "VQA accuracy", "points", "CIDEr of steered captions", "points"]
    return markdown(columns, rows)


TABLES: dict[str, Callable[[], str]] = {
    "bench": bench,
    "bench_zen4": lambda: bench("bench-vit-b-32-zen4"),
    "accuracy": accuracy,
    "events": events,
    "peers": tables_methods.peers,
    "peers_speed": tables_methods.peers_speed,
    "stress": tables_methods.stress,
    "methods": tables_methods.methods,
    "ablation": tables_methods.ablation,
    "full_size": tables_methods.full_size,
    "budget": tables_methods.budget,
    "recovery": tables_methods.recovery,
    "blip": blip,
    "blip_accuracy": blip_accuracy,
    "language": language,
    "portability": tables_portable.portability,
    "portable": tables_portable.portable,
}


def filled(text: str) -> str:
    for name, make in TABLES.items():
        start, end = f"<!-- table:{name} -->", "<!-- /table -->"
        if start in text:
            pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
            text = pattern.sub(lambda _, start=start, end=end, make=make: f"{start}\n{make()}\n{end}", text, count=1)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = filled(before)
        if not arguments.check:
            page.write_text(after, encoding="utf-8")
        elif before != after:
            sys.exit(f"{page.name}'s tables differ from benchmarks/results; run: python benchmarks/tables.py")


if __name__ == "__main__":
    main()
