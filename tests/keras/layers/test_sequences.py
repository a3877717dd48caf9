"""Keras layers on words, recurrent states and attention: laws by enumeration, and beside the torch
face.
"""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

keras = pytest.importorskip(
    "keras", reason="Keras is not installed: pip install 'thinned[keras]' and a backend"
)
stats = pytest.importorskip("scipy.stats")
torch = pytest.importorskip("torch")

import thinned.keras as tk  # noqa: E402
from thinned import functional as F  # noqa: E402
from thinned import nn  # noqa: E402
from thinned.keras import layers as L  # noqa: E402

from ..help import ALPHA, array, same_law, unbuilt  # noqa: E402

# Keras on torch converts arrays in a way that NumPy 2.4 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
K = keras.layers


def again(layer):
    """The layer made anew of its configuration, after a way through JSON."""
    config = json.loads(json.dumps(layer.get_config()))
    other = type(layer).from_config(copy.deepcopy(config))
    assert unbuilt(other.get_config()) == unbuilt(config)
    return other


def test_enumerated_words_of_every_backend():
    """One coin for each word of the table: the eight ways in which three words fall; 0 pads and
    never falls.
    """
    p, n = 0.3, 3000
    layer = L.EmbeddingDropout(
        K.Embedding(4, 2, mask_zero=True, embeddings_initializer="ones"), p, seed=0
    )
    ids = np.array([[1, 2, 3, 1, 0], [2, 2, 0, 3, 1]])
    draws = np.stack([array(layer(ids, training=True)) for _ in range(n // 10)])
    assert set(np.unique(draws.round(4))) == {0.0, np.float32(1 / 0.7).round(4), 1.0}
    np.testing.assert_array_equal(draws[..., 0], draws[..., 1])
    np.testing.assert_array_equal(draws[:, 0, 0], draws[:, 1, 4])  # a word falls wherever it stands
    np.testing.assert_array_equal(draws[:, 0, 4], 1.0)
    fell = (draws[:, 0, :3, 0] == 0) @ [1, 2, 4]
    chances = np.array(
        [p ** bin(i).count("1") * (1 - p) ** (3 - bin(i).count("1")) for i in range(8)]
    )
    assert stats.chisquare(np.bincount(fell, minlength=8), len(draws) * chances).pvalue > ALPHA
    np.testing.assert_array_equal(array(layer(ids)), 1.0)
    np.testing.assert_array_equal(
        array(layer.compute_mask(keras.ops.convert_to_tensor(ids))), ids != 0
    )


def test_words_fall_as_in_torch():
    p, ids = 0.4, np.array([[1, 2, 0, 2]])
    table = np.random.default_rng(0).normal(size=(3, 2)).astype("float32")
    layer = L.EmbeddingDropout(K.Embedding(3, 2, mask_zero=True), p, seed=0)
    layer.build((None, 4))
    layer.set_weights([table])
    net = nn.EmbeddingDropout(
        torch.nn.Embedding.from_pretrained(torch.tensor(table), padding_idx=0), p
    )
    ours = np.stack([array(layer(ids, training=True)).ravel() for _ in range(400)])
    theirs = np.stack([net(torch.tensor(ids)).numpy().ravel() for _ in range(400)])
    assert same_law(ours, theirs) == 4
    np.testing.assert_array_equal(array(layer(ids)), net.eval()(torch.tensor(ids)).numpy())
    assert not array(L.EmbeddingDropout(K.Embedding(3, 2), 1.0)(ids, training=True)).any()


def test_an_embedding_keeps_what_it_was():
    layer = L.EmbeddingDropout(K.Embedding(6, 3, mask_zero=True), 0.2, seed=1, name="words")
    model = keras.Sequential([keras.Input((4,), dtype="int32"), layer, K.LSTM(2)])
    plain = keras.Sequential(
        [keras.Input((4,), dtype="int32"), K.Embedding(6, 3, mask_zero=True), K.LSTM(2)]
    )
    plain.set_weights(model.get_weights())
    ids = np.array([[1, 2, 0, 0], [3, 4, 5, 0]])
    np.testing.assert_allclose(array(model(ids)), array(plain(ids)), rtol=1e-5, atol=1e-6)
    assert [(s.name, s.rate) for s in tk.find(model)] == [("words", 0.2)]
    assert (tk.predict(model, ids, samples=9, outputs="values").std > 0).any()
    assert again(layer).rate == 0.2
    half = L.EmbeddingDropout(
        K.Embedding(2050, 3, dtype="mixed_float16"), 0.0, dtype="mixed_float16"
    )
    rows = half(np.array([[2049.0, 5.0]], "float32"), training=True)  # float16 has no 2049
    assert keras.backend.standardize_dtype(rows.dtype) == "float16"
    np.testing.assert_allclose(array(rows)[0], half.layer.get_weights()[0][[2049, 5]], rtol=1e-3)
    with pytest.raises(ValueError, match=r"argument `layer`. Expected a keras.layers.Embedding"):
        L.EmbeddingDropout(K.Dense(2))
    with pytest.raises(ValueError, match="argument `rate`"):
        L.EmbeddingDropout(K.Embedding(2, 2), -0.1)


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
def test_states_fall_as_in_torch(kind, method, scale, per, outcomes):
    """Two units, two steps after a first state: all outcomes are those of the torch face, as often;
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
    assert same_law(ours(n, training=True), theirs(n)) == outcomes
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
    layer = L.DropState(cell, 0.3, input_rate=0.5, seed=3, return_sequences=True)
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
        ("recurrent", "input_rate"),
    ]
    other = again(layer)
    assert (other.rate, other.input_rate, other.method, other.per) == (
        0.3,
        0.5,
        "variational",
        "sequence",
    )
    layer.rate = layer.input_rate = (
        1.0  # nothing comes in and nothing is recalled: without bias the state stays 0
    )
    assert not array(layer(x, training=True)).any()
    both = K.Bidirectional(L.DropState(K.LSTMCell(4), 0.3, return_sequences=True))
    assert array(both(x, training=True)).shape == (2, 5, 8)
    with pytest.raises(ValueError, match="argument `input_rate`"):
        layer.input_rate = 2


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


@pytest.mark.parametrize("masked", [False, True])
def test_keys_fall_inside_attention(masked):
    """Equal scores and values that name their keys: a query's row is the mean of the keys that it
    sees, as in torch.
    """
    n, p = 1500, 0.4
    x = np.eye(3, dtype="float32")[None].repeat(n, 0)  # [n, 3 keys, 3]
    allowed = np.array([[[True, True, False]]]).repeat(n, 0) if masked else None
    layer = L.DropKeyAttention(1, 3, key_rate=p, seed=0)
    layer.build((None, 1, 3), x.shape)
    eye = np.eye(3, dtype="float32")
    nothing = [
        np.zeros_like(w) for w in layer.get_weights()[:4]
    ]  # of queries and keys: all scores are equal
    layer.set_weights(
        [*nothing, eye.reshape(3, 1, 3), np.zeros((1, 3)), eye.reshape(1, 3, 3), np.zeros(3)]
    )
    y = array(layer(x[:, :1], x, attention_mask=allowed, training=True))
    mask = None if allowed is None else torch.tensor(allowed)[:, None]
    zeros = torch.zeros(n, 1, 1, 3)
    theirs = F.attention_dropout(
        zeros, torch.zeros(n, 1, 3, 3), torch.tensor(x)[:, None], mask, p=p, method="keys"
    )
    assert same_law(y.reshape(n, 3), theirs.reshape(n, 3).numpy()) == (3 if masked else 7)
    np.testing.assert_allclose(y.sum(-1), 1.0, rtol=1e-5)
    plain = K.MultiHeadAttention(1, 3)
    plain.build((None, 1, 3), x.shape)
    plain.set_weights(layer.get_weights())
    np.testing.assert_allclose(array(layer(x[:2], x[:2])), array(plain(x[:2], x[:2])), rtol=1e-6)
    _, scores = layer(
        x[:2], x[:2], return_attention_scores=True, use_causal_mask=True, training=True
    )
    np.testing.assert_allclose(array(scores).sum(-1), 1.0, rtol=1e-5)
    assert not np.triu(array(scores)[:, 0], 1).any()
    assert [(s.kind, s.argument, s.rate) for s in tk.find(layer) if s.rate] == [
        ("attention", "rate", p)
    ]


def test_keys_fall_in_scores_and_on_maps():
    scores = array(L.DropKey(0.6, seed=0)(np.zeros((3000, 2), "float32"), training=True))
    seen = np.bincount(np.isfinite(scores) @ [1, 2], minlength=4)
    assert stats.chisquare(seen[1:], 3000 * np.array([0.24, 0.24, 0.16 + 0.36])).pvalue > ALPHA
    assert again(L.DropKey(0.3, seed=1)).rate == 0.3
    layer = again(L.DropKeyAttention(2, 4, key_rate=0.5, attention_axes=(1, 2), dropout=0.1))
    x = np.random.default_rng(0).normal(size=(2, 3, 2, 5)).astype("float32")
    assert array(layer(x, x, training=True)).shape == x.shape
    h = keras.Input((3, 4))
    model = keras.Model(h, L.DropKeyAttention(2, 4, key_rate=0.5)(h, h))
    assert (tk.predict(model, x[:, :, 0, :4], samples=5, outputs="values").std > 0).any()
    for make in (L.DropKey, lambda rate: L.DropKeyAttention(2, 4, key_rate=rate)):
        with pytest.raises(
            ValueError, match=r"rate`. Expected a float value of at least 0 and below 1"
        ):
            make(1.0)
