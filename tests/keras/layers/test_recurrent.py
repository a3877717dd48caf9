"""Recurrent states: all outcomes, as often as in torch."""

from __future__ import annotations

import numpy as np
import pytest

keras = pytest.importorskip(
    "keras", reason="Keras is not installed: pip install 'thinned[keras]' and a backend"
)
torch = pytest.importorskip("torch")

import thinned.keras as tk  # noqa: E402
from thinned import nn  # noqa: E402
from thinned.keras import layers as L  # noqa: E402

from ..help import again, array, same_distribution  # noqa: E402

K = keras.layers


CELLS = {"LSTM": K.LSTMCell, "GRU": K.GRUCell, "RNN": K.SimpleRNNCell}


_STATES = [  # kind, method, scale, per, how many outcomes there are
    ("LSTM", "variational", "inverted", None, 4),
    ("LSTM", "variational", "classic", None, 4),
    ("GRU", "variational", "inverted", None, 4),
    ("RNN", "variational", "inverted", None, 4),
    ("LSTM", "recurrent", "classic", "step", 16),
    ("GRU", "recurrent", "inverted", "sequence", 4),
    ("LSTM", "rnndrop", "classic", None, 4),
]


def moved(kind, module):
    """torch's weights in Keras's order."""
    w, u, b, c = (v.detach().numpy() for v in module.state_dict().values())
    if kind == "GRU":  # torch: reset, update, new
        w, u, b, c = (np.concatenate((v[2:4], v[:2], v[4:])) for v in (w, u, b, c))
        return [w.T, u.T, np.stack((b, c))]
    return [w.T, u.T, b + c]


@pytest.mark.parametrize(
    ("kind", "method", "scale", "per", "outcomes"), _STATES, ids=lambda v: str(v)
)
def test_states_are_dropped_as_in_torch(kind, method, scale, per, outcomes):
    """Two units, two steps after a first state: all outcomes are those of the torch API, as often;
    evaluation too.
    """
    torch.manual_seed(0)
    module, n, p = getattr(torch.nn, kind)(3, 2, batch_first=True), 1500, 0.4
    net = nn.DropState(
        module, states=p, method=method, per=per if method == "recurrent" else None, scale=scale
    )
    layer = L.DropState(
        CELLS[kind](2), p, method, per=per, scale=scale, seed=0, return_sequences=True
    )
    x = np.random.default_rng(0).normal(size=(1, 2, 3)).astype("float32")
    start = np.array([[0.8, -0.6]], "float32")
    count = 2 if kind == "LSTM" else 1

    def ours(n, **more):
        states = [keras.ops.convert_to_tensor(start.repeat(n, 0))] * count
        y = layer(x.repeat(n, 0), initial_state=states if count == 2 else states[0], **more)
        return array(y).reshape(n, -1)

    def theirs(n):
        s = torch.tensor(start.repeat(n, 0))[None]
        with torch.no_grad():
            return (
                net(torch.tensor(x.repeat(n, 0)), (s, s) if count == 2 else s)[0]
                .reshape(n, -1)
                .numpy()
            )

    layer.build((None, 2, 3))
    layer.set_weights(moved(kind, module))
    assert same_distribution(ours(n, training=True), theirs(n)) == outcomes
    net.eval()
    np.testing.assert_allclose(ours(3), theirs(3), rtol=1e-5, atol=1e-6)
    layer.rate = 0.0
    with torch.no_grad():
        s = torch.tensor(start.repeat(2, 0))[None]
        plain = (
            module(torch.tensor(x.repeat(2, 0)), (s, s) if count == 2 else s)[0]
            .reshape(2, -1)
            .numpy()
        )
    np.testing.assert_allclose(ours(2, training=True), plain, rtol=1e-5, atol=1e-6)


