"""The figures of `blip-int8`: what the contenders answered, in rows and a chart."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from vlmquant.bench.measure import median, paired_ratio, quantile
from vlmquant.data.sets import CaptionedImages
from vlmquant.lab.reproduce.blip_int8.captions_worker import DYNAMIC, FLOAT, HALF, OURS
from vlmquant.lab.reproduce.outcome import Chart, Row
from vlmquant.lab.reproduce.sizes import smaller_files
from vlmquant.lab.reproduce.turns import MB, ratio_in_words
from vlmquant.tasks.captioning import compare_captions, score_captions
from vlmquant.tasks.compare import Change

SCORES = ("BLEU-4", "CIDEr")
LEAST_SHOWN = 0.0005
"""Smaller scores are 0.000 in the table."""
MEMORY_REMARK = (
    "of a contender's whole process; torch makes its INT8 from the float model in the same process, so both are in it"
)
SIZE_REMARK = (
    "248 is 990 / 4 and no measurement: the token table stays float, and the file that torch writes of the source's "
    "architecture has 323 MB"
)
BLEU_REMARK = (
    "the printed figures come from whichever library was installed; here from one implementation, equal to "
    "coco-caption's"
)

Turns: TypeAlias = Mapping[str, list[dict[str, Any]]]
"""What each contender answered, turn by turn."""


def rows(turns: Turns, data: CaptionedImages) -> tuple[Row, ...]:
    """Return every figure of the source, with ours beside it."""
    first = {name: found[0] for name, found in turns.items()}
    scored = {
        name: score_captions(name, found["captions"], data.captions, ids=data.ids, dataset=data.digest)
        for name, found in first.items()
    }
    changes = {
        name: {change.metric: change for change in compare_captions(found, scored[FLOAT])}
        for name, found in scored.items()
    }

    def before(what: str, printed: str, value: Callable[[str], str], remark: str = "") -> Row:
        return Row(what=f"FP32, {what}", printed=printed, its_method=value(FLOAT), remark=remark)

    def after(what: str, printed: str, value: Callable[[str], str], remark: str = "") -> Row:
        return Row(what=f"INT8, {what}", printed=printed, its_method=value(DYNAMIC), ours=value(OURS), remark=remark)

    def pair(what: str, printed: tuple[str, str], value: Callable[[str], str], remarks: tuple[str, str]) -> list[Row]:
        return [before(what, printed[0], value, remarks[0]), after(what, printed[1], value, remarks[1])]

    def score(metric: str) -> Callable[[str], str]:
        return lambda name: f"{changes[name][metric].candidate:.3f}"

    def change(metric: str) -> Callable[[str], str]:
        return lambda name: _change(changes[name][metric])

    none = ("", "")
    return (
        *pair("seconds an image, median", ("2.1", "1.3"), lambda name: _seconds(turns[name], 0.5), none),
        *pair("seconds an image, p95", none, lambda name: _seconds(turns[name], 0.95), none),
        after("times as fast", "1.6", lambda name: _ratio(turns, name)),
        *pair("images a second", ("0.48", "0.77"), lambda name: _per_second(turns[name]), none),
        *pair("peak memory in MB", ("1800", "900"), lambda name: _memory(turns[name]), ("", MEMORY_REMARK)),
        *pair(
            "MB on disk",
            ("990", "248"),
            lambda name: f"{first[name]['bytes_on_disk'] / MB:.1f}",
            (smaller_files(first[FLOAT]["bytes_on_disk"], first[FLOAT]["float32_bytes"]), SIZE_REMARK),
        ),
        *pair("BLEU-4", ("0.245", "0.238"), score("BLEU-4"), (BLEU_REMARK, "")),
        after("BLEU-4, change", "-2.9 %", change("BLEU-4")),
        *pair("CIDEr", none, score("CIDEr"), none),
        after("CIDEr, change", "", change("CIDEr")),
        after("captions equal to FP32's", "", lambda name: _equal(first[name], first[FLOAT])),
        *_half_rows(turns, changes),
    )


def _half_rows(turns: Turns, changes: Mapping[str, Mapping[str, Change]]) -> tuple[Row, ...]:
    what = f"{HALF}, seconds an image, median"
    if HALF not in turns:
        return (Row(what=what, printed="in words", its_method="not run: no CUDA here"),)
    half = [Row(what=what, printed="in words", its_method=_seconds(turns[HALF], 0.5))]
    half += [Row(what=f"{HALF}, {name}, change", its_method=_change(changes[HALF][name])) for name in SCORES]
    return tuple(half)


def chart(turns: Turns) -> Chart:
    """Return the seconds of every picture."""
    lines = {name: found[0]["seconds"] for name, found in turns.items()}
    return Chart(
        title="Seconds for each picture, first turn",
        x_label="picture",
        y_label="seconds",
        lines={name: (list(range(1, len(seconds) + 1)), seconds) for name, seconds in lines.items()},
    )


def _seconds(found: list[dict[str, Any]], q: float) -> str:
    return f"{quantile([one for turn in found for one in turn['seconds']], q):.3g}"


def _ratio(turns: Turns, name: str) -> str:
    base, other = ([median(turn["seconds"]) for turn in turns[each]] for each in (FLOAT, name))
    return ratio_in_words(paired_ratio(base, other))


def _per_second(found: list[dict[str, Any]]) -> str:
    return f"{median([len(turn['captions']) / turn['wall_seconds'] for turn in found]):.3g}"


def _memory(found: list[dict[str, Any]]) -> str:
    return f"{median([turn['peak_rss_bytes'] for turn in found]) / MB:.0f}"


def _change(change: Change) -> str:
    """Return the difference with its interval, and as a share of the reference where that is not shown as 0."""
    difference = change.difference
    share = f", {100 * change.relative:+.1f} %" if change.reference >= LEAST_SHOWN else ""
    return f"{difference.estimate:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]{share}"


def _equal(found: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    same = [a == b for a, b in zip(found["captions"], reference["captions"], strict=True)]
    return f"{sum(same)} of {len(same)}"
