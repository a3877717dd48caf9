"""Elementwise methods against closed forms, enumeration over masks, and constants of papers."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch

import thinned
from thinned import functional as F
from thinned import nn, presets
from thinned.algebra import (
    Drop,
    Key,
    moments,
)
from thinned.algebra.moments import variance_ratio_uniform
from thinned.algebra.plan import coefficients


def masks(n):
    return np.array(list(itertools.product((0.0, 1.0), repeat=n)))


def test_geometric_mean_of_one_softmax_layer_is_weight_scaling():
    """Over all 2^6 masks, weighted: the renormalized geometric mean is classic evaluation, to 12
    digits.
    """
    rng = np.random.default_rng(0)
    x, w, b, p = rng.normal(size=6), rng.normal(size=(4, 6)), rng.normal(size=4), 0.3
    log_mean, mean = np.zeros(4), np.zeros(4)
    for m in masks(6):
        z = b + w @ (m * x)
        log_probability = z - np.logaddexp.reduce(z)
        weight = np.prod(np.where(m == 1, 1 - p, p))
        log_mean += weight * log_probability
        mean += weight * np.exp(log_probability)
    geometric = np.exp(log_mean) / np.exp(log_mean).sum()
    scaled = F.drop(torch.from_numpy(x), presets.dropout(p, "classic"), mode="mean").numpy()
    z = b + w @ scaled
    np.testing.assert_allclose(
        geometric, np.exp(z) / np.exp(z).sum(), rtol=1e-9
    )  # the threshold's rate is p to 2^-33
    assert np.abs(mean - geometric).max() > 1e-3  # the arithmetic mean differs


def test_marginal_linear_regression():
    """E|y - (R X) w|^2 = |y - q X w|^2 + p q |Gamma w|^2, Gamma^2 = diag(X'X): by all 2^(3x3) masks
    (Srivastava 9.1).
    """
    rng = np.random.default_rng(1)
    x, y, w, p = rng.normal(size=(3, 3)), rng.normal(size=3), rng.normal(size=3), 0.4
    expected = 0.0
    for m in masks(9):
        weight = np.prod(np.where(m == 1, 1 - p, p))
        expected += weight * np.sum((y - (m.reshape(3, 3) * x) @ w) ** 2)
    mo = moments(presets.dropout(p, "classic"))
    variance = sum(mo.var(x[i, j]) * w[j] ** 2 for i in range(3) for j in range(3))
    closed = np.sum((y - mo.gain * x @ w) ** 2) + variance
    assert math.isclose(closed, expected, rel_tol=1e-12)
    gamma = np.sqrt(np.diag(x.T @ x))
    assert math.isclose(
        np.sum((y - (1 - p) * x @ w) ** 2) + p * (1 - p) * np.sum((gamma * w) ** 2),
        expected,
        rel_tol=1e-12,
    )


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_classic_and_inverted_are_one_method(momentum):
    """SGD on classic with rate lr equals inverted with q^2 lr on the weights after the dropout, W'
    = q W, same masks.
    """
    p, q, lr = 0.3, 1 - 0.3, 0.1
    torch.manual_seed(0)
    first, second = torch.nn.Linear(5, 8).double(), torch.nn.Linear(8, 3).double()
    inputs, target = torch.randn(40, 16, 5).double(), torch.randn(40, 16, 3).double()

    def train(scaling, rate):
        net = torch.nn.Sequential(
            copy.deepcopy(first),
            torch.nn.ReLU(),
            nn.SpecDropout(presets.dropout(p, scaling)),
            copy.deepcopy(second),
        )
        if scaling == "inverted":
            net[3].weight.data *= q
        key = thinned.key(net, seed=4)
        groups = [
            {"params": [net[3].weight], "lr": rate},
            {"params": [*net[0].parameters(), net[3].bias], "lr": lr},
        ]
        optimizer = torch.optim.SGD(groups, lr=lr, momentum=momentum)
        for step, (x, y) in enumerate(zip(inputs, target, strict=True)):
            key.at(step)
            optimizer.zero_grad()
            (net(x) - y).square().mean().backward()
            optimizer.step()
        return net.eval()

    classic, inverted = train("classic", lr), train("inverted", q * q * lr)
    torch.testing.assert_close(inverted[3].weight, q * classic[3].weight, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(classic(inputs[0]), inverted(inputs[0]), rtol=1e-6, atol=1e-9)


def test_dropped_unit_has_no_gradient():
    """A dropped unit gives no gradient to its incoming and outgoing weights, for that example."""
    torch.manual_seed(1)
    one, two = torch.nn.Linear(4, 10), torch.nn.Linear(10, 2)
    hidden = F.drop(one(torch.randn(1, 4)), presets.dropout(0.5), key=Key(2))
    two(hidden).sum().backward()
    is_dropped = hidden[0] == 0
    assert is_dropped.any()
    assert not is_dropped.all()
    assert not one.weight.grad[is_dropped].any()
    assert not two.weight.grad[:, is_dropped].any()
    assert one.weight.grad[~is_dropped].all()


def test_deep_linear_network_is_its_own_ensemble():
    """With independent masks, the mean over all 2^(3+3) subnetworks of a linear net is the scaled
    net, exactly.
    """
    rng = np.random.default_rng(2)
    a, b, x, p = rng.normal(size=(3, 3)), rng.normal(size=(2, 3)), rng.normal(size=3), 0.2
    total = np.zeros(2)
    for m in masks(6):
        weight = np.prod(np.where(m == 1, 1 - p, p))
        total += weight * (b @ (m[3:] / (1 - p) * (a @ (m[:3] / (1 - p) * x))))
    np.testing.assert_allclose(total, b @ (a @ x), rtol=1e-12)


def test_two_inverted_dropouts_are_one():
    """The composition's mean and second moment are those of q = q1 q2."""
    one, two, both = (moments(presets.dropout(p)) for p in (0.2, 0.5, 1 - 0.8 * 0.5))
    x = 1.7
    second = (
        (two.square + 1) * (one.square + 1) * x * x
    )  # E[y^2] = (var factor + 1) x^2, applied twice
    assert math.isclose(second, (both.square + 1) * x * x, rel_tol=1e-12)


def test_sharing_a_draw_raises_the_variance_of_a_sum():
    """Sharing: per element <= per channel <= per example, for inputs of one sign."""
    x = torch.ones(1, 4, 6)

    def spread(drop):
        return (
            torch.stack([F.drop(x, drop, key=Key(seed)).sum() for seed in range(800)]).var().item()
        )

    law = presets.dropout(0.5).law
    element, channel, example = (
        spread(Drop(law, per=per, of="b c *")) for per in ("b c *", "b c", "b")
    )
    # 24 x^2 p/q, 24 * 6, 24 * 24; a sample variance of 800 draws is within 25 % at alpha 1e-6
    for measured, expected in ((element, 24), (channel, 144), (example, 576)):
        assert 0.75 * expected < measured < 1.25 * expected


def test_gaussian_has_the_moments_of_inverted():
    for p in (0.1, 0.5, 0.9):
        a, b = moments(presets.gaussian_dropout(p)), moments(presets.dropout(p))
        assert (a.gain, a.shift) == (1.0, 0.0)
        assert math.isclose(a.square, b.square, rel_tol=1e-12)


def test_gaussian_noise_is_normal():
    """Kolmogorov-Smirnov against the normal distribution, alpha 1e-6, and both halves of Box-Muller
    uncorrelated.
    """
    from scipy import stats

    noise = (
        F.drop(torch.ones(200, 500, dtype=torch.float64), presets.gaussian_dropout(0.5), key=Key(3))
        - 1
    )
    assert stats.kstest(noise.view(-1).numpy(), "norm").pvalue > 1e-6
    pairs = noise.view(-1, 2)
    assert abs(torch.corrcoef(pairs.T)[0, 1]) < 4.9 / math.sqrt(len(pairs))


def test_uniform_noise_is_uniform():
    from scipy import stats

    noise = F.drop(
        torch.ones(200, 500, dtype=torch.float64), presets.uniform_dropout(0.1), key=Key(3)
    )
    assert stats.kstest((noise.view(-1).numpy() - 0.9) / 0.2, "uniform").pvalue > 1e-6


def test_uout_variance_ratio():
    """300/301 = 0.99668 at beta 0.1 (Li et al. 2019)."""
    assert math.isclose(variance_ratio_uniform(0.1), 300 / 301, rel_tol=1e-12)
    assert math.isclose(
        1 / (1 + moments(presets.uniform_dropout(0.1)).square), 300 / 301, rel_tol=1e-12
    )


@pytest.mark.parametrize(
    ("p", "a", "b"),
    [(0.05, 0.954845, 0.083936), (0.1, 0.921285, 0.161970), (0.5, 0.886405, 0.779194)],
)
def test_alpha_constants(p, a, b):
    gain, shift, _ = coefficients(presets.alpha_dropout(p), p)
    assert abs(gain - a) < 1.1e-6
    assert abs(shift - b) < 1.1e-6


@pytest.mark.parametrize("p", [0.05, 0.3, 0.9])
def test_alpha_keeps_mean_zero_and_variance_one(p):
    """Exactly: E over masks and over any input of mean 0 and variance 1.

    Here x = -1 or 1 with even odds.
    """
    m = moments(presets.alpha_dropout(p))
    mean = (m.mean(-1.0) + m.mean(1.0)) / 2
    second = sum(m.var(x) + m.mean(x) ** 2 for x in (-1.0, 1.0)) / 2
    assert math.isclose(mean, 0.0, abs_tol=1e-12)
    assert math.isclose(second, 1.0, rel_tol=1e-12)


def test_alpha_through_twenty_selu_layers():
    """Mean and variance stay near (0, 1) through 20 layers; ordinary dropout drifts away."""
    generator = torch.Generator().manual_seed(0)
    weights = [
        torch.randn(256, 256, generator=generator, dtype=torch.float64) / 16 for _ in range(20)
    ]

    def final(drop):
        x = torch.randn(500, 256, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        for layer, w in enumerate(weights):
            x = F.drop(torch.selu(x @ w), drop, key=Key(0, stream=layer))
        return x.mean().item(), x.var().item()

    mean, var = final(presets.alpha_dropout(0.1))
    assert abs(mean) < 0.1
    assert 0.8 < var < 1.2
    mean, var = final(presets.dropout(0.1))
    assert var > 1.5 or abs(mean) > 0.3


def test_alpha_has_the_distribution_of_torch():
    x = torch.zeros(100_000)
    ours, theirs = (
        F.alpha_dropout(x, 0.2, True).unique(),
        torch.nn.functional.alpha_dropout(x, 0.2, True).unique(),
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
