"""What all result tables share: reading a committed result, Markdown, and a change with its interval."""

import json
from collections.abc import Sequence
from typing import Any

from benchmarks.results import RESULTS

METRICS = {
    "top1": "zero-shot top-1",
    "image_to_text_r1": "image to text R@1",
    "image_to_text_r10": "image to text R@10",
    "text_to_image_r1": "text to image R@1",
    "text_to_image_r10": "text to image R@10",
}
# What stands in a cell where a result has nothing to say.
NOT_RUN = "not run"


def load(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def points(row: Any) -> str:
    return f"{row['difference_points']:+.2f} [{row['low_points']:+.2f}, {row['high_points']:+.2f}]"


def change(row: Any) -> str:
    difference = row["difference"]
    estimate, low, high = (100 * difference[name] for name in ("estimate", "low", "high"))
    return f"{estimate:+.2f} [{low:+.2f}, {high:+.2f}]"
