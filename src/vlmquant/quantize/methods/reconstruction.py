"""Block reconstruction: learning the integers of a block's weights so that the block's output stays what it was.

BRECQ (Li et al. 2021, arXiv 2102.05426): one transformer block at a time, with the blocks before it already quantized,
minimizes the error of the block's output, weighted with its effect. Here the effect is the gradient of the embedding
(see `scales`), one number per token. Its root is taken, as otherwise only a handful of tokens would count. Learning
starts at GPTQ's integers and rounds straight through (Bengio et al. 2013, arXiv 1308.3432): AdaRound's annealed sigmoid
(Nagel et al. 2020), which BRECQ uses, takes thousands of steps from nearest rounding to where GPTQ begins.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from vlmquant.progress import Track, silent
from vlmquant.quantize.calibrate import check_inputs, trace
from vlmquant.quantize.methods.step import Calibration, Draft, Step
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.recipes.schemes import WeightScheme
from vlmquant.quantize.rounding import round_inputs, round_straight
from vlmquant.quantize.sites import weight_scheme
from vlmquant.quantize.weights import IntegerWeight, integer_range, per_column

# From here on rounding errors are too small for a choice to matter.
LEARNED_BELOW_BITS = 8
STEPS = 80
# In units of a weight's scale.
RATE = 0.003
MARGIN = 0.49
# One batch in this many, where there are as many, is not learned from and judges whether the learning helped.
JUDGE_EVERY = 4
PROBES = 4


class _Reached(Exception):
    """Ends a forward pass where what comes after it is not needed."""


@dataclass(frozen=True, eq=False)
class _Call:
    """What a block was called with by the quantized tower, what the float block returned, and how much that matters."""

    args: tuple[Any, ...]
    keywords: Mapping[str, Any]
    target: Tensor
    importance: Tensor


class _LearnedWeight:
    """The weight (rows, columns) of one site in units of its scales, which stay; what is learned is its integers."""

    def __init__(self, module: nn.Module, start: IntegerWeight, scheme: WeightScheme) -> None:
        self.start = start
        self.steps = torch.from_numpy(per_column(start.scales, start.group_size, start.integers.shape[1]))
        self.low, self.high = integer_range(scheme)
        integers = torch.from_numpy(start.integers).float()
        position = module.get_parameter("weight").flatten(1) / self.steps
        # As near to the float weight as rounds to the start: what was nearly rounded the other way flips first.
        nearby = torch.minimum(torch.maximum(position, integers - MARGIN), integers + MARGIN)
        self.position = nearby.detach().requires_grad_(True)

    def weight(self) -> Tensor:
        """Return the rounded weight (rows, columns); its gradient goes straight to `position`."""
        return round_straight(self.position).clamp(self.low, self.high) * self.steps

    def chosen(self) -> IntegerWeight:
        """Return the integers as they are now."""
        integers = torch.round(self.position.detach()).clamp(self.low, self.high)
        return replace(self.start, integers=integers.to(torch.from_numpy(self.start.integers).dtype).numpy())


def reconstruct(
    tower: nn.Module,
    start: Mapping[str, IntegerWeight],
    schemes: Mapping[str, WeightScheme],
    roundings: Mapping[str, nn.Module],
    inputs: Sequence[Tensor],
    description: str,
    track: Track = silent,
    *,
    steps: int = STEPS,
    seed: int = 0,
) -> dict[str, IntegerWeight]:
    """Return better integers than `start` for the Linears and Conv2ds of `tower` that it names.

    `roundings` round the inputs of those sites and the operands of MatMuls, by name. A site of `LEARNED_BELOW_BITS`
    or more keeps its integers, and so does a block whose output the learning did not bring nearer to the float
    block's on batches it did not learn from. Deterministic in `seed`. Raises CalibrationError without inputs.
    """
    check_inputs(inputs)
    found = dict(start)
    with torch.inference_mode(False), torch.enable_grad():
        learned = [name for name in start if schemes[name].bits < LEARNED_BELOW_BITS]
        if not learned:
            return found
        blocks = _blocks(tower, learned, inputs[0])
        targets = _targets(tower, list(blocks), inputs, seed)
        student = _student(tower, start, roundings)
        for block in track(list(targets), description, len(targets)):
            calls = _calls(student, block, inputs, targets.pop(block))
            weights = {s: _LearnedWeight(tower.get_submodule(s), start[s], schemes[s]) for s in blocks[block]}
            for site, weight in _learn(student.get_submodule(block), block, weights, calls, steps).items():
                found[site] = weight
                _set_weight(student, site, weight)
    return found


def _blocks(tower: nn.Module, sites: Iterable[str], batch: Tensor) -> dict[str, list[str]]:
    """Group sites by the outermost repeated module that holds them; a site outside of any is its own block.

    So is a site in a module that is never called as a whole: BLIP's text graphs call the parts of their layers.
    """
    repeated = [
        f"{name}.{child}"
        for name, module in tower.named_modules()
        if name and isinstance(module, nn.ModuleList | nn.Sequential)
        for child, _ in module.named_children()
    ]
    _, outputs, _ = trace(tower, repeated, batch)
    found: dict[str, list[str]] = {}
    for site in sites:
        block = next((name for name in repeated if name in outputs and site.startswith(f"{name}.")), site)
        found.setdefault(block, []).append(site)
    return found


def _targets(
    tower: nn.Module, blocks: Sequence[str], inputs: Sequence[Tensor], seed: int
) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Return, by block in forward order, its float output and the importance of each of its tokens, per batch.

    The importance (..., 1) is the root mean square gradient of the embedding along `PROBES` random directions, over
    them and the channels, and 1 on average.
    """
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for batch in inputs:
        tower.requires_grad_(True)
        _, outputs, embedding = trace(tower, blocks, batch)
        tower.requires_grad_(False)
        embedding = functional.normalize(embedding, dim=-1)
        squares = {name: torch.zeros(()) for name in outputs}
        for _ in range(PROBES):
            signs = torch.randint(0, 2, embedding.shape, generator=generator) * 2.0 - 1
            gradients = torch.autograd.grad((embedding * signs).sum(), list(outputs.values()), retain_graph=True)
            for name, gradient in zip(outputs, gradients, strict=True):
                squares[name] = squares[name] + gradient.square()
        for name, output in outputs.items():
            axis = 1 if output.ndim == 4 else -1
            importance = squares[name].mean(dim=axis, keepdim=True).sqrt()
            found.setdefault(name, []).append((output.detach(), importance / importance.mean()))
    return found


