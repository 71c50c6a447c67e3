"""The order of trial: from the fastest candidate to the safest, and the fewest layers in float by bisection.

Pure logic over a function that tries one candidate, so that it can be tested without a model.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from vlmquant.budget.log import Rule, Tried
from vlmquant.text import counted


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One candidate to try: the base recipe, or what the family knows by `name`, with what is changed about it.

    `preset` is another recipe than the base one. `kept_float` are layers that stay float, `components` those that are
    quantized at all (None: all that were asked).
    """

    name: str
    preset: str | None = None
    smoothing: bool = False
    kept_float: tuple[str, ...] = ()
    components: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """What a family of models can try: `first` is expected to be the fastest, `safe` ends with the safest.

    With `by_layer`, smoothing, layers in float and one of the `components` alone come between them.
    """

    first: Rung
    safe: tuple[Rung, ...]
    by_layer: bool = False
    components: tuple[str, ...] = ()


Try = Callable[[Rung], Tried]
Rank = Callable[[bool], Sequence[str]]
"""From "smoothed or not" to all layers of all components, the one whose quantization does most damage first."""


def climb(ladder: Ladder, try_step: Try, rank: Rank, rule: Rule, *, max_latency_ms: float | None = None) -> list[Tried]:
    """Try candidates until one is inside the budget and return all that were tried.

    `try_step` decides what is inside. First everything in integers, then with smoothing; then the k worst layers in
    float, k doubled until it is enough and bisected down to the fewest that are; then one component in float; then
    what is safe. Where the first takes longer than `max_latency_ms`, nothing else is tried: all that follows is slower.
    """
    tried = [try_step(ladder.first)]
    if tried[0].inside or (max_latency_ms is not None and tried[0].latency_ms > max_latency_ms):
        return tried
    last = ladder.safe
    if ladder.by_layer:
        smoothed = try_step(replace(ladder.first, name=f"{ladder.first.name} + smoothing", smoothing=True))
        tried.append(smoothed)
        if smoothed.inside:
            return tried
        smoothing = smoothed.drop.counted(rule) < tried[0].drop.counted(rule)
        name = smoothed.name if smoothing else ladder.first.name
        tried += _fewest_float(try_step, rank(smoothing), replace(ladder.first, name=name, smoothing=smoothing))
        if any(one.inside for one in tried):
            return tried
        last = (*_one_component(ladder, smoothing), *ladder.safe)
    for step in last:
        tried.append(try_step(step))
        if tried[-1].inside:
            break
    return tried


def _fewest_float(try_step: Try, worst: Sequence[str], base: Rung) -> list[Tried]:
    tried: list[Tried] = []

    def enough(count: int) -> bool:
        label = f"{base.name}, {counted(count, 'worst layer')} float"
        tried.append(try_step(replace(base, name=label, kept_float=tuple(worst[:count]))))
        return tried[-1].inside

    too_few, count = 0, 1
    while not enough(count):
        too_few, count = count, 2 * count
        if count > len(worst) // 2:
            return tried
    while count - too_few > 1:
        middle = (too_few + count) // 2
        if enough(middle):
            count = middle
        else:
            too_few = middle
    return tried


def _one_component(ladder: Ladder, smoothing: bool) -> Iterator[Rung]:
    if len(ladder.components) > 1:
        for component in ladder.components:
            name = f"{ladder.first.name}, {component} only"
            yield replace(ladder.first, name=name, smoothing=smoothing, components=(component,))
