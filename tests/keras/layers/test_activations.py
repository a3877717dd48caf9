"""Masks that depend on activations."""

from __future__ import annotations

import numpy as np
import pytest

keras = pytest.importorskip(
    "keras", reason="Keras is not installed: pip install 'thinned[keras]' and a backend"
)
stats = pytest.importorskip("scipy.stats")
torch = pytest.importorskip("torch")

from thinned import nn  # noqa: E402
from thinned.keras import layers as L  # noqa: E402

from ..help import ALPHA, again, array, same_distribution  # noqa: E402

K = keras.layers


def test_standout():
    """Kept by the pre-activation; the mean in evaluation, as in torch with the same weights."""
    n = 4000
    layer = again(L.Standout(K.Dense(2), "tanh", alpha=2.0, beta=-0.3, seed=0))
    net = nn.Standout(torch.nn.Linear(3, 2), torch.tanh, 2.0, -0.3)
    layer.build((None, 3))
    layer.set_weights([net.module.weight.detach().numpy().T, net.module.bias.detach().numpy()])
    x = np.random.default_rng(0).normal(size=(1, 3)).astype("float32").repeat(n, 0)
    with torch.no_grad():
        theirs, h = net(torch.tensor(x)).numpy(), net.module(torch.tensor(x[0])).numpy()
        assert same_distribution(array(layer(x, training=True)), theirs) == 4
        np.testing.assert_allclose(
            array(layer(x[:2])), net.eval()(torch.tensor(x[:2])).numpy(), rtol=1e-5
        )
    for kept, keep in zip(
        (array(layer(x, training=True)) != 0).T, 1 / (1 + np.exp(-2 * h + 0.3)), strict=True
    ):
        assert stats.binomtest(int(kept.sum()), n, keep).pvalue > ALPHA
    with pytest.raises(ValueError, match="pass the activation to `activation`"):
        L.Standout(K.Dense(2, "relu"))


def test_jumpout():
    """The rate of a call is |N(0, sigma^2)| over the active fraction, up to ``max_rate``; it gives
    the scale of the kept elements.
    """
    sigma, n, share = 0.2, 3000, 0.5
    x = np.tile(np.array([1.0, 0.0], "float32"), (n, 1))
    layer = again(L.Jumpout(sigma, seed=0))
    rates = []
    for _ in range(150):
        y = array(layer(x, training=True))[:, 0]
        gain = y.max()
        rates.append(1 - gain ** (-1 / 0.75))
        assert stats.binomtest(int((y == 0).sum()), n, rates[-1]).pvalue > ALPHA / 150
        assert set(np.unique(y)) <= {0.0, gain}
    inside = np.array(rates)[np.array(rates) < 0.6 - 1e-4]
    ends = 0.6 * share / sigma
    below = 2 * stats.norm.cdf(ends) - 1
    assert stats.binomtest(len(inside), 150, below).pvalue > ALPHA
    assert (
        stats.kstest(inside * share / sigma, lambda v: (2 * stats.norm.cdf(v) - 1) / below).pvalue
        > ALPHA
    )
    np.testing.assert_array_equal(array(layer(x)), x)
    layer.sigma = 0.0
    np.testing.assert_array_equal(array(layer(x, training=True)), x)
    assert not array(layer(-x, training=True)[:, 1]).any()
    with pytest.raises(ValueError, match="argument `min_rate`"):
        L.Jumpout(0.1, min_rate=0.5, max_rate=0.4)
    with pytest.raises(ValueError, match="argument `sigma`"):
        L.Jumpout(2)