def test_a_state_keeps_its_mask_and_its_files():
    """Gates before the matrix product (reset_after=False), no bias, padding, both directions, one
    mask on the input.
    """
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    cell = K.GRUCell(4, reset_after=False, use_bias=False)
    layer = L.DropState(cell, 0.3, inputs=0.5, seed=3, return_sequences=True)
    plain = K.RNN(K.GRUCell(4, reset_after=False, use_bias=False), return_sequences=True)
    y = array(layer(x))
    plain.build(x.shape)
    plain.set_weights(layer.get_weights())
    np.testing.assert_allclose(y, array(plain(x)), rtol=1e-5, atol=1e-6)
    mask = np.array([[True] * 3 + [False] * 2, [True] * 5])
    np.testing.assert_allclose(
        array(layer(x, mask=mask)), array(plain(x, mask=mask)), rtol=1e-5, atol=1e-6
    )
    drawn = array(layer(x, mask=mask, training=True))
    np.testing.assert_array_equal(drawn[0, 2], drawn[0, 4])  # what pads does not move a state
    assert [(s.kind, s.argument) for s in tk.find(layer)] == [
        ("recurrent", "rate"),
        ("recurrent", "inputs"),
    ]
    other = again(layer)
    assert (other.rate, other.inputs, other.method, other.per) == (
        0.3,
        0.5,
        "variational",
        "sequence",
    )
    layer.rate = layer.inputs = 1.0  # no input and no memory: without bias the state is 0
    assert not array(layer(x, training=True)).any()
    both = K.Bidirectional(L.DropState(K.LSTMCell(4), 0.3, return_sequences=True))
    assert array(both(x, training=True)).shape == (2, 5, 8)
    with pytest.raises(ValueError, match="argument `inputs`"):
        layer.inputs = 2


NAMED = [  # a layer of its own, the same by DropState, and the cell
    (lambda c: L.VariationalRNNDropout(c, 0.3, 0.2, "classic", seed=3), "variational", "LSTM"),
    (lambda c: L.RecurrentDropout(c, 0.3, 0.2, "sequence", "inverted", 3), "recurrent", "GRU"),
    (lambda c: L.RecurrentDropout(c, 0.3, 0.2, seed=3), "recurrent", "LSTM"),
    (lambda c: L.RNNDrop(c, 0.3, 0.2, seed=3), "rnndrop", "LSTM"),
]


@pytest.mark.parametrize("number", range(len(NAMED)))
def test_named_methods_are_those_of_drop_state(number):
    """The same draws and weights as DropState with the method, also from a configuration."""
    make, method, kind = NAMED[number]
    layer = make(CELLS[kind](4))
    general = L.DropState(
        CELLS[kind](4), 0.3, method, 0.2, per=layer.per, scale=layer.scale, seed=3
    )
    x = np.random.default_rng(0).normal(size=(5, 6, 3)).astype("float32")
    layer.build(x.shape), general.build(x.shape)
    general.set_weights(layer.get_weights())
    drawn = array(layer(x, training=True))
    np.testing.assert_array_equal(drawn, array(general(x, training=True)))
    np.testing.assert_array_equal(array(layer(x)), array(general(x)))
    copy = again(layer)
    assert {"rate": 0.3, "inputs": 0.2, "seed": 3}.items() <= copy.get_config().items()
    assert "method" not in copy.get_config()
    copy.build(x.shape)
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(array(copy(x, training=True)), drawn)
    assert [(s.kind, s.argument, s.rate) for s in tk.find(layer)] == [
        ("recurrent", "rate", 0.3),
        ("recurrent", "inputs", 0.2),
    ]


STATE_ERRORS = [
    (
        lambda: L.DropState(K.GRUCell(2), method="rnndrop"),
        "argument `cell`. Expected for 'rnndrop' a cell of LSTMCell",
    ),
    (lambda: L.DropState(K.LSTMCell(2), method="zoneout"), "argument `method`"),
    (lambda: L.DropState(K.LSTMCell(2), method="rnndrop", scale="inverted"), "argument `scale`"),
    (lambda: L.DropState(K.LSTMCell(2), per="step"), "argument `per`"),
    (lambda: L.DropState(K.LSTMCell(2, dropout=0.1)), "without dropout of its own"),
    (lambda: L.DropState(K.LSTMCell(2), 1.5), "argument `rate`"),
    (lambda: L.DropState(K.LSTM(2)), "argument `cell`"),
]


@pytest.mark.parametrize("number", range(len(STATE_ERRORS)))
def test_errors_of_states(number):
    call, text = STATE_ERRORS[number]
    with pytest.raises(ValueError, match=text):
        call()
