"""DropConnect against enumeration over all masks, its moments, and dropout."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import thinned
from thinned import functional as F
from thinned import nn, presets
from thinned.algebra import (
    Drop,
    Key,
)
from thinned.testing import assert_mean


def masks(n):
    return np.array(list(itertools.product((0.0, 1.0), repeat=n)))


def tiny_layer(outputs=2, inputs=3):
    torch.manual_seed(3)
    return torch.nn.Linear(inputs, outputs).double()


def test_dropconnect_moments_by_enumeration():
    """All 2^(2 x (3 + 1)) masks of weights and biases: mean and variance of the pre-activation are
    exact.
    """
    layer, p = tiny_layer(), 0.3
    x = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)
    whole = torch.cat((layer.weight, layer.bias[:, None]), 1).detach().numpy()
    v = np.array([0.5, -1.0, 2.0, 1.0])
    mean, second = np.zeros(2), np.zeros(2)
    for m in masks(8):
        weight = np.prod(np.where(m == 1, 1 - p, p))
        u = (m.reshape(2, 4) * whole) @ v
        mean += weight * u
        second += weight * u * u
    got_mean, got_var = nn.DropConnect(layer, p).moments(x)
    np.testing.assert_allclose(got_mean[0].detach(), mean, rtol=1e-12)
    np.testing.assert_allclose(got_var[0].detach(), second - mean**2, rtol=1e-12)


@pytest.mark.parametrize("sampling", ["exact", "moments"])
def test_dropconnect_draws_have_those_moments(sampling):
    layer = nn.DropConnect(torch.nn.Linear(40, 3).double(), 0.4, sampling=sampling)
    x = torch.randn(1, 40, generator=torch.Generator().manual_seed(0)).double()
    mean, var = (t[0].tolist() for t in layer.moments(x))
    key = thinned.key(torch.nn.Sequential(layer), 5)
    key.at(0)
    with torch.no_grad():
        draws = layer(x.expand(5000, 40))
    for unit in range(3):
        values = draws[:, unit].tolist()
        assert_mean(values, mean[unit])
        assert_mean([(v - mean[unit]) ** 2 for v in values], var[unit])


def test_dropconnect_masks_are_per_example():
    """Two equal rows differ.

    With one mask for the batch, as in most other implementations, they would not.
    """
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(20, 8), torch.ones(2, 20)
    each = nn.DropConnect(layer, 0.5)(x)
    assert not torch.equal(each[0], each[1])
    shared = nn.DropConnect(layer, Drop(presets.drop_connect(0.5).law, per="o i", of="b o i"))(x)
    assert torch.equal(shared[0], shared[1])


def test_dropconnect_tied_along_outputs_is_dropout():
    """One draw for each (example, input) is dropout on the input: equal draws, equal results."""
    layer, x, key = tiny_layer(4, 6), torch.randn(5, 6).double(), Key(9)
    tied = Drop(presets.dropout(0.5).law, per="b i", of="b o i")
    weights = F.drop(layer.weight.expand(5, 4, 6), tied, key=key)
    by_weights = torch.einsum("boi,bi->bo", weights, x) + layer.bias
    by_inputs = torch.nn.functional.linear(
        F.drop(x, presets.dropout(0.5), key=key), layer.weight, layer.bias
    )
    torch.testing.assert_close(by_weights, by_inputs)


@pytest.mark.parametrize("activation", [torch.nn.ReLU(), torch.tanh, torch.nn.Softplus()])
def test_dropconnect_inference_is_the_gaussian_expectation(activation):
    """E[a(u)] against a million draws of u, alpha 1e-6.

    Without an activation both inferences agree.
    """
    layer = tiny_layer(2, 5)
    x = torch.randn(1, 5, generator=torch.Generator().manual_seed(2)).double()
    by_moments = nn.DropConnect(layer, 0.5, activation=activation, inference="moments").eval()
    mean, var = by_moments.moments(x)
    u = mean + var.sqrt() * torch.randn(
        1_000_000, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64
    )
    sampled = activation(u).detach()
    error = (by_moments(x)[0] - sampled.mean(0)).abs() / (sampled.std(0) / 1000)
    assert (error < 4.9).all()
    by_mean = nn.DropConnect(layer, 0.5, activation=activation).eval()
    assert not torch.allclose(by_mean(x), by_moments(x), rtol=1e-3)  # a(q W v) differs
    linear = [nn.DropConnect(layer, 0.5, inference=i).eval()(x) for i in ("mean", "moments")]
    torch.testing.assert_close(*linear)
