"""Evaluations made without a model: pictures in memory, embeddings by hand."""

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from vlmquant.bench.environment import Environment
from vlmquant.bench.measure import Ratio
from vlmquant.bench.result import BenchResult, ContenderResult, Measurement
from vlmquant.data.images import EncodedImage, LazyImages
from vlmquant.data.sets import CaptionedImages, ImageSet, LabelledImages
from vlmquant.opening import ModelFacts
from vlmquant.tasks.classification import score_zero_shot
from vlmquant.tasks.compare import compare
from vlmquant.tasks.evaluate import Evaluation
from vlmquant.tasks.fidelity import Embedded, compare_embeddings
from vlmquant.tasks.retrieval import score_retrieval
from vlmquant.tasks.runs import Run, read_run, save_run

CLASSES = ("red", "green", "blue")
FLOAT = ModelFacts(name="clip", bytes_on_disk=4_000_000, bits={"image": (32, 32), "text": (32, 32)})
INT8 = ModelFacts(
    name="clip static-int8",
    bytes_on_disk=1_000_000,
    bits={"image": (8, 8), "text": (8, 8)},
    recipe="static-int8",
    calibrated_on="64 pictures",
)


class Named:
    """As much of an encoder as scoring asks for."""

    def __init__(self, name):
        self.name, self.logit_scale = name, 10.0


def pictures(count):
    refs = []
    for i in range(count):
        data = io.BytesIO()
        Image.new("RGB", (300, 200), ["red", "green", "blue"][i % 3]).save(data, format="PNG")
        refs.append(EncodedImage(data.getvalue()))
    return LazyImages(tuple(f"p/{i}.png" for i in range(count)), tuple(refs))


def unit(rows):
    rows = np.asarray(rows, dtype=np.float64)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def embeddings(count, noise):
    """Picture i points at axis i % 3, the texts at the three axes; `noise` turns picture 0 towards the wrong one."""
    images = np.eye(3)[np.arange(count) % 3] + 0.1
    images[0] += noise * np.array([-1.0, 1.0, 0.0])
    return unit(images), unit(np.eye(3) + 0.05)


def labelled_evaluation(count=12, noise=1.5, max_drop_points=0.5, with_reference=True):
    """Picture 0 flips from right to wrong where `noise` is above 0.5."""
    images = pictures(count)
    labels = np.arange(count) % 3
    data = LabelledImages(
        name="colours", images=images, digest="d" * 64, problems=(), labels=labels, class_names=CLASSES
    )
    return evaluation_of(data, embeddings(count, noise), embeddings(count, 0.0), max_drop_points, with_reference)


def captioned_evaluation(count=6, noise=1.5):
    images = pictures(count)
    captions = tuple((f"one {i}", f"two {i}") for i in range(count))
    data = CaptionedImages(name="told", images=images, digest="e" * 64, problems=(), captions=captions)
    rng = np.random.default_rng(1)
    rows = unit(rng.normal(size=(count, 8)))
    texts = unit(np.repeat(rows, 2, axis=0) + 0.05)
    other = rows.copy()
    other[0] = unit(rows[:1] + noise * rows[1:2])
    return evaluation_of(data, (other, texts), (rows, texts), None, True)


def plain_evaluation(count=6):
    """Pictures only: nothing but fidelity."""
    data = ImageSet(name="photos", images=pictures(count), digest="f" * 64, problems=())
    rows = unit(np.random.default_rng(2).normal(size=(count, 8)))
    return evaluation_of(data, (unit(rows + 0.01), None), (rows, None), None, True)


def evaluation_of(data, candidate, reference, max_drop_points, with_reference):
    sides = {}
    for name, (images, texts) in {"clip static-int8": candidate, "clip": reference}.items():
        embedded = Embedded(name=name, images=images, texts=texts, logit_scale=10.0)
        results = {}
        if isinstance(data, LabelledImages):
            scored = score_zero_shot(
                Named(name), images, texts, data.labels, data.class_names, ("{}",), ids=data.ids, dataset=data.digest
            )
            results["zero-shot"] = scored
        if isinstance(data, CaptionedImages):
            results["retrieval"] = score_retrieval(
                Named(name), images, texts, data.captions, ids=data.ids, dataset=data.digest
            )
        engine = "torch" if name == "clip" else "openvino"
        subject = {"engine": engine, "engine_version": "1.0"}
        sides[name] = embedded, {task: replace(result, subject=subject) for task, result in results.items()}
    (after, results), (before, expected) = sides["clip static-int8"], sides["clip"]
    return Evaluation(
        data=data,
        model=INT8,
        reference=FLOAT if with_reference else None,
        skipped={} if results else {"zero-shot": "there are no labels"},
        results=results,
        reference_results=expected if with_reference else {},
        comparisons={task: compare(results[task], expected[task], max_drop_points=max_drop_points) for task in results}
        if with_reference
        else {},
        fidelity=compare_embeddings(after, before, data.ids) if with_reference else None,
        embeddings=after,
        reference_embeddings=before if with_reference else None,
    )


def saved(folder, evaluation=None, model=INT8, reference=FLOAT) -> Run:
    evaluation = labelled_evaluation() if evaluation is None else evaluation
    save_run(folder, replace(evaluation, model=model, reference=evaluation.reference and reference))
    return read_run(folder)


def bench_result(model="clip static-int8"):
    def row(name, median):
        measured = Measurement(
            batch=1,
            input_shape=(1, 3, 8, 8),
            round_medians_ms=(median,),
            median_ms=median,
            p95_ms=median + 1,
            speedup=Ratio(1.0, 1.0, 1.0),
        )
        return ContenderResult(name=name, outcome="ran", measurements=(measured,))

    return BenchResult(
        model=model,
        component="image",
        random_weights=False,
        bundle_bytes=1_000_000,
        batches=(1,),
        rounds=1,
        iterations=1,
        threads=1,
        seed=0,
        environment=Environment(
            time_utc="2026-01-01T00:00:00+00:00",
            cpu_model="a CPU",
            cpu_features=("avx2",),
            cores=2,
            memory_bytes=1 << 33,
            system="Linux",
            python="3.11",
            packages={},
            load_average=(0.0, 0.0, 0.0),
        ),
        contenders=(row("torch-fp32", 12.0), row("bundle-openvino", 3.0)),
    )
