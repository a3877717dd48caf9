"""Branches of residual networks: distributions as in torch and by closed forms, gradients."""

from __future__ import annotations

import numpy as np
import pytest

keras = pytest.importorskip(
    "keras", reason="Keras is not installed: pip install 'thinned[keras]' and a backend"
)
stats = pytest.importorskip("scipy.stats")
torch = pytest.importorskip("torch")

import thinned.keras as tk  # noqa: E402
from thinned import functional as F  # noqa: E402
from thinned.keras import layers as L  # noqa: E402

from ..help import ALPHA, again, array  # noqa: E402

K = keras.layers


def pairs(n=4000, seed=0):
    """(x, f), each [n, 2, 3], all examples alike."""
    values = np.random.default_rng(seed).normal(size=(2, 1, 2, 3)).astype("float32")
    return [v.repeat(n, 0) for v in values]


def slopes(f, *inputs):
    """The result, and the gradient of its sum for each input, on the torch backend."""
    if keras.backend.backend() != "torch":
        pytest.skip("gradients here are torch's")
    leaves = [keras.ops.convert_to_tensor(x).clone().requires_grad_(True) for x in inputs]
    y = f(*leaves)
    return y.detach().cpu().numpy(), *(
        g.cpu().numpy() for g in torch.autograd.grad(y.sum(), leaves)
    )


@pytest.mark.parametrize("backward", ["shake", "even", "keep"])
def test_shake_shake(backward):
    """Each example has a uniform weight, and gradients one of their own, as in torch."""
    x, f = pairs()
    layer = L.ShakeShake(backward, seed=0)
    y, to_x, to_f = slopes(lambda a, b: layer([a, b], training=True), x, f)
    a = (y - f) / (x - f)
    np.testing.assert_allclose(a, a[:, :1, :1] * np.ones((1, 2, 3)), rtol=1e-2, atol=1e-3)
    shares = a[:, 0, np.abs(x - f)[0, 0].argmax()]
    assert stats.kstest(shares, "uniform").pvalue > ALPHA
    b = to_x[:, 0, 0]
    np.testing.assert_allclose(to_x + to_f, 1.0, rtol=1e-5)
    if backward == "even":
        np.testing.assert_allclose(b, 0.5)
    elif backward == "keep":
        np.testing.assert_allclose(b, shares, atol=1e-4)
    else:
        assert stats.kstest(b, "uniform").pvalue > ALPHA
        assert stats.pearsonr(b, shares).pvalue > ALPHA
    still = F.shake_shake(torch.tensor(x[:2]), torch.tensor(f[:2]), False).numpy()
    np.testing.assert_allclose(array(again(layer)([x[:2], f[:2]])), still, rtol=1e-6)
    assert [(s.kind, s.rate) for s in tk.find(layer)] == [("branch", None)]


def test_shake_drop():
    """One draw for the batch; shaken examples have shares from the ranges, forward and backward;
    evaluation is the mean.
    """
    x, _ = pairs(500)
    layer = again(L.ShakeDrop(0.4, alpha=(-1, 0.5), beta=(0.25, 1), seed=0))
    shaken = forward = backward = 0
    for _ in range(150):
        y, to_x = slopes(lambda t: layer(t, training=True), x)
        a = (y / x)[:, 0, 0]
        np.testing.assert_allclose(y, x * a[:, None, None], rtol=1e-3, atol=1e-4)
        if len(np.unique(a.round(5))) > 1:
            shaken, forward, backward = shaken + 1, a, to_x[:, 0, 0]
        else:
            np.testing.assert_array_equal(y, x)
            np.testing.assert_array_equal(to_x, 1.0)
    assert stats.binomtest(shaken, 150, 0.4).pvalue > ALPHA
    assert stats.kstest(forward, stats.uniform(-1, 1.5).cdf).pvalue > ALPHA
    assert stats.kstest(backward, stats.uniform(0.25, 0.75).cdf).pvalue > ALPHA
    want = F.shake_drop(torch.tensor(x[:2]), 0.4, False, alpha=(-1, 0.5), beta=(0.25, 1)).numpy()
    np.testing.assert_allclose(array(layer(x[:2])), want, rtol=1e-6)
    gone = array(L.ShakeDrop(1.0, (0, 0), (0, 0))(x, training=True))
    assert not gone.any()  # stochastic depth
    with pytest.raises(ValueError, match=r"argument `alpha`. Expected a range"):
        L.ShakeDrop(0.5, alpha=(1, 0))


def test_enumerated_swapout_of_every_backend():
    """Nothing, skip, feed-forward and residual, with the products of two probabilities."""
    x, f = np.full((4000, 2), 1.0, "float32"), np.full((4000, 2), 2.0, "float32")
    layer = again(L.Swapout(0.3, 0.6, seed=0))
    y = array(layer([x, f], training=True))
    assert (
        stats.chisquare(
            np.bincount(y.ravel().astype(int)), y.size * np.array([0.18, 0.12, 0.42, 0.28])
        ).pvalue
        > ALPHA
    )
    assert abs(stats.pearsonr(*(y.T == 3)).statistic) < 0.1
    np.testing.assert_allclose(array(layer([x[:1], f[:1]])), 0.4 + 2 * 0.7, rtol=1e-6)
    layer.skip_rate, layer.rate = 0.0, 1.0
    np.testing.assert_array_equal(array(layer([x, f], training=True)), x)
    tied = L.Swapout(0.3)
    tied.rate = 0.4
    assert again(tied).skip_rate == tied.skip_rate == 0.4
    a = keras.Input((4,))
    assert keras.Model(a, L.Swapout(0.3)([a, K.Dense(4)(a)])).output_shape == (None, 4)
    for wrong, text in (([x, f[:, :1]], "two inputs of one shape"), (x, "a list of two inputs")):
        with pytest.raises(ValueError, match=text):
            layer(wrong, training=True)


def test_a_layer_is_skipped():
    """Skipped at its rate, without a gradient; masks and evaluation are those of the layer."""
    inner = K.Dense(3, kernel_initializer="ones")
    layer = L.LayerDrop(inner, 0.3, seed=0)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    y = array(layer(x))
    np.testing.assert_allclose(y, array(inner(x)), rtol=1e-6)
    skipped = 0
    for _ in range(300):
        drawn = array(layer(x, training=True))
        skipped += int(np.array_equal(drawn, x))
        assert np.array_equal(drawn, x) or np.allclose(drawn, y)
    assert stats.binomtest(skipped, 300, 0.3).pvalue > ALPHA
    layer.rate = 1.0
    np.testing.assert_allclose(slopes(lambda t: layer(t, training=True), x)[1], 1.0)
    rnn = keras.Sequential(
        [
            K.Embedding(4, 3, mask_zero=True),
            L.LayerDrop(K.LSTM(3, return_sequences=True), 0.2),
            K.LSTM(2),
        ]
    )
    plain = keras.Sequential(
        [K.Embedding(4, 3, mask_zero=True), K.LSTM(3, return_sequences=True), K.LSTM(2)]
    )
    ids = np.array([[1, 2, 0, 0], [3, 2, 1, 0]])
    rnn(ids), plain(ids)
    plain.set_weights(rnn.get_weights())
    np.testing.assert_allclose(array(rnn(ids)), array(plain(ids)), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="keeps the shape"):
        L.LayerDrop(K.Dense(2))(x, training=True)
