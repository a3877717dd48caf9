"""Residual branches, each against its own oracle."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from thinned import InputError, presets
from thinned import functional as F
from thinned.algebra import (
    Bernoulli,
    Drop,
    Key,
    Unscaled,
    moments,
)


def test_linear_branches_have_the_product_of_means():
    """E over all 2^3 masks of three linear residual blocks is prod (I + q_l F_l): evaluation under
    both scales.
    """
    rng = np.random.default_rng(0)
    branches, x = rng.normal(size=(3, 4, 4)) * 0.3, rng.normal(size=4)
    rates = presets.linear_rates(3, 0.5)
    mean = np.zeros(4)
    for m in itertools.product((0, 1), repeat=3):
        h, weight = x, 1.0
        for keep, branch, p in zip(m, branches, rates, strict=True):
            h = h + keep * (branch @ h)
            weight *= 1 - p if keep else p
        mean += weight * h
    h = torch.from_numpy(x[None])
    for branch, p in zip(branches, rates, strict=True):
        h = h + F.drop(h @ torch.from_numpy(branch.T), presets.stochastic_depth(p), mode="mean")
    np.testing.assert_allclose(
        h[0].numpy(), mean, rtol=1e-8
    )  # the thresholds' rates are p to 2^-33


@pytest.mark.parametrize("impl", ["native", "reference"])
def test_a_dropped_branch_leaves_the_skip_and_no_gradient(impl):
    x = torch.randn(40, 3, 5)
    branch = torch.randn(40, 3, 5, requires_grad=True)
    is_dropped = ~F.mask(presets.drop_path(0.5), (40, 3, 5), Key(1)).flatten()
    assert 0 < is_dropped.sum() < 40
    y = x + F.drop(branch, presets.drop_path(0.5), key=Key(1), impl=impl)
    y.sum().backward()
    assert torch.equal(y[is_dropped], x[is_dropped])
    assert not branch.grad[is_dropped].any()
    assert torch.equal(branch.grad[~is_dropped], torch.full((int((~is_dropped).sum()), 3, 5), 2.0))
    assert torch.equal(y[~is_dropped], (x + 2 * branch.detach())[~is_dropped])


def test_one_draw_for_the_batch():
    drop = presets.stochastic_depth(0.5, per="batch")
    ones = torch.ones(30, 4)
    values = [F.drop(ones, drop, key=Key(seed)).unique().tolist() for seed in range(64)]
    assert all(len(v) == 1 for v in values)
    assert (
        16 < sum(v == [0.0] for v in values) < 48
    )  # binomial(64, 1/2): outside has probability 3e-5
    assert torch.equal(F.drop(ones, drop, mode="mean"), 0.5 * ones)


def test_keep_unscaled():
    drop = presets.drop_path(0.25, scale="unscaled")
    assert F.drop(torch.ones(100, 2), drop, key=Key(0)).unique().tolist() == [0.0, 1.0]
    assert moments(drop).gain == 0.75
    x = torch.ones(3)
    assert F.drop(x, drop, mode="mean") is x
    assert Drop.from_json(drop.to_json()) == drop
    assert isinstance(Drop(Bernoulli(0.1), scale=Unscaled()).scale, Unscaled)


def test_linear_rates():
    assert presets.linear_rates(54, 0.5)[-1] == 0.5
    expected_depth = sum(1 - p for p in presets.linear_rates(54, 0.5))
    assert math.isclose(expected_depth, (3 * 54 - 1) / 4)  # Huang et al. 2016, section 3
    for blocks, last in ((0, 0.5), (2.5, 0.5), (3, 1.5)):
        with pytest.raises(InputError):
            presets.linear_rates(blocks, last)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: presets.stochastic_depth(0.5, per="row"), "unknown per 'row'"),
    ],
)
def test_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()
