"""Jumpout, standout and fast dropout against their definitions, by enumeration or by reduction."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from thinned import InputError, nn, presets
from thinned import functional as F
from thinned.algebra import Key

X = torch.linspace(0.01, 1.0, 200 * 50, dtype=torch.float64).reshape(200, 50)


def test_jumpout_reduces_to_dropout():
    """At a certain rate, all units active and power 1 it is inverted dropout, draw by draw."""
    y = F.jumpout(X, 0.0, min_rate=0.3, power=1.0, key=Key(4))
    torch.testing.assert_close(y, F.drop(X, presets.dropout(0.3), key=Key(4)))
    assert F.jumpout(X, 0.0) is X
    assert F.jumpout(X, 0.2, training=False) is X


@pytest.mark.parametrize("sparsity", [0.0, 0.4, 0.7])
def test_jumpout_switches_off_the_same_share_however_sparse(sparsity):
    """The draw switches off a fraction p of all units, and kept ones are scaled by
    (1 - p / active)^-0.75.
    """
    x = X.where(torch.arange(X.numel()).reshape(X.shape) % 10 >= 10 * sparsity, 0.0)
    y = F.jumpout(x, 0.0, min_rate=0.2, max_rate=0.9, key=Key(1))
    dropped = (x > 0) & (y == 0)
    assert abs(dropped.sum().item() / x.numel() - 0.2) < 4.9 * math.sqrt(
        0.25 / x.numel()
    )  # alpha 1e-6
    kept = y != 0
    torch.testing.assert_close(y[kept], x[kept] * (1 - 0.2 / (1 - sparsity)) ** -0.75)


def test_jumpout_draws_its_rate_once_a_call():
    """p is |N(0, sigma^2)|, cut at ``max_rate``: over keys its mean is sigma sqrt(2 / pi)."""
    rates = [(F.jumpout(X, 0.1, key=Key(s)) == 0).double().mean().item() for s in range(400)]
    assert abs(sum(rates) / 400 - 0.1 * math.sqrt(2 / math.pi)) < 4.9 * 0.061 / 20  # alpha 1e-6
    assert all(
        r < 0.62
        for r in (((F.jumpout(X, 1.0, key=Key(s)) == 0).double().mean().item()) for s in range(50))
    )
    with pytest.raises(
        InputError, match=r"0 <= min_rate <= max_rate < 1, but got min_rate=0\.5 and max_rate=0\.2"
    ):
        F.jumpout(X, min_rate=0.5, max_rate=0.2)


def test_standout_keeps_by_its_own_pre_activation():
    h = torch.randn(4000, 3, dtype=torch.float64)
    for alpha, beta in ((1.0, 0.0), (-2.0, 0.5)):
        mean = torch.stack(
            [F.standout(h[:50], torch.tanh, alpha, beta, key=Key(s)) for s in range(3000)]
        ).mean(0)
        exact = F.standout(h[:50], torch.tanh, alpha, beta, training=False)
        torch.testing.assert_close(exact, torch.sigmoid(alpha * h[:50] + beta) * torch.tanh(h[:50]))
        assert (
            (mean - exact).abs() < 5.2 * 0.5 * torch.tanh(h[:50]).abs() / 3000**0.5
        ).all()  # alpha 1e-5 over 150 units


def test_standout_at_alpha_0_is_classic_dropout():
    h, beta = torch.randn(40, 30, dtype=torch.float64), 0.4
    spec = presets.dropout(
        1 - torch.sigmoid(torch.tensor(beta, dtype=torch.float64)).item(), "classic"
    )
    y = F.standout(h, torch.relu, 0.0, beta, key=Key(2))
    torch.testing.assert_close(y, F.drop(h.relu(), spec, key=Key(2)))
    torch.testing.assert_close(
        F.standout(h, torch.relu, 0.0, beta, False), F.drop(h.relu(), spec, mode="mean")
    )


def test_fast_dropout_has_the_moments_of_all_masks():
    """Mean and variance over all 2^n masks, and for random inputs."""
    torch.manual_seed(0)
    n, p = 8, 0.3
    x, w, b = torch.randn(n).double(), torch.randn(3, n).double(), torch.randn(3).double()
    masks = torch.tensor(list(itertools.product((0.0, 1.0), repeat=n)), dtype=torch.float64)
    weights = (1 - p) ** masks.sum(1) * p ** (n - masks.sum(1))
    sums = (masks * x / (1 - p)) @ w.T + b
    mean = weights @ sums
    var = weights @ (sums - mean).square()
    got = F.fast_dropout(x, w, b, p)
    torch.testing.assert_close(got[0], mean)
    torch.testing.assert_close(got[1], var)
    # random inputs: X = m z / q, E z = mu, Var z = v
    mu, v = torch.randn(n).double(), torch.rand(n).double()
    second = (mu.square() + v) / (1 - p) - mu.square()
    torch.testing.assert_close(F.fast_dropout(mu, w, b, p, v)[1], second @ w.square().T)
    assert torch.equal(F.fast_dropout(x, w, b, 0.0)[1], torch.zeros(3).double())


def test_gaussian_moments_are_the_integrals():
    """E max(0, z), Var max(0, z) by quadrature; E sigmoid(z) within the known 0.02 of the
    approximation.
    """
    z, weight = torch.linspace(-12, 12, 200_001, dtype=torch.float64), None
    weight = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    for mean, var in ((0.0, 1.0), (-1.3, 0.4), (2.0, 3.0), (-4.0, 1.0)):
        at = mean + math.sqrt(var) * z
        first = (weight * at.relu()).sum()
        spread = (weight * at.relu().square()).sum() - first.square()
        got = F.rectified_moments(torch.tensor(mean).double(), torch.tensor(var).double())
        torch.testing.assert_close(
            torch.stack(got), torch.stack((first, spread)), rtol=1e-6, atol=1e-9
        )
        logistic = (weight * torch.sigmoid(at)).sum()
        assert abs(F.sigmoid_mean(torch.tensor(mean), torch.tensor(var)) - logistic) < 0.02
    flat = F.rectified_moments(torch.tensor([-1.0, 2.0]), torch.zeros(2))
    assert torch.equal(torch.stack(flat), torch.tensor([[0.0, 2.0], [0.0, 0.0]]))


def test_fast_dropout_trains_what_sampling_averages():
    """The deterministic layer is near the mean of many sampled passes, much nearer than the
    ordinary network.
    """
    torch.manual_seed(0)
    first, second = torch.nn.Linear(400, 64).double(), torch.nn.Linear(64, 5).double()
    fast = torch.nn.Sequential(nn.FastDropout(first, 0.5, "relu"), nn.FastDropout(second, 0.5))
    drawn = torch.nn.Sequential(nn.Dropout(0.5), first, torch.nn.ReLU(), nn.Dropout(0.5), second)
    x = torch.randn(1, 400).double()
    many = drawn(x.expand(20_000, 400))
    mean, var = fast(x)
    assert (mean - many.mean(0)).abs().max() < 0.02
    torch.testing.assert_close(
        var[0], many.var(0), rtol=0.25, atol=0
    )  # units share inputs, which the variance leaves out
    assert (drawn.eval()(x) - many.mean(0)).abs().max() > 0.05
    fast.eval()
    torch.testing.assert_close(fast(x)[0], drawn(x))
    assert not fast(x)[1].any()


def test_refused():
    for build, message in (
        (
            lambda: nn.FastDropout(torch.nn.Conv1d(1, 1, 1)),
            "needs a torch.nn.Linear, but got Conv1d",
        ),
        (lambda: nn.FastDropout(torch.nn.Linear(1, 1), 1.0), "at least 0 and below 1"),
        (lambda: nn.FastDropout(torch.nn.Linear(1, 1), 0.5, "tanh"), "unknown activation 'tanh'"),
        (lambda: nn.droq(4, hidden=()), "at least one hidden layer"),
        (lambda: nn.droq(0), "inputs has to be at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            build()
