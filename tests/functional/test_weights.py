"""Mixout and shakeout against their definitions, by enumeration or by reduction."""

from __future__ import annotations

import itertools

import pytest
import torch

from thinned import InputError, presets
from thinned import functional as F
from thinned.algebra import Key

X = torch.linspace(-1, 1, 40 * 6, dtype=torch.float64).reshape(40, 6)


def test_mixout_is_its_definition():
    torch.manual_seed(0)
    w = torch.randn(8, 5, dtype=torch.float64, requires_grad=True)
    u, p = torch.randn(8, 5, dtype=torch.float64), 0.3
    y = F.mixout(w, u, p, key=Key(3))
    dropped = torch.isclose(y, u)  # where (w - u) is dropped, u remains
    m = (~dropped).double()
    torch.testing.assert_close(y, (m * w + (1 - m) * u - p * u) / (1 - p))
    (grad,) = torch.autograd.grad(y.sum(), w)
    torch.testing.assert_close(grad, m / (1 - p))  # the true slope, not the authors' m
    many = torch.stack([F.mixout(w, u, p, key=Key(s)).detach() for s in range(4000)])
    error = (p / (1 - p)) ** 0.5 * (w - u).abs().detach() / 4000**0.5
    assert ((many.mean(0) - w).abs() < 5.2 * error).all()  # alpha 1e-5 over 40 weights
    assert torch.equal(F.mixout(w, u, 1.0), u)
    assert F.mixout(w, u, 0.3, training=False) is w
    zero = F.mixout(w, torch.zeros_like(u), p, key=Key(3))
    torch.testing.assert_close(zero, w * m / (1 - p))
    with pytest.raises(InputError, match=r"shape of weight, \[8, 5\], but got \[5\]"):
        F.mixout(w, u[0])


def test_shakeout_is_its_definition():
    torch.manual_seed(0)
    w, b, p, c = (
        torch.randn(4, 6, dtype=torch.float64),
        torch.randn(4, dtype=torch.float64),
        0.4,
        0.7,
    )
    m = F.mask(presets.dropout(p), (40, 6), Key(5)).double()
    y = F.shakeout(X, w, b, p, c, key=Key(5))
    q = 1 - p
    weights = m[:, None] / q * w + c * (m[:, None] / q - 1) * w.sign()  # [b, out, in]
    torch.testing.assert_close(y, torch.einsum("boi,bi->bo", weights, X) + b, rtol=1e-8, atol=1e-8)
    mean = torch.zeros(4, dtype=torch.float64)
    for bernoulli_mask in itertools.product((0.0, 1.0), repeat=6):  # exact: E is the ordinary layer
        m1 = torch.tensor(bernoulli_mask, dtype=torch.float64)
        weight = (q**m1 * p ** (1 - m1)).prod()
        mean += weight * ((m1 / q * w + c * (m1 / q - 1) * w.sign()) @ X[7])
    torch.testing.assert_close(mean, w @ X[7])
    torch.testing.assert_close(F.shakeout(X, w, b, p, c, training=False), X @ w.T + b)
    torch.testing.assert_close(
        F.shakeout(X, w, b, p, 0.0, key=Key(5)), F.drop(X, presets.dropout(p), key=Key(5)) @ w.T + b
    )
    with pytest.raises(InputError, match="c has to be at least 0, but got -1"):
        F.shakeout(X, w, c=-1)
