"""Tables of what needs language: BLIP, and the tasks over a CLIP."""

from benchmarks.tables.format import NOT_RUN, change, load, markdown
from vlmquant.bench.table import int8_macs


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
