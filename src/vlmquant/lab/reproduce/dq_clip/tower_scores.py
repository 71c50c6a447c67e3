"""The scores of `dq-clip`: each tower is encoded once per contender, and combinations are scored from that."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from vlmquant.data.sets import LabelledImages
from vlmquant.lab.reproduce.dq_clip.quantized_towers import EVERY_LINEAR
from vlmquant.lab.reproduce.dq_clip.towers_worker import DYNAMIC, FLOAT, OURS, TOKENS
from vlmquant.lab.reproduce.kept import Kept
from vlmquant.metrics.ranking import rank_classes
from vlmquant.models.encoder import DualEncoder
from vlmquant.models.spec import FloatArray
from vlmquant.progress import Track
from vlmquant.tasks.classification import top_outcomes
from vlmquant.tasks.compare import Comparison, compare_outcomes
from vlmquant.tasks.embeddings import features_of, unit_rows
from vlmquant.tasks.encode import class_rows, encode_texts
from vlmquant.tasks.linear_probe import linear_probe, split_by_id
from vlmquant.tasks.result import Outcomes
from vlmquant.tasks.store import Store
from vlmquant.tasks.templates import get_templates

TEMPLATE_SETS = ("openai-7", "openai-80")
COMBINATIONS = ("image", "text", "both")
"""Which towers are in INT8."""

ZeroShot: TypeAlias = Mapping[tuple[str, str, str, str], Comparison]
"""By template set, metric, contender and combination."""


@dataclass(frozen=True, eq=False)
class TowerRows:
    """What one contender makes of the data: features (n, d) of pictures, not normalized, and unit rows of prompts."""

    images: FloatArray
    prompts: FloatArray


def prompts_of(class_names: Sequence[str]) -> list[str]:
    """Return every prompt of all template sets once."""
    templates = dict.fromkeys(template for name in TEMPLATE_SETS for template in get_templates(name))
    return list(dict.fromkeys(template.replace("{}", name) for name in class_names for template in templates))


def encoded(kept: Kept, name: str, opened: Callable[[], DualEncoder], data: LabelledImages, track: Track) -> TowerRows:
    """Return the rows of the contender called `name`; what was encoded before is read from disk."""
    store, prompts, encoder = Store(kept.place / "embeddings"), prompts_of(data.class_names), cache(opened)

    def rows() -> TowerRows:
        images = store.rows(
            {"of": "images", "contender": name},
            len(data),
            lambda start, stop: features_of(encoder(), data.images[start:stop]),
            description=f"Pictures, {name}",
            track=track,
        )
        texts = store.rows(
            {"of": "prompts", "contender": name},
            len(prompts),
            lambda start, stop: encode_texts(encoder(), prompts[start:stop], prompts[start:stop]),
            description=f"Prompts, {name}",
            track=track,
        )
        return TowerRows(images, texts)

    kept.once(f"embeddings {name}", lambda: {"images": len(rows().images), "prompts": len(prompts)})
    return rows()


def class_matrix(rows: TowerRows, data: LabelledImages, templates: str) -> FloatArray:
    """Return unit rows (classes, d): each class by the prompts of a template set."""
    position = {prompt: index for index, prompt in enumerate(prompts_of(data.class_names))}
    chosen = [
        position[template.replace("{}", name)] for name in data.class_names for template in get_templates(templates)
    ]
    return class_rows(rows.prompts[chosen], len(data.class_names))


def zero_shot_scores(found: Mapping[str, TowerRows], data: LabelledImages) -> ZeroShot:
    """Compare every contender in every combination with FP32, by template set and metric."""
    images = {name: unit_rows(rows.images, data) for name, rows in found.items()}
    scored: dict[tuple[str, str, str, str], Comparison] = {}
    for templates in TEMPLATE_SETS:
        classes = {name: class_matrix(rows, data, templates) for name, rows in found.items()}

        def outcomes(image: str, text: str, classes: Mapping[str, FloatArray] = classes) -> dict[str, Outcomes]:
            ranks = rank_classes(images[image] @ classes[text].T, data.labels)
            return top_outcomes(ranks, data.class_names, data.ids)

        reference = outcomes(FLOAT, FLOAT)
        for name in found:
            pairs = {"image": (name, FLOAT), "text": (FLOAT, name), "both": (name, name)}
            for combination, (image, text) in pairs.items():
                for metric, values in outcomes(image, text).items():
                    key = (templates, metric, name, combination)
                    scored[key] = compare_outcomes(metric, values, reference[metric])
    return scored


def probe_scores(
    kept: Kept, found: Mapping[str, TowerRows], data: LabelledImages, track: Track
) -> dict[str, Comparison]:
    """Fit a regression on the image features of every contender and compare its top-1 with that on FP32's."""

    def fitted(name: str) -> Outcomes:
        step = kept.once(f"linear probe {name}", lambda: _probe(name, found[name], data, track))
        ids = tuple(step["ids"])
        return Outcomes(ids=ids, clusters=ids, values=np.array(step["values"]), answers=tuple(step["answers"]))

    outcomes = {name: fitted(name) for name in (FLOAT, DYNAMIC, EVERY_LINEAR, TOKENS, OURS)}
    return {name: compare_outcomes("top1", values, outcomes[FLOAT]) for name, values in outcomes.items()}


def _probe(name: str, rows: TowerRows, data: LabelledImages, track: Track) -> dict[str, Any]:
    result = linear_probe(
        rows.images,
        data.labels,
        split_by_id(data.ids, data.labels),
        data.class_names,
        ids=data.ids,
        dataset=data.digest,
        model=name,
        track=track,
    )
    top1 = result.outcomes["top1"]
    return {"ids": top1.ids, "values": top1.values.tolist(), "answers": top1.answers}
