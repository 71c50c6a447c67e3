"""Small copies of the pictures a reader of a run will want to see: those that changed their answer or moved most."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image as PillowImage

from vlmquant.models.preprocess import to_rgb
from vlmquant.tasks.compare import Comparison
from vlmquant.tasks.evaluate import Evaluation
from vlmquant.tasks.result import Outcomes

MOST_FLIPS, MOST_FARTHEST = 12, 12
THUMBNAIL_PIXELS = 224


def save_pictures(folder: Path, evaluation: Evaluation) -> dict[str, str]:
    """Write small JPEGs of `wanted_pictures` into `folder`; return their file names by id."""
    images = evaluation.data.images
    position = {name: i for i, name in enumerate(images.ids)}
    wanted = wanted_pictures(evaluation)
    if wanted:
        folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for number, name in enumerate(wanted):
        picture = to_rgb(images[position[name]])
        picture.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        files[name] = f"{number:03d}.jpg"
        _save_jpeg(picture, folder / files[name])
    return files


def wanted_pictures(evaluation: Evaluation) -> list[str]:
    """Return ids of pictures: for every metric the farthest flips of each kind, and the farthest of all.

    Of scores that are not means over samples, such as BLEU, there are no flips: there the pictures whose text changed
    are wanted.
    """
    fidelity = evaluation.fidelity
    cosines = {} if fidelity is None else image_cosines(fidelity.ids, fidelity.values["image_cosine"])
    wanted: list[str] = []
    for task, compared in evaluation.comparisons.items():
        result, reference = evaluation.results[task], evaluation.reference_results[task]
        for comparison in compared:
            if isinstance(comparison, Comparison):
                owner = picture_of(result.outcomes[comparison.metric])
                flips = comparison.flips
                for samples in (flips.losses, flips.gains, flips.changed_wrong):
                    wanted += [owner[name] for name in farthest_first(samples, owner, cosines)[:MOST_FLIPS]]
            elif comparison.metric in result.outcomes:
                changed = changed_answers(result.outcomes[comparison.metric], reference.outcomes[comparison.metric])
                wanted += [one.picture for one in changed[:MOST_FLIPS]]
    if fidelity is not None:
        wanted += [name for name, _ in fidelity.worst()[:MOST_FARTHEST]]
    return list(dict.fromkeys(wanted))


@dataclass(frozen=True)
class ChangedAnswer:
    """What two models said about one sample of a picture, and what the metric says to each."""

    sample: str
    picture: str
    before: str
    after: str
    score_before: float
    score_after: float


def changed_answers(candidate: Outcomes, reference: Outcomes) -> list[ChangedAnswer]:
    """Return the samples whose answers differ, those that lost most first."""
    rows = zip(
        reference.ids,
        reference.clusters,
        reference.answers,
        candidate.answers,
        reference.values.tolist(),
        candidate.values.tolist(),
        strict=True,
    )
    changed = [one for one in (ChangedAnswer(*row) for row in rows) if one.before != one.after]
    return sorted(changed, key=lambda one: one.score_after - one.score_before)


def image_cosines(ids: Iterable[str], values: Iterable[float]) -> dict[str, float]:
    """Return the cosine of each picture's two embeddings by its id."""
    return {name: float(value) for name, value in zip(ids, values, strict=True)}


def picture_of(outcomes: Outcomes) -> dict[str, str]:
    """Return the id of the picture that each sample belongs to."""
    return dict(zip(outcomes.ids, outcomes.clusters, strict=True))


def farthest_first(samples: Iterable[str], owner: Mapping[str, str], cosines: Mapping[str, float]) -> list[str]:
    """Return the samples, those whose picture moved most first; in their own order where no cosine is known."""
    return sorted(samples, key=lambda name: cosines.get(owner[name], 1.0))


def _save_jpeg(picture: PillowImage.Image, path: Path) -> None:
    temporary = path.with_name(path.name + ".tmp")
    picture.save(temporary, format="JPEG", quality=85)
    temporary.replace(path)
