"""The token table as integer rows; where an output head shares its weight, as the head's own integers."""

from dataclasses import replace

from torch import nn

from vlmquant.quantize.methods.step import Calibration, Draft, Step
from vlmquant.quantize.modules import IntegerEmbedding, TiedEmbedding
from vlmquant.quantize.recipes.recipe import Recipe
from vlmquant.quantize.sites import tied_table, token_tables


def _run(draft: Draft, _: Recipe, __: Calibration) -> Draft:
    modules = dict(draft.modules)
    for name in token_tables(draft.tower):
        table = draft.tower.get_submodule(name)
        assert isinstance(table, nn.Embedding)
        heads = (modules[site] for site in draft.weights if tied_table(draft.tower, site) is table)
        head = next(heads, None)
        modules[name] = IntegerEmbedding(table) if head is None else TiedEmbedding(head)
    return replace(draft, modules=modules)


STEP = Step(applies=lambda recipe: recipe.integer_weights and recipe.token_table_bits is not None, run=_run)
