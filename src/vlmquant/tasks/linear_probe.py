"""Linear probe: a logistic regression on frozen image features, its strength chosen on a validation split."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmquant.data.sets import ImageSet, LabelledImages
from vlmquant.errors import DataError
from vlmquant.metrics.classification import confusion_matrix, per_class_recall
from vlmquant.metrics.ranking import rank_classes
from vlmquant.models.spec import FloatArray, IdArray
from vlmquant.progress import Track, silent
from vlmquant.tasks.classification import top_outcomes
from vlmquant.tasks.protocol import Protocol, list_digest
from vlmquant.tasks.result import TaskResult
from vlmquant.tasks.task import Work

COARSE_EXPONENTS = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)
HALVINGS = 4
FEWEST_PER_CLASS = 5
MAX_ITERATIONS = 1000
TRAIN_SHARE, VALIDATION_SHARE = 0.6, 0.2
MISSING = "scikit-learn is not installed; install it with: pip install 'vlmquant[probe]'"


@dataclass(frozen=True)
class Split:
    """Three disjoint index arrays (int64) over the samples."""

    train: IdArray
    validation: IdArray
    test: IdArray


def split_by_id(ids: Sequence[str], labels: IdArray) -> Split:
    """Split each class 60/20/20 in the order of the ids' sha256: the same ids always fall into the same parts.

    Raises DataError when a class has fewer than five samples.
    """
    order = np.array([hashlib.sha256(name.encode()).hexdigest() for name in ids])
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < FEWEST_PER_CLASS:
            raise DataError(f"class {label} has {len(members)} images; a linear probe needs {FEWEST_PER_CLASS}")
        members = members[np.argsort(order[members], kind="stable")]
        first, second = round(TRAIN_SHARE * len(members)), round((TRAIN_SHARE + VALIDATION_SHARE) * len(members))
        for part, chosen in zip(parts, np.split(members, [first, second]), strict=True):
            part.extend(chosen.tolist())
    train, validation, test = (np.array(sorted(part), dtype=np.int64) for part in parts)
    return Split(train, validation, test)


def linear_probe(
    features: FloatArray,
    labels: IdArray,
    split: Split,
    class_names: Sequence[str],
    *,
    ids: Sequence[str],
    dataset: str,
    model: str,
    track: Track = silent,
) -> TaskResult:
    """Score (n, d) un-normalized image features on `split.test`, trained on the other two parts.

    The inverse strength C is chosen by validation accuracy, on a coarse grid 1e-6 ... 1e6 and then by halving the
    steps around the best down to an eighth of a decade; the final fit uses train and validation. scikit-learn's
    LogisticRegression, L-BFGS, at most 1,000 iterations, as in Radford et al. 2021, A.3. Raises DataError for fewer
    than two classes and without scikit-learn.
    """
    if len(np.unique(labels)) < 2:
        raise DataError("a linear probe needs images of at least two classes")
    best, accuracies = _choose_exponent(features, labels, split, track)
    both = np.sort(np.concatenate([split.train, split.validation]))
    regression, converged = _fit(features[both], labels[both], best)
    scores = _class_scores(regression, features[split.test], len(class_names))
    ranks = rank_classes(scores, labels[split.test])
    kept = tuple(ids[i] for i in split.test)
    return TaskResult(
        model=model,
        protocol=Protocol(
            task="linear-probe",
            dataset=dataset,
            samples=len(kept),
            settings=(
                ("classes", list_digest(class_names)),
                ("split", f"{len(split.train)}/{len(split.validation)}/{len(split.test)}-{list_digest(kept)}"),
                ("features", "un-normalized"),
                ("classifier", "logistic-lbfgs-1000"),
            ),
        ),
        outcomes=top_outcomes(ranks, class_names, kept),
        details={
            "C": 10.0**best,
            "validation_accuracy": {f"{10.0**exponent:.6g}": value for exponent, value in sorted(accuracies.items())},
            "converged": converged,
            "classes": list(class_names),
            "per_class_recall": per_class_recall(ranks.hits(1), labels[split.test], len(class_names)),
            "confusion": confusion_matrix(labels[split.test], ranks.best, len(class_names)).tolist(),
        },
    )


def _choose_exponent(
    features: FloatArray, labels: IdArray, split: Split, track: Track
) -> tuple[float, dict[float, float]]:
    accuracies: dict[float, float] = {}

    def try_all(exponents: Sequence[float], description: str) -> float:
        for exponent in track(exponents, description, len(exponents)):
            if exponent not in accuracies:
                regression, _ = _fit(features[split.train], labels[split.train], exponent)
                right = regression.predict(features[split.validation]) == labels[split.validation]
                accuracies[exponent] = float(right.mean())
        # Of equally good strengths the strongest regularization, so that the choice does not hang on the grid's order.
        return min(accuracies, key=lambda exponent: (-accuracies[exponent], exponent))

    best = try_all(COARSE_EXPONENTS, "Linear probe: coarse")
    step = 1.0
    for halving in range(HALVINGS):
        best = try_all((best - step, best + step), f"Linear probe: finer {halving + 1}/{HALVINGS}")
        step /= 2
    return best, accuracies


def _fit(features: FloatArray, labels: IdArray, exponent: float) -> tuple[Any, bool]:
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise DataError(f"a linear probe is not possible: {MISSING}") from error

    regression = LogisticRegression(C=10.0**exponent, max_iter=MAX_ITERATIONS, random_state=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        regression.fit(features.astype(np.float64), labels)
    return regression, not any(issubclass(entry.category, ConvergenceWarning) for entry in caught)


def _class_scores(regression: Any, features: FloatArray, classes: int) -> FloatArray:
    """Return (n, classes) probabilities; a class without training samples has 0."""
    scores: NDArray[np.float32] = np.zeros((len(features), classes), dtype=np.float32)
    scores[:, regression.classes_] = regression.predict_proba(features.astype(np.float64))
    return scores


def probe_features(work: Work) -> TaskResult:
    """Run the task: a regression on the features of labelled pictures."""
    data = work.data
    assert isinstance(data, LabelledImages)
    return linear_probe(
        work.features,
        data.labels,
        split_by_id(data.ids, data.labels),
        data.class_names,
        ids=data.ids,
        dataset=data.digest,
        model=work.opened.encoder.name,
        track=work.track,
    )


def why_no_probe(data: ImageSet) -> str | None:
    """Say why no regression can be fitted: scikit-learn is missing, or a class is too small."""
    assert isinstance(data, LabelledImages)
    if find_spec("sklearn") is None:
        return MISSING
    fewest = int(np.unique(data.labels, return_counts=True)[1].min())
    return None if fewest >= FEWEST_PER_CLASS else f"a class has {fewest} images, it takes {FEWEST_PER_CLASS} of each"
