"""A sample of the similarities that two models see between pictures and texts, small enough to keep with a run."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmquant.data.sets import CaptionedImages, ImageSet, LabelledImages
from vlmquant.errors import DataError
from vlmquant.models.spec import FloatArray
from vlmquant.tasks.evaluate import Evaluation
from vlmquant.tasks.fidelity import Embedded, evenly

MOST_SHOWN = 20
MOST_PAIRS = 20_000

Numbers = NDArray[np.float32]
Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """Cosines of the same pairs by a reference and a candidate, float32 in [-1, 1].

    `reference` and `candidate` are (rows, columns): some pictures, named by `rows`, against texts or against the
    pictures themselves, named by `columns`. `matched_*` (m,) are the cosines of all pictures with their own class or
    captions (empty without texts), `unmatched_*` (u,) those of pairs that do not belong together, a sample of at most
    20,000.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    columns_are: str
    reference: Numbers
    candidate: Numbers
    matched_reference: Numbers
    matched_candidate: Numbers
    unmatched_reference: Numbers
    unmatched_candidate: Numbers


_ARRAYS = (
    "reference",
    "candidate",
    "matched_reference",
    "matched_candidate",
    "unmatched_reference",
    "unmatched_candidate",
)


@dataclass(frozen=True)
class _Pairs:
    """What to compare: pictures and columns to show, and for every picture the columns that belong to it."""

    shown_rows: Indices
    shown_columns: Indices
    columns: tuple[str, ...]
    columns_are: str
    owner_of_column: Indices
    key_of_image: Indices


def sample_similarity(evaluation: Evaluation) -> Similarity | None:
    """Return the sample of an evaluation; None where the embeddings of two models were not compared."""
    candidate, reference = evaluation.embeddings, evaluation.reference_embeddings
    if candidate is None or reference is None or evaluation.fidelity is None:
        return None
    data = evaluation.data
    pairs = _pairs(data)
    rows, columns = pairs.shown_rows, pairs.shown_columns
    matched, unmatched = _index_pairs(pairs, with_matches=candidate.texts is not None)
    return Similarity(
        rows=tuple(data.ids[i] for i in rows),
        columns=tuple(pairs.columns[i] for i in columns),
        columns_are=pairs.columns_are,
        reference=reference.images[rows] @ _columns(reference)[columns].T,
        candidate=candidate.images[rows] @ _columns(candidate)[columns].T,
        matched_reference=_cosines(reference, matched),
        matched_candidate=_cosines(candidate, matched),
        unmatched_reference=_cosines(reference, unmatched),
        unmatched_candidate=_cosines(candidate, unmatched),
    )


def save_similarity(path: Path, similarity: Similarity) -> None:
    """Write the sample as an .npz file, whole or not at all; the same sample gives the same bytes."""
    temporary = path.with_name(path.name + ".tmp")
    content: dict[str, Any] = {name: getattr(similarity, name) for name in _ARRAYS}
    for name in ("rows", "columns", "columns_are"):
        content[name] = np.array(getattr(similarity, name), dtype=np.str_)
    with temporary.open("wb") as file:
        np.savez_compressed(file, **content)
    os.replace(temporary, path)


def load_similarity(path: Path) -> Similarity:
    """Read what `save_similarity` wrote. Raises DataError for another file."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return Similarity(
                rows=tuple(stored["rows"].tolist()),
                columns=tuple(stored["columns"].tolist()),
                columns_are=str(stored["columns_are"]),
                **{name: stored[name] for name in _ARRAYS},
            )
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise DataError(f"{path} is not a similarity sample of `vlmquant evaluate`: {error}; run it again") from error


def _pairs(data: ImageSet) -> _Pairs:
    images = np.arange(len(data))
    if isinstance(data, LabelledImages):
        classes = np.arange(len(data.class_names))
        shown = evenly(len(classes), MOST_SHOWN)
        firsts = [np.flatnonzero(data.labels == label)[:1] for label in shown]
        rows = np.concatenate(firsts)
        return _Pairs(rows, shown, data.class_names, "classes", classes, data.labels)
    shown = evenly(len(data), MOST_SHOWN)
    if isinstance(data, CaptionedImages):
        counts = [len(texts) for texts in data.captions]
        first_caption = np.cumsum([0, *counts[:-1]])
        captions = tuple(text for texts in data.captions for text in texts)
        return _Pairs(shown, first_caption[shown], captions, "first captions", np.repeat(images, counts), images)
    return _Pairs(shown, shown, data.ids, "the same pictures", images, images)


def _index_pairs(pairs: _Pairs, *, with_matches: bool) -> tuple[tuple[Indices, Indices], tuple[Indices, Indices]]:
    """Return (picture, column) indices of pairs that belong together, all of them, and of a sample of the others."""
    order = np.argsort(pairs.owner_of_column, kind="stable")
    sorted_owner = pairs.owner_of_column[order]
    first = np.searchsorted(sorted_owner, pairs.key_of_image, side="left")
    last = np.searchsorted(sorted_owner, pairs.key_of_image, side="right")
    pictures = np.repeat(np.arange(len(first)), last - first)
    belonging = np.concatenate([order[a:b] for a, b in zip(first, last, strict=True)])
    if not with_matches:
        pictures, belonging = pictures[:0], belonging[:0]
    columns = len(pairs.owner_of_column)
    total = len(pairs.key_of_image) * columns
    # Drawn at random: evenly spaced pairs would meet the same few columns again and again.
    drawn = np.random.default_rng(0).choice(total, size=min(total, MOST_PAIRS), replace=False, shuffle=False)
    flat = np.sort(drawn)
    rows, chosen = flat // columns, flat % columns
    apart = pairs.owner_of_column[chosen] != pairs.key_of_image[rows]
    return (pictures, belonging), (rows[apart], chosen[apart])


def _columns(embedded: Embedded) -> FloatArray:
    return embedded.images if embedded.texts is None else embedded.texts


def _cosines(embedded: Embedded, pairs: tuple[Indices, Indices]) -> Numbers:
    rows, columns = pairs
    return np.asarray(np.einsum("nd,nd->n", embedded.images[rows], _columns(embedded)[columns]), dtype=np.float32)
