"""Zoneout: by hand, at its rates, and as in torch."""

from __future__ import annotations

import copy

import numpy as np
import pytest

keras = pytest.importorskip(
    "keras", reason="Keras is not installed: pip install 'thinned[keras]' and a backend"
)
stats = pytest.importorskip("scipy.stats")
torch = pytest.importorskip("torch")

from thinned import nn  # noqa: E402
from thinned.keras import layers as L  # noqa: E402

from ..help import ALPHA, array, outputs  # noqa: E402

K = keras.layers


def test_zoneout_by_hand():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 3)).astype("float32")

    def make(rate, **more):
        return L.Zoneout(keras.layers.SimpleRNNCell(5, seed=0), rate, return_sequences=True, **more)

    layer = make(0.25)
    y = array(layer(x))
    w, u, b = (array(v) for v in layer.trainable_variables)
    h = np.zeros((2, 5))
    for t in range(4):
        h = h + 0.75 * (np.tanh(x[:, t] @ w + h @ u + b) - h)
        np.testing.assert_allclose(y[:, t], h, rtol=1e-4, atol=1e-5)
    first, new = array(layer(x, training=True))[:, 0], np.tanh(x[:, 0] @ w + b)
    assert (np.isclose(first, new, rtol=1e-4) | (first == 0)).all()
    plain = keras.layers.RNN(keras.layers.SimpleRNNCell(5), return_sequences=True)
    plain.build(x.shape)
    still, free = make(1.0), make(0.0)
    assert not array(still(x, training=True)).any()
    free.build(x.shape)
    plain.set_weights(free.get_weights())
    np.testing.assert_allclose(array(free(x, training=True)), array(plain(x)), rtol=1e-5, atol=1e-6)


def test_zoneout_keeps_units_at_its_rate():
    """Single steps from a state of ones to a new state of 0 show the kept units, of states and of
    the cells of an LSTM.
    """
    layer = L.Zoneout(keras.layers.LSTMCell(50), 0.3, 0.6, seed=0, return_state=True)
    x = np.zeros((400, 1, 2), "float32")
    layer.build(x.shape)
    layer.set_weights(
        [w * 0 - 50.0 * (w.ndim == 1) for w in layer.get_weights()]
    )  # gates shut: new states are 0
    _, h, c = (
        array(s) for s in layer(x, initial_state=[keras.ops.ones((400, 50))] * 2, training=True)
    )
    for state, rate in ((h, 0.3), (c, 0.6)):
        assert set(np.unique(state.round(5))) == {0.0, 1.0}
        assert stats.binomtest(int(state.round().sum()), state.size, rate).pvalue > ALPHA
    config = layer.get_config()
    del config["cell"]["build_config"]  # the copy is not built
    assert L.Zoneout.from_config(copy.deepcopy(config)).get_config() == config
    with pytest.raises(ValueError, match="without dropout of its own"):
        L.Zoneout(keras.layers.GRUCell(3, dropout=0.1))


def test_zoneout_moves_between_torch_and_keras():
    """Krueger's evaluation over many steps, on an LSTM with a rate for each state; torch adds two
    biases.
    """
    net = nn.DropState(
        torch.nn.LSTM(3, 5, batch_first=True), method="zoneout", states=0.2, cells=0.5
    ).eval()
    model = keras.Sequential(
        [keras.Input((7, 3)), L.Zoneout(K.LSTMCell(5), 0.2, 0.5, return_sequences=True)]
    )
    w, u, b, c = (v.detach().numpy() for v in net.state_dict().values())
    model.set_weights([w.T, u.T, b + c])
    want, got = outputs(
        lambda x: net(x)[0],
        model,
        np.random.default_rng(0).normal(size=(4, 7, 3)).astype("float32"),
    )
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
