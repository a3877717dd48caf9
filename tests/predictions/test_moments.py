"""Moments in one pass: exact on linear networks, near the enumeration and samples on others."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

import thinned
import thinned.nn as tnn
from thinned import presets
from thinned.predictions.moments import propagate_moments


def enumerate_linear(model, x, units, p):
    """Mean and covariance over all 2^units masks of the first dropout layer, by its definition."""
    outputs, weights = [], []
    for bits in itertools.product((0, 1), repeat=units):
        mask = torch.tensor(bits, dtype=x.dtype) / (1 - p)
        outputs.append(model(x * mask))
        weights.append((1 - p) ** sum(bits) * p ** (units - sum(bits)))
    y, w = torch.stack(outputs), torch.tensor(weights, dtype=x.dtype)
    mean = (w[:, None, None] * y).sum(0)
    centered = y - mean
    return mean, torch.einsum("n,nbi,nbj->bij", w, centered, centered)


def test_one_dropout_layer_and_linear_layers_are_exact():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)).double()
    x = torch.randn(4, 6).double()
    found = propagate_moments(nn.Sequential(nn.Dropout(0.3), *body), x)
    mean, covariance = enumerate_linear(body, x, 6, 0.3)
    torch.testing.assert_close(found.mean, mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.covariance, covariance, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.variance, covariance.diagonal(dim1=1, dim2=2))


def sampled(model, x, count=20_000):
    torch.manual_seed(1)
    with torch.no_grad(), thinned.sampling(model.eval()):
        y = torch.stack([model(x) for _ in range(count)]).flatten(2)
    centered = y - y.mean(0)
    return y.mean(0), torch.einsum("nbi,nbj->bij", centered, centered) / count


LINEAR = {
    "two layers": lambda: nn.Sequential(
        nn.Dropout(0.2), nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 2)
    ),
    "gaussian": lambda: nn.Sequential(nn.Linear(4, 6), tnn.GaussianDropout(0.3), nn.Linear(6, 2)),
    "uniform": lambda: nn.Sequential(nn.Linear(4, 6), tnn.UniformDropout(0.3), nn.Linear(6, 2)),
    "classic": lambda: nn.Sequential(
        nn.Linear(4, 6), tnn.Dropout(0.3, scale="classic"), nn.Linear(6, 2)
    ),
    "maps": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)),
        nn.Conv2d(1, 3, 2, padding=1),
        nn.BatchNorm2d(3),
        nn.Dropout2d(0.4),
        nn.AvgPool2d(2, 1),
        nn.Flatten(),
        nn.Linear(12, 2),
    ),
}


@pytest.mark.parametrize("name", [n for n in LINEAR if n != "maps"])
def test_linear_networks_against_samples(name):
    """20,000 samples: means and covariances are within 6 standard errors (alpha below 1e-6 for the
    16 numbers compared), where that of a covariance is at most sqrt(m4 / n), m4 below 9 sigma^4.
    """
    torch.manual_seed(0)
    model, x = LINEAR[name](), torch.randn(2, 4)
    found = propagate_moments(model.eval(), x)
    mean, covariance = sampled(model, x)
    error = found.std / math.sqrt(20_000)
    assert ((found.mean - mean).abs() < 6 * error).all()
    size = found.std.unsqueeze(2) * found.std.unsqueeze(1)
    assert ((found.covariance - covariance).abs() < 6 * 3 * size / math.sqrt(20_000)).all()


def test_convolutions_norms_and_pools_against_samples():
    torch.manual_seed(0)
    model = nn.Sequential(*list(LINEAR["maps"]())[1:]).eval()
    model[1].running_var.fill_(2.0)
    x = torch.randn(2, 1, 2, 2)
    found = propagate_moments(model, x)
    mean, covariance = sampled(model, x)
    assert ((found.mean - mean).abs() < 6 * found.std / math.sqrt(20_000)).all()
    size = found.std.unsqueeze(2) * found.std.unsqueeze(1)
    assert ((found.covariance - covariance).abs() < 18 * size / math.sqrt(20_000)).all()
    assert propagate_moments(model, x, covariance="diagonal").covariance is None


@pytest.mark.parametrize("name", ["relu", "gelu", "tanh", "sigmoid", "silu"])
def test_activations_of_normal_inputs(name):
    """A bivariate normal, against two-dimensional quadrature: a wide grid sum."""
    layers = {
        "relu": nn.ReLU(),
        "gelu": nn.GELU(),
        "tanh": nn.Tanh(),
        "sigmoid": nn.Sigmoid(),
        "silu": nn.SiLU(),
    }
    layer = layers[name]
    means, covariance = torch.tensor([0.4, -0.7]), torch.tensor([[1.3, 0.5], [0.5, 0.8]])
    root = torch.linalg.cholesky(covariance.double())
    t = torch.linspace(-8, 8, 1601, dtype=torch.float64)
    z = torch.stack(torch.meshgrid(t, t, indexing="ij"), -1).reshape(-1, 2)
    weight = torch.exp(-0.5 * z.square().sum(-1))
    weight /= weight.sum()
    y = layer(means.double() + z @ root.T)
    mean = (weight[:, None] * y).sum(0)
    want = (weight[:, None, None] * (y - mean)[:, :, None] * (y - mean)[:, None]).sum(0)
    # A network that has this normal input: two equal Gaussian masks times constants, through root
    model = nn.Sequential(tnn.GaussianDropout(0.5), nn.Linear(2, 2), layer).double()
    with torch.no_grad():
        model[1].weight.copy_(root)
        model[1].bias.copy_(means.double() - root.sum(1))
    found = propagate_moments(model.eval(), torch.ones(1, 2).double())
    torch.testing.assert_close(found.mean[0], mean, rtol=0, atol=2e-5)
    torch.testing.assert_close(found.covariance[0], want, rtol=0, atol=2e-4)


def test_a_trained_network_has_the_spread_of_samples():
    """Standard deviations within 5 % of those of 4,000 samples (their own error is 1.1 %), on a
    network that was trained with dropout, on average over rows.
    """
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    y = (x[:, :1] * x[:, 1:2] + x[:, 2:3].sin()) + 0.1 * torch.randn(256, 1)
    model = nn.Sequential(
        nn.Linear(8, 64),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(64, 1),
    )
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(300):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    rows = x[:40]
    found = propagate_moments(model.eval(), rows)
    with torch.no_grad(), thinned.sampling(model):
        samples = torch.stack([model(rows) for _ in range(4000)])
    ratio = (found.std / samples.std(0)).mean().item()
    assert ratio == pytest.approx(1.0, abs=0.05)
    torch.testing.assert_close(found.mean, samples.mean(0), rtol=0, atol=0.05)


def test_a_softmax_takes_the_mean_field_value():
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2), nn.Softmax(-1)).eval()
    x = torch.ones(2, 3)
    logits = propagate_moments(model[:2], x)
    want = (logits.mean / (1 + math.pi / 8 * logits.variance).sqrt()).softmax(-1)
    found = propagate_moments(model, x)
    torch.testing.assert_close(found.mean, want)
    assert np.isnan(found.variance.numpy()).all()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.LayerNorm(3), r"1 \(LayerNorm\) carries no moments"),
        (nn.MaxPool1d(1), r"1 \(MaxPool1d\)"),
        (nn.AlphaDropout(0.1), r"1 \(AlphaDropout\) draws noise"),
        (tnn.SpecDropout(presets.drop_path(0.1)), r"1 \(SpecDropout\) draws noise"),
        (nn.BatchNorm1d(3), r"call model.eval\(\)"),
    ],
)
def test_what_carries_no_moments_is_named(layer, message):
    with pytest.raises(thinned.InputError, match=message):
        propagate_moments(nn.Sequential(nn.Linear(3, 3), layer), torch.ones(2, 3))
    with pytest.raises(thinned.InputError, match="covariance"):
        propagate_moments(nn.Sequential(nn.Linear(3, 3)), torch.ones(2, 3), covariance="none")
