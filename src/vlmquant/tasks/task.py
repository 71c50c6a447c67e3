"""What a task is: which model and data it needs, how it runs and how two of its results are compared."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from vlmquant.data.sets import ImageSet
from vlmquant.models.spec import FloatArray, Head
from vlmquant.opening import Opened
from vlmquant.progress import Track
from vlmquant.tasks.compare import Change
from vlmquant.tasks.embeddings import image_features, text_rows, unit_rows
from vlmquant.tasks.fidelity import Embedded, FidelityResult
from vlmquant.tasks.result import TaskResult
from vlmquant.tasks.store import Journal, Store

Compared: TypeAlias = tuple[Change, ...] | FidelityResult
"""What comparing two results gives: a change of every score, or how close the embeddings are."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """One model on one data set: what every task's function is given.

    `templates` are the prompts of classes. What is computed is kept in `store`. The embeddings of a dual encoder are
    made when they are first asked for, and once for all tasks.
    """

    opened: Opened
    data: ImageSet
    templates: tuple[str, ...]
    store: Store
    track: Track

    @cached_property
    def features(self) -> FloatArray:
        """The features (n, d) float32 of all images, not normalized."""
        return image_features(self.opened, self.data, self.store, self.track)

    @cached_property
    def texts(self) -> FloatArray | None:
        """The unit rows (m, d) float32 of the classes or captions; None for data that have neither."""
        return text_rows(self.opened, self.data, self.templates, self.store, self.track)

    @cached_property
    def embedded(self) -> Embedded:
        """All embeddings as unit rows. Raises DataError naming the images where they are not finite."""
        encoder = self.opened.encoder
        return Embedded(
            name=encoder.name,
            images=unit_rows(self.features, self.data),
            texts=self.texts,
            logit_scale=encoder.logit_scale,
        )

    def journal(self, task: str) -> Journal:
        """Return where the finished items of `task` are kept."""
        return self.store.journal(task, self.opened.identity, self.data.digest)


def no_obstacle(data: ImageSet) -> str | None:
    """Find nothing against any data."""
    del data
    return None


@dataclass(frozen=True, kw_only=True)
class Task:
    """One row of `TASKS`.

    A model must have the `head`, and the data be of the type `data`, which is called `needs` in words; `obstacle` says
    what else is against some data, None where nothing is. `run` scores a model, `compare` two results, the candidate
    first, with the largest acceptable drop in hundredths (None asks for no verdict).

    `with_reference` tasks have no score of their own: they run whenever there is a reference, beside those asked for.
    `when_asked` tasks run only when they are named: they take long, or say little of a few pictures.
    `told` names the details that belong into the summary of an evaluation.
    """

    head: Head
    run: Callable[[Work], TaskResult]
    compare: Callable[[TaskResult, TaskResult, float | None], Compared]
    data: type[ImageSet] = ImageSet
    needs: str = "pictures"
    obstacle: Callable[[ImageSet], str | None] = no_obstacle
    with_reference: bool = False
    when_asked: bool = False
    told: tuple[str, ...] = ()

    def why_not(self, data: ImageSet) -> str | None:
        """Say why the task is not possible on `data`; None where it is."""
        return self.obstacle(data) if isinstance(data, self.data) else f"it has no {self.needs}"
