"""Noise that is learned: distributions and KL terms, by closed forms and as in torch."""

from __future__ import annotations

import numpy as np
import pytest

keras = pytest.importorskip(
    "keras", reason="Keras is not installed: pip install 'thinned[keras]' and a backend"
)
stats = pytest.importorskip("scipy.stats")
torch = pytest.importorskip("torch")

from thinned import functional as F  # noqa: E402
from thinned import nn  # noqa: E402
from thinned.keras import layers as L  # noqa: E402

from ..help import ALPHA, again, array  # noqa: E402

K = keras.layers


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def test_concrete():
    """The mean of the relaxed mask by quadrature, the divergence by its formula, and the loss."""
    p, t, n = 0.3, 0.5, 1000
    layer = L.ConcreteDropout(
        keras.layers.Dense(2, kernel_initializer="ones"),
        p,
        examples=n,
        length=0.5,
        temperature=t,
        seed=0,
    )
    x = np.ones((20_000, 3), "float32")
    y = array(layer(x, training=True)).astype("float64").ravel()
    u = (np.arange(200_000) + 0.5) / 200_000
    mean = (1 - sigmoid((np.log(p / (1 - p)) + np.log(u / (1 - u))) / t)).mean() / (1 - p)
    assert stats.ttest_1samp(y[::2], 3 * mean).pvalue > ALPHA
    expected = 3 * (p * np.log(p) + (1 - p) * np.log(1 - p)) + 0.5 * 0.25 * 6 / (1 - p)
    assert float(array(layer.losses[0])) == pytest.approx(expected / n, rel=1e-5)
    assert layer.rate == pytest.approx(p)
    np.testing.assert_allclose(array(layer(x[:2])), 3.0)
    channels = L.ConcreteDropout(
        keras.layers.Conv1D(1, 1), 0.3, per="channel", temperature=2.0, seed=0
    )
    noisy = (
        array(channels._add_noise(keras.ops.ones((2, 5, 3))))
        if channels.build((None, 5, 3)) is None
        else None
    )
    assert (noisy == noisy[:, :1]).all()
    assert len(np.unique(noisy)) == 6
    assert channels.losses == []


@pytest.mark.parametrize("per", ["unit", "layer"])
def test_variational(per):
    """Noise of variance alpha for each unit; the KL term is that of the torch API."""
    layer = again(L.VariationalDropout(0.3, examples=50, per=per, seed=0))
    net = nn.VariationalDropout(3, 0.3, per=per)
    layer.build((None, 3))
    assert layer.rate == pytest.approx(net.p)
    logit = np.array([-1.0, 0.0, 1.5], "float32") if per == "unit" else np.float32(0.4)
    layer.set_weights([logit])
    with torch.no_grad():
        net.logit.copy_(torch.tensor(logit))
    x = np.full((8000, 3), 2.0, "float32")
    y = array(layer(x, training=True)) / 2
    for column, a in zip(y.T, np.broadcast_to(1 / (1 + np.exp(-logit)), 3), strict=True):
        assert stats.kstest((column - 1) / np.sqrt(a), "norm").pvalue > ALPHA
    assert float(array(layer.losses[0])) == pytest.approx(
        float(net.divergence().detach()) / 50, rel=1e-5
    )
    assert layer.rate == pytest.approx(net.p, rel=1e-5)
    np.testing.assert_array_equal(array(layer(x)), x)
    with pytest.raises(
        ValueError, match=r"argument `rate`. Expected a float value above 0 and below 0.5"
    ):
        L.VariationalDropout(0.5)


def test_information():
    layer = again(
        L.InformationDropout(K.Dense(2, "relu"), K.Dense(2), max_alpha=0.6, beta=0.5, seed=0)
    )
    n = 6000
    x = np.random.default_rng(0).normal(size=(1, 3)).astype("float32").repeat(n, 0)
    layer.build(x.shape)
    assert len(layer.weights) == 4
    layer.layer.set_weights([np.ones((3, 2)), np.array([9.0, 9.0])])
    y, still = array(layer(x, training=True)), array(layer(x))
    np.testing.assert_allclose(still, x.sum(1, keepdims=True) + np.full(2, 9), rtol=1e-5)
    alpha = 0.001 + 0.6 / (1 + np.exp(-array(layer.noise(x[:1]))[0]))
    for i in range(2):
        assert stats.kstest(np.log(y[:, i] / still[:, i]) / alpha[i], "norm").pvalue > ALPHA
    divergence = F.information_divergence(torch.tensor(alpha), 0.601).sum()
    layer(x, training=True)
    assert float(array(layer.losses[-1])) == pytest.approx(0.5 * float(divergence), rel=1e-4)
    with pytest.raises(ValueError, match="argument `noise`"):
        L.InformationDropout(K.Dense(2), K.Dense(3))(x, training=True)
