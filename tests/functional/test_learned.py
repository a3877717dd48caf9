"""Concrete, variational, sparse variational and information dropout: means, divergences and
reductions against exact ones.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import torch

import thinned
from thinned import InputError, nn, presets
from thinned import functional as F
from thinned.algebra import Key

torch_nn = torch.nn


def logit(p):
    return torch.tensor(math.log(p / (1 - p)), dtype=torch.float64)


# rate, temperature, E[1 - z] of the relaxed mask; the published layer divides by 1 - p instead
BIASED = [
    (0.1, 0.1, 0.89882),
    (0.1, 2 / 3, 0.85471),
    (0.3, 2 / 3, 0.66186),
    (0.5, 0.1, 0.5),
    (0.5, 2 / 3, 0.5),
]


def concrete_integral(p, t):
    """E[1 - z] by adaptive quadrature over logit u, which is logistic."""
    a, expit = math.log(p / (1 - p)), scipy.special.expit
    integrand = lambda v: expit(-(a + v) / t) * expit(v) * expit(-v)  # noqa: E731
    return sum(
        scipy.integrate.quad(integrand, *part, epsabs=1e-13, limit=500)[0]
        for part in ((-60, -a), (-a, 60))
    )


@pytest.mark.parametrize(("p", "t", "mean"), BIASED)
def test_the_concrete_mask_does_not_keep_its_mean(p, t, mean):
    """The table, the closed integral, and draws of the layer: as published up to 5 % low, unbiased
    when asked for.
    """
    assert round(concrete_integral(p, t), 5) == mean
    assert math.isclose(F.concrete_mean(logit(p), t).item(), concrete_integral(p, t), abs_tol=1e-9)
    ones = torch.ones(400, 1000, dtype=torch.float64)
    published = F.concrete_dropout(ones, logit(p), t, key=Key(1))
    unbiased = F.concrete_dropout(ones, logit(p), t, unbiased=True, key=Key(1))
    error = 4.9 * published.std().item() / math.sqrt(ones.numel())  # alpha 1e-6
    assert abs(published.mean().item() - concrete_integral(p, t) / (1 - p)) < error
    assert abs(unbiased.mean().item() - 1.0) < 1.1 * error
    if (p, t) == (0.1, 2 / 3):
        assert abs(published.mean().item() - 1.0) > 10 * error  # so the 5 % is significant


def test_concrete_mean_is_smooth_in_the_rate():
    for p in (0.001, 0.05, 0.3, 0.5, 0.9, 0.999):
        for t in (0.02, 0.1, 2 / 3, 1.0, 2.0):
            assert math.isclose(
                F.concrete_mean(logit(p), t).item(), concrete_integral(p, t), abs_tol=2e-8
            )
    logits = torch.linspace(-4, 4, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: F.concrete_mean(a, 0.4), (logits,))
    torch.testing.assert_close(
        F.concrete_mean(logits, 0.4) + F.concrete_mean(-logits, 0.4), torch.ones(9).double()
    )


def test_concrete_is_dropout_where_it_is_cold():
    x = torch.randn(200, 50, dtype=torch.float64)
    y = F.concrete_dropout(x, logit(0.3), 1e-4, key=Key(2))
    ratio = y / x
    hard = (ratio < 1e-9) | ((ratio - 1 / 0.7).abs() < 1e-9)
    assert hard.double().mean() > 0.995
    dropped = int((ratio < 0.5).sum())
    assert abs(dropped - 3000) < 4.9 * math.sqrt(2100)  # alpha 1e-6
    maps = F.concrete_dropout(torch.ones(4, 3, 5, 5), logit(0.3), 2 / 3, per="channel", key=Key(2))
    assert torch.equal(maps, maps[:, :, :1, :1].expand_as(maps))
    assert len(maps[:, :, 0, 0].unique()) == 12
    assert F.concrete_dropout(x, logit(0.3), training=False) is x


def test_concrete_divergence():
    """K times the negative entropy, smallest at 1/2; the term of the weights is that of
    the authors' code for inverted scaling.
    """
    for p in (0.05, 0.5, 0.8):
        entropy = -(p * math.log(p) + (1 - p) * math.log(1 - p))
        assert math.isclose(
            F.concrete_divergence(logit(p), 30).item(), -30 * entropy, rel_tol=1e-12
        )
        w = torch.randn(7, 30).double()
        whole = F.concrete_divergence(logit(p), 30, w, length=0.1).item()
        assert math.isclose(
            whole, -30 * entropy + 0.01 * w.square().sum().item() / (2 * (1 - p)), rel_tol=1e-12
        )
    at = torch.linspace(-3, 3, 61, dtype=torch.float64)
    assert F.concrete_divergence(at, 1).argmin() == 30
    layer = nn.ConcreteDropout(30, 0.05)
    assert math.isclose(
        layer.divergence().item(), F.concrete_divergence(logit(0.05), 30).item(), rel_tol=1e-5
    )
    layer.divergence().backward()
    assert layer.logit.grad < 0  # towards more noise


def test_the_concrete_rate_follows_the_data():
    """Where noise costs nothing the rate grows; where every unit is needed it shrinks."""
    torch.manual_seed(0)
    rates = []
    for needed in (False, True):
        layer = nn.ConcreteDropout(8, 0.2)
        optimizer = torch.optim.Adam(layer.parameters(), 0.05)
        x = torch.randn(64, 8)
        for _ in range(60):
            loss = nn.divergence(layer, examples=64) + (
                20.0 * (layer(x) - x).square().mean() if needed else 0.0
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        rates.append(layer.p)
    assert rates[0] > 0.4
    assert rates[1] < 0.1


def test_variational_with_a_fixed_alpha_is_gaussian_dropout():
    x, p = torch.randn(40, 9), 0.3
    y = F.variational_dropout(x, torch.tensor(p / (1 - p)), key=Key(3))
    torch.testing.assert_close(y, F.drop(x, presets.gaussian_dropout(p), key=Key(3)))
    units = torch.tensor([0.0, 0.5, 1.0]).repeat(3)
    z = F.variational_dropout(x, units, key=Key(3))
    assert torch.equal(z[:, ::3], x[:, ::3])
    ones = torch.ones(200_000, 3, dtype=torch.float64)
    drawn = F.variational_dropout(ones, units[:3], key=Key(4))
    torch.testing.assert_close(
        drawn.var(0), units[:3].double(), rtol=0.02, atol=1e-12
    )  # 6 deviations of sqrt(2 / n)
    layer = nn.VariationalDropout(9, p)
    assert math.isclose(layer.p, p, rel_tol=1e-6)
    torch.testing.assert_close(layer.alpha, torch.full((9,), p / (1 - p)))
    assert layer.eval()(x) is x


def exact_divergence(alpha):
    """KL to the log-uniform prior, 0 in the limit of infinite alpha.

    dKL/du = D(sqrt(u)) / sqrt(u), u = 1 / (2 alpha).
    """
    return (
        2.0
        * scipy.integrate.quad(
            scipy.special.dawsn, 0.0, math.sqrt(0.5 / alpha), epsabs=1e-12, limit=500
        )[0]
    )


def test_the_exact_divergence_is_an_expectation():
    """The Dawson form against -log(alpha) / 2 + E log |1 + sqrt(alpha) e|, up to its constant."""
    nodes = np.linspace(-12, 12, 2_000_001)
    density = np.exp(-0.5 * nodes**2) / math.sqrt(2 * math.pi)

    def direct(alpha):
        inside = np.log(np.maximum(np.abs(1 + math.sqrt(alpha) * nodes), 1e-12))
        return -0.5 * math.log(alpha) + np.trapezoid(inside * density, nodes)

    for alpha in (0.1, 1.0, 10.0):
        difference = direct(alpha) - direct(3.0)
        assert math.isclose(
            difference, exact_divergence(alpha) - exact_divergence(3.0), abs_tol=2e-5
        )


def test_variational_divergence_against_the_exact_one():
    alpha = torch.linspace(0.01, 1.0, 100, dtype=torch.float64, requires_grad=True)
    approximate = F.variational_divergence(alpha)
    difference = approximate.detach().numpy() - np.array(
        [exact_divergence(a) for a in alpha.tolist()]
    )
    assert np.ptp(difference) < 0.038
    slopes = torch.autograd.grad(approximate.sum(), alpha)[0].numpy()
    at = alpha.detach().numpy()
    exact = -scipy.special.dawsn(np.sqrt(0.5 / at)) / np.sqrt(0.5 / at) / (2 * at**2)
    assert (
        np.max(np.abs(slopes - exact) * at) < 0.07
    )  # against d / d log alpha, which starts at 1/2
    assert np.all(exact < 0)  # more noise has a lower KL: alpha grows unless the data prevent it
    for per, count in (("unit", 5), ("layer", 5)):
        layer = nn.VariationalDropout(5, 0.25, per=per)
        expected = count * F.variational_divergence(torch.tensor(1 / 3)).item()
        assert math.isclose(layer.divergence().item(), expected, rel_tol=1e-5)


def test_sparse_divergence_against_the_exact_one():
    log_alpha = torch.linspace(-8, 8, 161, dtype=torch.float64)
    exact = np.array([exact_divergence(math.exp(a)) for a in log_alpha.tolist()])
    error = np.abs(F.sparse_divergence(log_alpha).numpy() - exact)
    assert error.max() < 0.0095
    assert error.max() > 0.008  # the constants are those of the paper, and no better
    assert math.isclose(exact[80], 0.42669, abs_tol=5e-6)
    assert math.isclose(F.sparse_divergence(torch.zeros(1)).item(), 0.43124, abs_tol=5e-6)


@pytest.mark.parametrize(
    "module",
    [torch_nn.Linear(6, 4), torch_nn.Conv2d(3, 4, 3, padding=1), torch_nn.ConvTranspose1d(3, 4, 3)],
    ids=str,
)
def test_local_reparameterization_has_the_moments_of_drawn_weights(module):
    """Mean and variance of the output, by draws of the layer and in closed form of independent
    weights.
    """
    module = copy.deepcopy(module).double()
    layer = nn.SparseVariationalDropout(module)
    with torch.no_grad():
        layer.log_variance.uniform_(-4.0, 0.0)
    shape = {"Linear": (6,), "Conv2d": (3, 4, 4), "ConvTranspose1d": (3, 5)}[type(module).__name__]
    x = torch.randn(1, *shape, dtype=torch.float64)
    n = 20_000
    with torch.no_grad():
        drawn = layer(x.expand(n, *shape))
        zero = copy.deepcopy(module)
        zero.weight.copy_(layer.log_alpha.exp() * module.weight.square())
        zero.bias.zero_()
        var = zero(x.square())[0]
    assert (
        (drawn.mean(0) - module(x)[0]).abs() < 5.6 * (var / n).sqrt()
    ).all()  # alpha 1e-6 over 64 outputs
    assert ((drawn.var(0) / var - 1).abs() < 5.6 * math.sqrt(2 / n)).all()


def test_sparse_variational_prunes_in_evaluation_alone():
    linear, x = torch_nn.Linear(8, 5), torch.randn(4, 8)
    plain = copy.deepcopy(linear)
    layer = nn.SparseVariationalDropout(linear)
    torch.testing.assert_close(layer.eval()(x), plain(x))  # at the start nothing is removed
    assert layer.kept_weights().all()
    with torch.no_grad():
        layer.log_variance.copy_(
            (plain.weight.square() + 1e-8).log() + torch.where(torch.rand(5, 8) < 0.4, 3.5, 2.5)
        )
    removed = ~layer.kept_weights()
    assert torch.equal(removed, layer.log_alpha > 3.0)
    assert 0 < removed.sum() < 40
    pruned = plain.weight.masked_fill(removed, 0.0)
    torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, pruned, plain.bias))
    with thinned.off(layer):
        torch.testing.assert_close(layer(x), plain(x))
    assert math.isclose(
        layer.divergence().item(), F.sparse_divergence(layer.log_alpha).sum().item(), rel_tol=1e-6
    )
    assert list(layer.state_dict()) == ["weight", "bias", "log_variance"]
    assert list(linear.state_dict()) == ["weight", "bias"]
    assert nn.SparseVariationalDropout(linear, threshold=9.0).kept_weights().all()


def test_sparse_variational_removes_inputs_without_information():
    """Regression on 2 of 10 inputs, all orthogonal to each other and to the noise: most weights of
    the others are removed.
    """
    torch.manual_seed(0)
    columns = (
        20.0 * torch.linalg.qr(torch.cat((torch.ones(400, 1), torch.randn(400, 11)), 1)).Q
    )  # of mean square 1
    x, y = columns[:, 1:11], 2.0 * columns[:, 1:2] - columns[:, 2:3] + 0.1 * columns[:, 11:]
    layer = nn.SparseVariationalDropout(torch_nn.Linear(10, 1))
    optimizer = torch.optim.Adam(layer.parameters(), 0.05)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, 400)
    for step in range(400):
        fit = 50.0 * (layer(x) - y).square().mean()  # the log-likelihood for a deviation of 0.1
        loss = fit + min(1.0, step / 100) * nn.divergence(layer, examples=400)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    kept = layer.kept_weights()[0]
    assert kept[:2].all()
    assert kept[2:].sum() <= 3  # a few still vary under the noise
    assert (layer.eval()(x) - y).square().mean() < 0.011


def test_information_dropout():
    """Its noise is log-normal: median 1 and mean exp(alpha^2 / 2); at no alpha the identity, at the
    largest no divergence.
    """
    ones = torch.ones(300, 1000, dtype=torch.float64)
    for alpha in (0.2, 0.7):
        drawn = F.information_dropout(ones, torch.tensor(alpha), key=Key(5))
        error = 4.9 * drawn.std().item() / math.sqrt(ones.numel())  # alpha 1e-6
        assert abs(drawn.mean().item() - math.exp(alpha**2 / 2)) < error
        assert abs((drawn < 1).double().mean().item() - 0.5) < 4.9 * 0.5 / math.sqrt(ones.numel())
        torch.testing.assert_close(
            drawn.log().std(), torch.tensor(alpha).double(), rtol=0.01, atol=0
        )
    assert torch.equal(F.information_dropout(ones, torch.zeros(())), ones)
    assert F.information_divergence(torch.tensor(0.701), 0.701).abs() < 1e-6
    assert (F.information_divergence(torch.linspace(0.001, 0.701, 50), 0.701) > -1e-6).all()


def test_information_layers():
    module, noise, x = torch_nn.Linear(6, 4), torch_nn.Linear(6, 4), torch.randn(5, 6)
    layer = nn.InformationDropout(torch_nn.Sequential(module, torch_nn.ReLU()), noise, 0.7)
    with pytest.raises(InputError, match="call the model first"):
        layer.divergence()
    with thinned.recording(layer) as tape:
        y = layer(x)
    alpha = 0.001 + 0.7 * torch.sigmoid(noise(x))
    torch.testing.assert_close(
        y, F.information_dropout(module(x).relu(), alpha, key=tape.drawn[""][0])
    )
    torch.testing.assert_close(layer.divergence(), -(alpha / 0.701).log().sum() / 5)
    layer.divergence().backward()
    assert noise.weight.grad.count_nonzero()
    torch.testing.assert_close(layer.eval()(x), module(x).relu())
    with torch.no_grad():
        noise.weight.zero_()
        noise.bias.fill_(-30.0)
    torch.testing.assert_close(
        layer.train()(x), module(x).relu(), rtol=0.01, atol=1e-6
    )  # alpha 0.001
    wrong = nn.InformationDropout(module, torch_nn.Linear(6, 3))
    with pytest.raises(
        InputError,
        match=r"the noise has to be of shape \[5, 4\] as the activations, but got \[5, 3\]",
    ):
        wrong(x)


def test_divergences_add_up():
    """The KL terms of rates and weights are shared by the training set.

    That of information dropout is a mean over its examples.
    """
    model = torch_nn.Sequential(
        nn.ConcreteDropout(6),
        nn.SparseVariationalDropout(torch_nn.Linear(6, 5)),
        nn.VariationalDropout(5),
        nn.InformationDropout(torch_nn.Linear(5, 4), torch_nn.Linear(5, 4)),
        nn.Dropout(0.5),
    )
    model(torch.randn(3, 6))
    parts = [h.divergence() for h in model[:4]]
    torch.testing.assert_close(nn.divergence(model), sum(parts))
    total = nn.divergence(model, examples=50)
    torch.testing.assert_close(total, sum(parts[:3]) / 50 + parts[3])
    total.backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if "log" in name)
    with pytest.raises(InputError, match="no dropout that is learned"):
        nn.divergence(torch_nn.Sequential(nn.Dropout(0.5)))
    with pytest.raises(InputError, match="examples has to be at least 1, but got 0"):
        nn.divergence(model, examples=0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.ConcreteDropout(4, 0.0), "has to be above 0 and below 1, but got 0.0"),
        (lambda: nn.ConcreteDropout(4, 1.5), "between 0 and 1, but got 1.5"),
        (
            lambda: nn.ConcreteDropout(4, temperature=0.0),
            "temperature has to be above 0, but got 0.0",
        ),
        (lambda: nn.ConcreteDropout(4, per="row"), "unknown per 'row'"),
        (lambda: F.concrete_dropout(torch.ones(2, 2), logit(0.1), per="row"), "unknown per 'row'"),
        (
            lambda: nn.ConcreteDropout(4)(torch.ones(2, 5)),
            r"for 4 features on axis -1 \(the last\), but got an input of \[2, 5\]",
        ),
        (
            lambda: nn.ConcreteDropout(4, per="channel")(torch.ones(4)),
            r"4 features on axis 1, but got an input of \[4\]",
        ),
        (lambda: nn.VariationalDropout(0), "features has to be at least 1, but got 0"),
        (lambda: nn.VariationalDropout(4, 0.5), "above 0 and below 0.5, but got 0.5"),
        (lambda: nn.VariationalDropout(4, per="weight"), "unknown per 'weight'"),
        (
            lambda: nn.SparseVariationalDropout(torch_nn.LSTM(2, 2)),
            "torch.nn.Linear or a convolution, but got LSTM",
        ),
        (
            lambda: nn.InformationDropout(torch_nn.Identity(), torch_nn.Identity(), 0.0),
            "max_alpha has to be above 0",
        ),
    ],
)
def test_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()