def _student(tower: nn.Module, weights: Mapping[str, IntegerWeight], roundings: Mapping[str, nn.Module]) -> nn.Module:
    """Return a copy of `tower` with quantized weights, still in its own modules, whose sites round their inputs."""
    student = copy.deepcopy(tower)
    for name, rounding in roundings.items():
        if name not in weights:
            student.set_submodule(name, rounding)
    for site, weight in weights.items():
        _set_weight(student, site, weight)
        if site in roundings:
            round_inputs(student.get_submodule(site), roundings[site])
    return student


def _set_weight(student: nn.Module, site: str, weight: IntegerWeight) -> None:
    parameter = student.get_submodule(site).get_parameter("weight")
    parameter.data = torch.from_numpy(weight.dequantized()).reshape(parameter.shape)


def _calls(
    student: nn.Module, block: str, inputs: Sequence[Tensor], targets: Sequence[tuple[Tensor, Tensor]]
) -> list[_Call]:
    """Return what `block` of the quantized tower is called with for every batch, with its targets."""
    caught: list[tuple[tuple[Any, ...], Mapping[str, Any]]] = []

    def stop(_: nn.Module, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        caught.append((args, keywords))
        raise _Reached

    handle = student.get_submodule(block).register_forward_pre_hook(stop, with_kwargs=True, prepend=True)
    try:
        for batch in inputs:
            with suppress(_Reached), torch.no_grad():
                student(batch)
    finally:
        handle.remove()
    return [
        _Call(args, keywords, target, importance)
        for (args, keywords), (target, importance) in zip(caught, targets, strict=True)
    ]


def _learn(
    block: nn.Module, name: str, weights: Mapping[str, _LearnedWeight], calls: Sequence[_Call], steps: int
) -> dict[str, IntegerWeight]:
    """Learn all sites of one block together and return their integers; those of the start where these are better."""
    start = {site: weight.start for site, weight in weights.items()}
    judging = calls[::JUDGE_EVERY] if len(calls) >= JUDGE_EVERY else calls
    learning = [call for call in calls if call not in judging] or calls
    unit = _error_of(block, name, start, learning)
    if unit == 0:
        return start
    optimizer = torch.optim.Adam([weight.position for weight in weights.values()], lr=RATE)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / steps)
        matrices = {site: weight.weight() for site, weight in weights.items()}
        loss = _error(block, name, matrices, learning[step % len(learning)]) / unit
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    learned = {site: weight.chosen() for site, weight in weights.items()}
    return learned if _error_of(block, name, learned, judging) < _error_of(block, name, start, judging) else start


def _error_of(block: nn.Module, block_name: str, weights: Mapping[str, IntegerWeight], calls: Sequence[_Call]) -> float:
    matrices = {site: torch.from_numpy(weight.dequantized()) for site, weight in weights.items()}
    with torch.no_grad():
        return float(torch.stack([_error(block, block_name, matrices, call) for call in calls]).mean())


def _error(block: nn.Module, block_name: str, matrices: Mapping[str, Tensor], call: _Call) -> Tensor:
    """Return the mean squared error of the block's output with these weights, weighted by importance."""
    weights = {}
    for site, matrix in matrices.items():
        name = f"{site.removeprefix(block_name)}.weight".removeprefix(".")
        weights[name] = matrix.reshape(block.get_parameter(name).shape)
    output = cast(Tensor, functional_call(block, weights, call.args, dict(call.keywords)))
    return (call.importance * (output - call.target).square()).mean()


def _run(draft: Draft, recipe: Recipe, calibration: Calibration) -> Draft:
    schemes = {name: weight_scheme(draft.tower, recipe, name) for name in draft.weights}
    description = f"{calibration.description}: reconstruction"
    weights = reconstruct(
        draft.tower, draft.weights, schemes, draft.roundings, calibration.inputs, description, calibration.track
    )
    return replace(draft, weights=weights)


STEP = Step(applies=lambda recipe: recipe.integer_weights and recipe.weights.rounding == "reconstruction", run=_run)
