"""Plans: thresholds, layouts, blocks and their exact fractions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from thinned import InputError, functional, presets
from thinned.algebra import Bernoulli, Block, Drop, Gaussian, KeptFraction, Key, moments, plan
from thinned.algebra.per import block_fraction, covering, expand, seed_rate
from thinned.algebra.plan import WORDS, coefficients, threshold
from thinned.engines import numpy as engine


@pytest.mark.parametrize("p", [0.0, 1e-12, 2**-32, 2**-16, 0.1, 0.5, 1 - 2**-16, 1 - 2**-40, 1.0])
def test_threshold_and_scale_are_exactly_unbiased(p):
    limit = threshold(p)
    assert (limit == 0) == (p == 0)
    assert (limit == WORDS) == (p == 1)
    nearest = (
        0.5 if 1 / WORDS <= p <= 1 - 1 / WORDS else 1.0
    )  # rates beyond the first and last threshold take these
    assert abs(limit / WORDS - p) <= nearest / WORDS
    if 0 < p < 1:
        gain = plan(presets.dropout(p), (3, 4)).gain
        # E[y] = x * gain * (kept words) / 2^32
        assert math.isclose(gain * (WORDS - limit) / WORDS, 1.0, rel_tol=2**-52)


@pytest.mark.parametrize(
    ("layout", "rank", "names"),
    [
        ("b *", 3, ("b", "*0", "*1")),
        ("b *", 1, ("b",)),
        ("b *", 0, ()),
        ("b c *", 2, ("b", "c")),
        ("t b d", 3, ("t", "b", "d")),
        ("* d", 3, ("*0", "*1", "d")),
        ("b * d", 4, ("b", "*0", "*1", "d")),
    ],
)
def test_layouts(layout, rank, names):
    assert expand(layout, rank) == names


def test_layout_of_wrong_rank():
    with pytest.raises(InputError, match="needs a tensor of 3 axes, but got one of 2"):
        plan(Drop(Bernoulli(0.5), per="b d", of="b t d"), (3, 4))


def test_plan_of_a_time_first_layout():
    planned = plan(Drop(Bernoulli(0.5), per="b d", of="t b d"), (7, 3, 5))
    assert (planned.mask_shape, planned.sample_axis, planned.examples, planned.elements) == (
        (1, 3, 5),
        1,
        3,
        5,
    )


def test_covering_by_counting():
    for n, size in itertools.product(range(1, 9), range(1, 9)):
        if size <= n:
            counts = [0] * n
            for start in range(n - size + 1):
                for i in range(start, start + size):
                    counts[i] += 1
            assert covering(size, n) == counts


@pytest.mark.parametrize(
    ("shape", "block", "expected"), [((14, 14), 7, 0.093), ((7, 7), 3, 0.095), ((7, 7), 7, 0.1)]
)
def test_dropblock_fractions_of_the_paper(shape, block, expected):
    """The table of actual rates for a nominal 0.1."""
    extent = (block, block)
    assert round(block_fraction(seed_rate(0.1, extent, shape), extent, shape), 3) == expected


@pytest.mark.parametrize(
    ("shape", "extent"), [((4,), (2,)), ((3, 2), (2, 2)), ((2, 3), (1, 2)), ((3, 3), (3, 3))]
)
def test_block_fraction_by_enumeration(shape, extent):
    """Every pattern of seeds, weighted by its probability, and dilated by the rule written out."""
    gamma = 0.3
    seeds = [range(n - e + 1) for n, e in zip(shape, extent, strict=True)]
    positions = list(itertools.product(*seeds))
    total = 0.0
    for pattern in itertools.product((0, 1), repeat=len(positions)):
        is_dropped = np.zeros(shape)
        for start in (p for p, hit in zip(positions, pattern, strict=True) if hit):
            is_dropped[tuple(slice(i, i + e) for i, e in zip(start, extent, strict=True))] = 1
        total += (
            gamma ** sum(pattern)
            * (1 - gamma) ** (len(positions) - sum(pattern))
            * is_dropped.mean()
        )
    assert math.isclose(block_fraction(gamma, extent, shape), total, rel_tol=1e-12)


def test_blocks_are_whole():
    """Each dropped element is covered by a whole dropped block.

    The map is not square, and the block is even.
    """
    drop = presets.drop_block(0.3, (4, 3))
    planned = plan(drop, (5, 2, 9, 7))
    kept = engine.kept(planned, Key(3))
    is_dropped = ~kept
    assert is_dropped.any()
    windows = np.lib.stride_tricks.sliding_window_view(is_dropped, (4, 3), (2, 3)).all((-1, -2))
    rebuilt = np.zeros_like(is_dropped)
    for n, c, i, j in np.argwhere(windows):
        rebuilt[n, c, i : i + 4, j : j + 3] = True
    assert (rebuilt == is_dropped).all()


def test_block_reductions():
    """Block 1 draws the mask of dropout; a block as large as the map draws whole channels."""
    shape, key = (6, 5, 4, 3), Key(8)
    one = engine.kept(plan(presets.drop_block(0.4, 1), shape), key)
    assert (one == engine.kept(plan(presets.dropout(0.4), shape), key)).all()
    whole = engine.kept(plan(presets.drop_block(0.4, (4, 3)), shape), key)
    assert (whole == engine.kept(plan(presets.spatial_dropout(0.4), shape), key)).all()


def test_kept_fraction_scale_keeps_the_total():
    x = np.ones((4, 3, 14, 14))
    y = engine.sample(x, plan(presets.drop_block(0.2, 5), x.shape), Key(1))
    assert math.isclose(y.mean(), 1.0, rel_tol=1e-12)
    assert (y == 0).any()


def test_kept_fraction_scale_of_nothing_is_not_nan():
    drop = Drop(Bernoulli(1 - 2**-31), per=Block("*", 3), of="b c *", scale=KeptFraction())
    y = engine.sample(np.ones((1, 1, 3, 3)), plan(drop, (1, 1, 3, 3)), Key(0))
    assert (y == 0).all()


@pytest.mark.parametrize("block", [8, (7, 8), (3, 3, 3)])
def test_block_that_does_not_fit(block):
    with pytest.raises(
        InputError, match=r"larger than the map of 7 x 7|has 3 numbers, but the map has 2 axes"
    ):
        plan(presets.drop_block(0.1, block), (2, 3, 7, 7))


@pytest.mark.parametrize(
    "drop",
    [
        presets.dropout(0.3),
        presets.dropout(0.3, "classic"),
        presets.alpha_dropout(0.2),
        presets.drop_connect(0.4),
    ],
    ids=str,
)
def test_moments_by_enumeration(drop):
    """Both outcomes of one draw, weighted."""
    p = drop.law.p
    gain, shift, dropped = coefficients(drop, p)
    for x in (-1.3, 0.0, 2.5):
        outcomes = [(1 - p, gain * x + shift), (p, dropped)]
        mean = sum(w * y for w, y in outcomes)
        assert math.isclose(moments(drop).mean(x), mean, abs_tol=1e-12)
        assert math.isclose(
            moments(drop).var(x), sum(w * (y - mean) ** 2 for w, y in outcomes), abs_tol=1e-12
        )


def test_continuous_moments():
    assert moments(Drop(Gaussian(0.5))).var(3.0) == pytest.approx(9.0)
    assert moments(presets.uniform_dropout(0.3)).var(2.0) == pytest.approx(4 * 0.09 / 3)
    with pytest.raises(InputError, match="no moments for one element"):
        moments(presets.drop_block(0.1, 3))


def test_plans_are_cached():
    assert plan(presets.dropout(0.25), (8, 9)) is plan(presets.dropout(0.25), (8, 9))


def test_an_example_has_at_most_2_34_mask_elements():
    """Beyond, the counter of blocks would draw the same words again."""
    assert plan(presets.dropout(0.5), (2, 2**34)).elements == 2**34
    assert plan(presets.spatial_dropout(0.5), (2, 3, 2**40)).elements == 3
    with pytest.raises(InputError, match=r"17179869185 mask elements, .* at most 2\^34"):
        plan(presets.dropout(0.5), (2, 2**34 + 1))
    with pytest.raises(InputError, match=r"at most 2\^34"):
        functional.uniform((1, 2**34 + 1), Key(0), torch.empty(0, device="meta"))
