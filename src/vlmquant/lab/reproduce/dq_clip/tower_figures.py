"""The figures of `dq-clip`: as the source prints them, and what the contenders scored, took and weigh."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from vlmquant.bench.measure import median, paired_ratio
from vlmquant.bundle.manifest import Manifest
from vlmquant.lab.reproduce.dq_clip.quantized_towers import EVERY_LINEAR
from vlmquant.lab.reproduce.dq_clip.tower_scores import COMBINATIONS, TEMPLATE_SETS, ZeroShot
from vlmquant.lab.reproduce.dq_clip.towers_worker import DYNAMIC, EAGER, ENGINE, FLOAT, OURS, SCRIPT, TOKENS
from vlmquant.lab.reproduce.outcome import Row
from vlmquant.lab.reproduce.turns import ratio_in_words
from vlmquant.tasks.compare import Comparison
from vlmquant.tasks.templates import get_templates

MIB = 2**20
METRICS = {"top1": "top-1", "top5": "top-5"}
ZERO_SHOT_REMARK = (
    "the printed figure is the level of CIFAR-10's ten classes: LAION's CLIP_benchmark has the same for the source's "
    "checkpoint there, and far less on CIFAR-100"
)
SIZE_REMARK = (
    "the source's MB are MiB of the saved state with only the MLPs in INT8, as here: its attention is one "
    "nn.MultiheadAttention, which torch does not swap"
)
MS_REMARK = "the source does not say on what; no CPU sees a picture with this model in that time"


@dataclass(frozen=True, kw_only=True)
class PrintedTowers:
    """What the source prints of one checkpoint: by combination of INT8 towers, "" for none; accuracies in percent."""

    mebibytes: Mapping[str, str]
    top1: Mapping[str, str]
    top5: Mapping[str, str]
    probe: Mapping[str, str]
    ms: Mapping[str, str]


PRINTED: dict[str, PrintedTowers] = {
    "B/32": PrintedTowers(
        mebibytes={"": "577.18", "image": "415.20", "text": "505.20", "both": "343.22"},
        top1={"": "89.74", "image": "86.88", "text": "88.51", "both": "84.98"},
        top5={"": "99.55", "image": "99.06", "text": "99.39", "both": "99.08"},
        probe={"": "79.69", "image": "77.21"},
        ms={"": "0.2061", "image": "0.2114"},
    ),
    "B/16": PrintedTowers(
        mebibytes={"": "570.86", "image": "408.88", "text": "498.88", "both": "336.90"},
        top1={"": "90.83", "image": "61.60", "text": "89.75", "both": "56.13"},
        top5={"": "99.44", "image": "94.64", "text": "99.23", "both": "91.61"},
        probe={"": "82.31", "image": "67.76"},
        ms={"": "0.2073", "image": "0.2083"},
    ),
}
PATCHES = {32: "B/32", 16: "B/16"}


def printed_for(patch: int | None) -> tuple[str, ...]:
    """Return which of `PRINTED` is nearest to a model of this patch size in pixels; all where it has none."""
    if patch is None:
        return tuple(PRINTED)
    return (PATCHES[min(PATCHES, key=lambda known: abs(known - patch))],)


def printed_cell(names: tuple[str, ...], figure: Callable[[PrintedTowers], Mapping[str, str]], of: str) -> str:
    """Return one printed figure, of several checkpoints each with its name."""
    found = {name: figure(PRINTED[name]).get(of, "") for name in names}
    return ", ".join(text if len(names) == 1 else f"{text} ({name})" for name, text in found.items() if text)


def zero_shot_rows(title: str, names: tuple[str, ...], scores: ZeroShot) -> Iterator[Row]:
    """Yield top-1 and top-5 of every contender and combination, a table for each template set."""
    for templates in TEMPLATE_SETS:
        group = f"{title}: zero-shot, {len(get_templates(templates))} templates"
        for metric, word in METRICS.items():
            if (templates, metric, FLOAT, "both") not in scores:
                continue
            found = {key[2:]: value for key, value in scores.items() if key[:2] == (templates, metric)}
            printed = {of: printed_cell(names, attrgetter(metric), of) for of in ("", *COMBINATIONS)}
            yield Row(
                what=f"FP32, {word} %",
                group=group,
                printed=printed[""],
                its_method=f"{100 * found[FLOAT, 'both'].reference:.2f}",
                remark=ZERO_SHOT_REMARK if metric == "top1" else "",
            )
            for of in COMBINATIONS:
                yield Row(
                    what=f"{of} in INT8, {word} %",
                    group=group,
                    printed=printed[of],
                    its_method=changed(found[DYNAMIC, of]),
                    ours=changed(found[OURS, of]),
                )
            for of in COMBINATIONS:
                yield Row(
                    what=f"{of} in INT8, {word} % (torch: every Linear; ours: dynamic-int8)",
                    group=group,
                    its_method=changed(found[EVERY_LINEAR, of]),
                    ours=changed(found[TOKENS, of]),
                )


def probe_rows(title: str, names: tuple[str, ...], scores: Mapping[str, Comparison] | str) -> Iterator[Row]:
    """Yield the accuracy of regressions on the image features; or why there are none."""
    group = f"{title}: linear probe on image features"
    printed = {of: printed_cell(names, lambda one: one.probe, of) for of in ("", "image")}
    if isinstance(scores, str):
        yield Row(what="FP32, top-1 %", group=group, printed=printed[""], its_method="not run", remark=scores)
        yield Row(
            what="image in INT8, top-1 %", group=group, printed=printed["image"], its_method="not run", ours="not run"
        )
        return
    yield Row(what="FP32, top-1 %", group=group, printed=printed[""], its_method=f"{100 * scores[FLOAT].reference:.2f}")
    yield Row(
        what="image in INT8, top-1 %",
        group=group,
        printed=printed["image"],
        its_method=changed(scores[DYNAMIC]),
        ours=changed(scores[OURS]),
    )
    yield Row(
        what="image in INT8, top-1 % (torch: every Linear; ours: dynamic-int8)",
        group=group,
        its_method=changed(scores[EVERY_LINEAR]),
        ours=changed(scores[TOKENS]),
    )


def cost_rows(title: str, names: tuple[str, ...], turns: Mapping[str, list[dict[str, Any]]]) -> Iterator[Row]:
    """Yield bytes and milliseconds of every contender."""
    rows = (*_size_rows(names, {name: found[0] for name, found in turns.items()}), *_time_rows(names, turns))
    for row in rows:
        yield replace(row, group=f"{title}: size and time")


def _size_rows(names: tuple[str, ...], first: Mapping[str, Mapping[str, Any]]) -> Iterator[Row]:
    whole = first[FLOAT]["bytes"]

    def mebibytes(name: str, of: str) -> str:
        quantized = COMBINATIONS[:2] if of == "both" else (of,)
        towers = {tower: first[name]["bytes"][tower] if tower in quantized else whole[tower] for tower in whole}
        return f"{(sum(towers.values()) + first[name].get('other_bytes', 0)) / MIB:.2f}"

    yield Row(
        what="FP32, MiB",
        printed=printed_cell(names, lambda one: one.mebibytes, ""),
        its_method=mebibytes(FLOAT, "both"),
        remark=SIZE_REMARK,
    )
    for of in COMBINATIONS:
        yield Row(
            what=f"{of} in INT8, MiB",
            printed=printed_cell(names, lambda one: one.mebibytes, of),
            its_method=mebibytes(DYNAMIC, of),
            ours=mebibytes(OURS, of),
            remark="ours with tokenizer and settings; a float tower as torch saves it" if of == "image" else "",
        )
    for of in COMBINATIONS:
        yield Row(what=f"{of} in INT8, MiB (ours: dynamic-int8)", ours=mebibytes(TOKENS, of))
    yield Row(what="image tower as a TorchScript, FP32, MiB", its_method=f"{first[FLOAT]['script_bytes'] / MIB:.2f}")
    yield Row(what="image tower as a TorchScript, INT8, MiB", its_method=f"{first[DYNAMIC]['script_bytes'] / MIB:.2f}")


def _time_rows(names: tuple[str, ...], turns: Mapping[str, list[dict[str, Any]]]) -> Iterator[Row]:
    def by_turn(name: str, how: str) -> list[float]:
        return [median(turn["ms"][how]) for turn in turns[name]]

    def ms(name: str, how: str) -> str:
        return f"{median(by_turn(name, how)):.2f}"

    def faster(name: str, how: str) -> str:
        return ratio_in_words(paired_ratio(by_turn(FLOAT, EAGER), by_turn(name, how)))

    yield Row(
        what="FP32, ms",
        printed=printed_cell(names, lambda one: one.ms, ""),
        its_method=ms(FLOAT, EAGER),
        remark=MS_REMARK,
    )
    yield Row(
        what="image in INT8, ms",
        printed=printed_cell(names, lambda one: one.ms, "image"),
        its_method=ms(DYNAMIC, EAGER),
        ours=ms(OURS, ENGINE),
        remark="slower than FP32 in the source",
    )
    yield Row(what="image in INT8, ms (ours: dynamic-int8)", ours=ms(TOKENS, ENGINE))
    yield Row(what="FP32 as a TorchScript, ms", printed="in words", its_method=ms(FLOAT, SCRIPT))
    yield Row(what="image in INT8 as a TorchScript, ms", printed="in words", its_method=ms(DYNAMIC, SCRIPT))
    yield Row(what="times as fast as FP32", its_method=faster(DYNAMIC, EAGER), ours=faster(OURS, ENGINE))
    yield Row(
        what="times as fast as FP32 (torch: TorchScript; ours: dynamic-int8)",
        its_method=faster(DYNAMIC, SCRIPT),
        ours=faster(TOKENS, ENGINE),
    )


def layer_rows(title: str, layers: Mapping[str, Mapping[str, Any]], ours: Mapping[str, float]) -> Iterator[Row]:
    """Yield what torch's 7 bits do to each tower and to its worst layers; `ours` is what static-int8 does to it."""
    group = f"{title}: why a tower collapses"
    for component, found in layers.items():
        yield Row(
            what=f"{component} tower with every Linear in INT8, 1 - cosine",
            group=group,
            printed="in words",
            its_method=f"{found['damage']:.5f}",
            ours=f"{ours[component]:.5f}",
        )
        for layer in found["layers"][:3]:
            yield Row(
                what=f"{layer['site']} alone, 1 - cosine",
                group=group,
                its_method=f"{layer['damage']:.5f}",
                remark=f"one value in 10,000 takes {100 * layer['outliers']:.1f} % of the range of its input",
            )


def changed(found: Comparison) -> str:
    """Return a score in percent, with its difference to FP32 in points and the 95 % interval of that."""
    points = [100 * one for one in (found.difference.estimate, found.difference.low, found.difference.high)]
    return f"{100 * found.candidate:.2f} ({points[0]:+.2f} [{points[1]:+.2f}, {points[2]:+.2f}])"


def share_row(what: str, bundle: Manifest, component: str) -> Row:
    """Return the share of a component's multiply-accumulates that run in INT8 kernels, by engine."""
    shares = bundle.components[component].integer_mac_share
    return Row(
        what=f"{what}: multiply-accumulates in INT8 kernels",
        group="Static quantization, which failed in the source",
        printed="failed",
        ours=", ".join(f"{100 * share:.2f} % ({engine})" for engine, share in shares.items()),
        remark=f"{bundle.files[bundle.components[component].file].bytes / MIB:.2f} MiB",
    )
