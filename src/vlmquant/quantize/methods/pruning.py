"""Structured pruning: whole attention heads and MLP channels left out, and what is left made to stand in for them.

Which go: those whose loss the others can make up for best, by second-order importance from calibration activations
alone (Optimal Brain Surgeon on the layer's least-squares problem: Frantar & Alistarh 2022, arXiv 2208.11580, section 4;
Kurtic et al. 2023, ZipLM, arXiv 2302.04089, for structures). How many of each layer: each is tried alone, its damage to
the final embedding is measured, and one price for a multiply-accumulate decides all layers. Then, from the first layer
to the last, the Linear that reads the kept channels is fitted to the float layer's output in closed form, on what the
pruned tower really gives it.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from vlmquant.errors import RecipeError
from vlmquant.quantize.calibrate import check_inputs, trace, watching
from vlmquant.quantize.damage import Judge
from vlmquant.quantize.least_squares import Sums, damped
from vlmquant.quantize.methods.step import Calibration, Draft, Step
from vlmquant.quantize.prunable import MacCount, Unit, macs_of, put_in, units, without_channels
from vlmquant.quantize.recipes.recipe import Recipe

HIGHEST_PRICE = 1e12
"""Of all multiply-accumulates together, in damage: at this every unit is at its highest level."""
TRIED = 8
"""How many levels are tried of each unit, beside the whole."""


@dataclass(frozen=True, eq=False)
class Level:
    """A unit with `removed` groups gone: the channels that are `kept`, and its damage when it alone is pruned."""

    removed: int
    kept: Tensor
    damage: float


def prune_tower(tower: nn.Module, share: float, calibration: Calibration) -> nn.Module:
    """Return a copy of `tower` that makes about `share` (0..1) fewer multiply-accumulates.

    Names of layers stay, widths do not. Raises CalibrationError without inputs, RecipeError where the tower has
    nothing to prune or not that much.
    """
    check_inputs(calibration.inputs)
    chosen = units(tower)
    work = check_share(tower, share, calibration.inputs[0], calibration.description)
    judge = Judge(tower, calibration.inputs)
    tried = {}
    for unit in calibration.track(chosen, f"{calibration.description}: damage of pruning", len(chosen)):
        tried[unit.reader] = _levels(tower, unit, calibration.inputs, judge)
    plan = allocate(tried, work, share)
    pruned = copy.deepcopy(tower)
    for unit in calibration.track(chosen, f"{calibration.description}: pruning", len(chosen)):
        kept = plan[unit.reader].kept
        put_in(pruned, unit, without_channels(pruned, unit, kept, *_fitted(tower, pruned, unit, kept, calibration)))
    return pruned


def check_share(tower: nn.Module, share: float, batch: Tensor, component: str) -> MacCount:
    """Return the work of `tower`, the `component` of a model. Raises RecipeError where so much cannot be left out."""
    work = macs_of(tower, batch, units(tower))
    if share > work.most_share:
        raise RecipeError(
            f"{component}: prune {share:g} is more than its attention heads and MLP channels make up, at most "
            f"{work.most_share:.2f}; prune less, or other components (--components)"
        )
    return work


def allocate(tried: Mapping[str, Sequence[Level]], work: MacCount, share: float) -> dict[str, Level]:
    """Return a level of each unit so that `share` of the work goes for the least damage, taken as adding up.

    One price for a multiply-accumulate is bid for all units, and halved in on. `share` must be less than
    `work.most_share`.
    """
    wanted = share * work.total

    def at(price: float) -> dict[str, Level]:
        return {
            name: min(levels, key=lambda level: level.damage - price * level.removed * work.of_group[name])
            for name, levels in tried.items()
        }

    def saved(plan: Mapping[str, Level]) -> int:
        return sum(level.removed * work.of_group[name] for name, level in plan.items())

    low, high = 0.0, 1.0 / work.total
    while saved(at(high)) < wanted and high * work.total < HIGHEST_PRICE:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if saved(at(middle)) >= wanted else (middle, high)
    return at(high)


def _levels(tower: nn.Module, unit: Unit, inputs: Sequence[Tensor], judge: Judge) -> list[Level]:
    """Return the unit as it is and up to `TRIED` levels of it, each with fewer channels."""
    mean, covariance = _moments(tower, unit.reader, inputs)
    reader: Any = tower.get_submodule(unit.reader)
    weight = reader.weight.double()
    found = [Level(0, torch.arange(unit.channels), 0.0)]
    for removed, kept, fitted in _eliminated(weight, covariance, unit):
        bias = weight @ mean - fitted @ mean[kept] + (0 if reader.bias is None else reader.bias.double())
        damage = judge.damage(without_channels(tower, unit, kept, fitted, bias))
        found.append(Level(removed, kept, damage))
    return found


def _eliminated(weight: Tensor, covariance: Tensor, unit: Unit) -> list[tuple[int, Tensor, Tensor]]:
    """Take out group after group; return at `TRIED` levels how many went, the kept channels and their weight."""
    inverse = torch.linalg.inv(damped(covariance))
    weight, alive = weight.clone(), torch.arange(unit.channels)
    spacing = max(1, (unit.groups - 1) // TRIED)
    found = []
    for removed in range(1, unit.groups):
        out = _least_important(weight, inverse, unit)
        left = torch.ones(len(alive), dtype=torch.bool)
        left[out] = False
        ratio = torch.linalg.solve(inverse[out][:, out], inverse[out][:, left])
        weight = weight[:, left] - weight[:, out] @ ratio
        inverse = inverse[left][:, left] - inverse[left][:, out] @ ratio
        alive = alive[left]
        if removed % spacing == 0 or removed == unit.groups - 1:
            found.append((removed, alive, weight))
    return found


def _least_important(weight: Tensor, inverse: Tensor, unit: Unit) -> Tensor:
    """Return which channels, by place, cost the output least once the others make up for them."""
    if not unit.heads:
        importance = weight.square().sum(dim=0) / inverse.diagonal()
        return importance.argsort()[: unit.width]
    heads = torch.arange(len(inverse)).reshape(-1, unit.width)
    importance = torch.stack(
        [(torch.linalg.solve(inverse[head][:, head], weight[:, head].T) * weight[:, head].T).sum() for head in heads]
    )
    return heads[importance.argmin()]


def _fitted(
    tower: nn.Module, pruned: nn.Module, unit: Unit, kept: Tensor, calibration: Calibration
) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of the reader of the `kept` channels that come nearest to the float reader's output.

    Least squares over all calibration rows between the channels as the pruned tower makes them and what the float
    tower's reader gave, drawn towards the weights as they are (ridge).
    """
    reader = tower.get_submodule(unit.reader)
    weight = reader.get_parameter("weight").double()[:, kept]
    sums = Sums(len(kept), len(weight))
    for batch in calibration.inputs:
        with torch.inference_mode():
            _, outputs, _ = trace(tower, [unit.reader], batch)
            (channels,) = _inputs(pruned, unit.reader, batch)
        rows = channels.flatten(0, -2)[:, kept].double()
        sums.add(rows, outputs[unit.reader].flatten(0, -2).double() - rows @ weight.T)
    change, bias = sums.fit()
    return weight + change, bias


def _moments(tower: nn.Module, site: str, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the mean (in,) and the covariance (in, in), float64, of the rows that the Linear called `site` reads."""
    sums = Sums(tower.get_submodule(site).get_parameter("weight").shape[1], 0)
    for batch in inputs:
        (values,) = _inputs(tower, site, batch)
        rows = values.flatten(0, -2).double()
        sums.add(rows, rows[:, :0])
    return sums.mean, sums.covariance


def _inputs(tower: nn.Module, site: str, batch: Tensor) -> list[Tensor]:
    found: list[Tensor] = []
    with torch.inference_mode(), watching(tower, [site], lambda _, values: found.append(values)):
        tower(batch)
    return found


def _run(draft: Draft, recipe: Recipe, calibration: Calibration) -> Draft:
    return replace(draft, tower=prune_tower(draft.tower, recipe.prune, calibration))


STEP = Step(applies=lambda recipe: recipe.prune > 0, run=_run, fits=True)
