"""A task in a file of its own, as a contributor would write one: how many pictures are bright enough."""

import numpy as np

from vlmquant.tasks.compare import compare_results
from vlmquant.tasks.protocol import Protocol
from vlmquant.tasks.result import Outcomes, TaskResult
from vlmquant.tasks.task import Task, Work


def count_bright(work: Work) -> TaskResult:
    """Call a picture bright where its features' first number is above the median."""
    ids = work.data.ids
    first = work.features[:, 0]
    bright = first > np.median(first)
    return TaskResult(
        model=work.opened.name,
        protocol=Protocol(task="brightness", dataset=work.data.digest, samples=len(ids), settings=()),
        outcomes={
            "bright": Outcomes(
                ids=ids, clusters=ids, values=bright.astype(np.float64), answers=tuple(map(str, bright.tolist()))
            )
        },
    )


TASK = Task(head="dual-encoder", run=count_bright, compare=compare_results)
