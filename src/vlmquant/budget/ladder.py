"""The order of trial: from the fastest candidate to the safest, and the fewest layers in float by bisection.

Pure logic over a function that tries one candidate, so that it can be tested without a model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vlmquant.budget.log import Rule, Tried


@dataclass(frozen=True, kw_only=True)
class Step:
    """One candidate to try: the base recipe, or another preset, with what is changed about it.

    `kept_float` are layers that stay float, `components` those that are quantized at all (None: all that were asked).
    """

    name: str
    preset: str | None = None
    smoothing: bool = False
    kept_float: tuple[str, ...] = ()
    components: tuple[str, ...] | None = None


SAFE_PRESETS = ("int8-weights", "fp16")
"""Small and close to float, but no faster: the last things to try."""

Try = Callable[[Step], Tried]
Rank = Callable[[bool], Sequence[str]]
"""From "smoothed or not" to all layers of all components, the one whose quantization does most damage first."""


def climb(
    try_step: Try,
    rank: Rank,
    base: str,
    components: Sequence[str],
    rule: Rule,
    *,
    max_latency_ms: float | None = None,
) -> list[Tried]:
    """Try candidates until one is inside the budget and return all that were tried.

    `try_step` decides what is inside. First everything in integers, then with smoothing; then the k worst layers in
    float, k doubled until it is enough and bisected down to the fewest that are; then one component in float; then
    presets that keep the arithmetic in float. Where everything in integers takes longer than `max_latency_ms`, nothing
    else is tried: all that follows is slower.
    """
    plain = try_step(Step(name=base))
    if plain.inside or (max_latency_ms is not None and plain.latency_ms > max_latency_ms):
        return [plain]
    smoothed = try_step(Step(name=f"{base} + smoothing", smoothing=True))
    tried = [plain, smoothed]
    if smoothed.inside:
        return tried
    smoothing = smoothed.drop.counted(rule) < plain.drop.counted(rule)
    tried += _fewest_float(try_step, rank(smoothing), smoothed.name if smoothing else base, smoothing)
    if any(one.inside for one in tried):
        return tried
    for step in _last_steps(base, components, smoothing):
        tried.append(try_step(step))
        if tried[-1].inside:
            break
    return tried


def _fewest_float(try_step: Try, worst: Sequence[str], name: str, smoothing: bool) -> list[Tried]:
    tried: list[Tried] = []

    def enough(count: int) -> bool:
        kept = tuple(worst[:count])
        label = f"{name}, {count} worst layer{'' if count == 1 else 's'} float"
        tried.append(try_step(Step(name=label, smoothing=smoothing, kept_float=kept)))
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


def _last_steps(base: str, components: Sequence[str], smoothing: bool) -> list[Step]:
    alone = [
        Step(name=f"{base}, {component} only", smoothing=smoothing, components=(component,))
        for component in components
        if len(components) > 1
    ]
    return [*alone, *(Step(name=preset, preset=preset) for preset in SAFE_PRESETS)]
