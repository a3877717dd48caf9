"""Populations: each member equals the network that is trained from its recipe alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from thinned.train import (
    Cnn,
    Mlp,
    Optimizer,
    Recipe,
    fit,
    fit_population,
)
from thinned.train.fit import group_recipes
from thinned.train.network_group import SingleNetwork
from thinned.train.population import Population, _BatchNorm

from .common import BASE, VARIANTS, blobs, d, equal


@pytest.fixture(scope="module")
def population():
    recipes = list(VARIANTS.values())
    return dict(zip(VARIANTS, fit_population(blobs(), recipes), strict=True))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_member_equals_the_same_recipe_alone(population, name):
    equal(population[name], fit(blobs(), VARIANTS[name]))


def test_the_variants_differ(population):
    """The variants are different networks."""
    finals = [tuple(np.round(p.history["val_loss"], 7)) for p in population.values()]
    assert len(set(finals)) == len(finals)


def test_groups_hold_everything_once():
    groups = group_recipes(list(VARIANTS.values()))
    assert sorted(i for g in groups for i in g) == list(range(len(VARIANTS)))
    assert max(map(len, groups)) > 10


def test_a_population_evaluates_as_its_modules():
    split = blobs()
    stack = Population([VARIANTS["dropout"], VARIANTS["classic"]], split)
    both = stack.evaluate(split.val.x)
    for m in range(2):
        torch.testing.assert_close(stack.module(m)(split.val.x), both[m])


def test_gradient_of_batch_normalization():
    h, gamma, beta = (
        torch.randn(s, dtype=torch.float64, requires_grad=True)
        for s in ((2, 7, 3), (2, 1, 3), (2, 1, 3))
    )
    assert torch.autograd.gradcheck(lambda *a: _BatchNorm.apply(*a)[0], (h, gamma, beta))
    layer = torch.nn.BatchNorm1d(3).double()
    torch.testing.assert_close(
        _BatchNorm.apply(h, torch.ones(2, 1, 3), torch.zeros(2, 1, 3))[0][1], layer(h[1])
    )


def test_a_diverged_member_ends_as_it_would_alone():
    """Weights that decay by a factor of -1.3 per step: the loss exceeds the bound long before it
    stops being finite.
    """
    wild = BASE.at(optimizer=Optimizer("adam", 1e-2, weight_decay=230.0), epochs=7)
    member, alone = fit_population(blobs(), [wild, BASE.at(epochs=7)])[0], fit(blobs(), wild)
    assert member.diverged == alone.diverged < 6
    for (_, a), (_, b) in zip(
        member.module().named_parameters(), alone.module().named_parameters(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=2e-2, atol=1e-3)
    assert member.scores["val"].loss == pytest.approx(alone.scores["val"].loss, rel=2e-2)


def test_dead_units_are_seen():
    """Biases far below zero disable 3 of 10 and 2 of 6 units, alone and in a population."""
    split, recipe = blobs(), BASE.at(drops=(None, d(0.5)))
    alone, stack = SingleNetwork(recipe, split), Population([BASE, recipe], split)
    with torch.no_grad():
        alone.net.linear1.bias[:3] = -1e3
        alone.net.linear2.bias[:2] = -1e3
        stack.biases[0][1, 0, :3] = -1e3
        stack.biases[1][1, 0, :2] = -1e3
        few = BASE.at(network=Mlp((10, 6), "tanh"))
        living = SingleNetwork(BASE, split).dead_units(split.val.x)[0]
        assert alone.dead_units(split.val.x)[0] == pytest.approx(5 / 16, abs=living + 1e-6)
        assert stack.dead_units(split.val.x) == pytest.approx(
            [living, alone.dead_units(split.val.x)[0]]
        )
        assert math.isnan(Population([few], split).dead_units(split.val.x)[0])
        assert math.isnan(SingleNetwork(few, split).dead_units(split.val.x)[0])


def test_cnn_and_population_fall_back_to_one_by_one():
    split = blobs(features=64, image=(1, 8, 8))
    orders = (("linear", "act", "drop"), ("linear", "norm", "act", "drop"))
    recipes = [
        Recipe(Cnn((4, 6), 16, o), (d(0.1), d(0.2), d(0.2), d(0.5)), epochs=2, drop_connect=c)
        for o in orders
        for c in (0.0,)
    ]
    results = fit_population(split, [*recipes, Recipe(Cnn((4,), 8), drop_connect=0.4, epochs=2)])
    assert all(np.isfinite(r.history["val_loss"]).all() for r in results)
    assert results[0].module()(split.val.x).shape == (len(split.val), 3)
