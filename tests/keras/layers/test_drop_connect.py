"""DropConnect and weight-drop."""

from __future__ import annotations

import copy

import numpy as np
import pytest

keras = pytest.importorskip(
    "keras", reason="Keras is not installed: pip install 'thinned[keras]' and a backend"
)
stats = pytest.importorskip("scipy.stats")

from thinned.keras import layers as L  # noqa: E402

from ..help import ALPHA, array  # noqa: E402


def test_dropconnect_of_each_example():
    """Mean and variance of a pre-activation, Wan et al. 2013: q W v and p q W^2 v^2, bias as a
    weight of input 1.
    """
    n, p = 20_000, 0.4
    layer = L.DropConnect(keras.layers.Dense(1), p, seed=0)
    v = np.array([0.5, -1.0, 2.0], "float32")
    layer.build((None, 3))
    layer.set_weights([np.array([[1.0], [0.25], [-0.75]], "float32"), np.array([0.3], "float32")])
    y = array(layer(np.tile(v, (n, 1)), training=True)).astype("float64").ravel()
    products = np.append(v * [1.0, 0.25, -0.75], 0.3)
    mean, var = (1 - p) * products.sum(), p * (1 - p) * (products**2).sum()
    assert stats.ttest_1samp(y, mean).pvalue > ALPHA
    assert stats.ttest_1samp((y - mean) ** 2, var).pvalue > ALPHA
    assert len(np.unique(y.round(4))) == 16  # every set of four weights
    assert float(array(layer(v[None]))[0, 0]) == pytest.approx(mean, rel=1e-5)
    assert len(layer.weights) == 2


def test_dropconnect_of_the_batch():
    layer = L.DropConnect(keras.layers.Conv1D(8, 3), 0.5, scale="inverted", seed=0)
    x = np.random.default_rng(0).normal(size=(1, 9, 4)).astype("float32")
    y = array(layer(np.repeat(x, 3, 0), training=True))
    np.testing.assert_allclose(y, np.repeat(y[:1], 3, 0), rtol=1e-5, atol=1e-6)
    assert not np.allclose(y, array(layer(np.repeat(x, 3, 0), training=True)))
    np.testing.assert_allclose(array(layer(x)), array(layer.layer(x)), rtol=1e-6)
    again = L.DropConnect.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    with pytest.raises(ValueError, match="names"):
        L.DropConnect(keras.layers.Conv1D(2, 3), 0.5, names=["kernal"]).build((None, 9, 4))


def test_weight_drop_leaves_the_first_step():
    """With h0 = 0 recurrent weights meet nothing at the first step, and something at the second
    (AWD-LSTM's own test).
    """
    layer = L.DropConnect(
        keras.layers.GRU(6, return_sequences=True, bias_initializer="zeros"),
        0.5,
        scale="inverted",
        seed=0,
    )
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    one, two = array(layer(x, training=True)), array(layer(x, training=True))
    np.testing.assert_allclose(one[:, 0], two[:, 0], rtol=1e-5)
    assert not np.allclose(one[:, 1], two[:, 1])


def test_weight_drop_is_drop_connect_of_the_recurrent_weights():
    make = lambda kind, **more: kind(keras.layers.LSTM(4), 0.4, seed=5, **more)  # noqa: E731
    layer, general = make(L.WeightDrop), make(L.DropConnect, scale="inverted")
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    layer(x), general(x)
    general.set_weights(layer.get_weights())
    drawn = array(layer(x, training=True))
    np.testing.assert_array_equal(drawn, array(general(x, training=True)))
    np.testing.assert_array_equal(array(layer(x)), array(layer.layer(x)))
    config = layer.get_config()
    assert set(config) >= {"layer", "rate", "seed"}
    copy_ = L.WeightDrop.from_config(copy.deepcopy(config))
    copy_(x)
    copy_.set_weights(layer.get_weights())
    np.testing.assert_array_equal(array(copy_(x, training=True)), drawn)
