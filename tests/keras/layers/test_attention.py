"""Attention heads and keys that are dropped."""

from __future__ import annotations

import math

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

from ..help import ALPHA, again, array, same_distribution  # noqa: E402

K = keras.layers


@pytest.mark.parametrize("masked", [False, True])
def test_keys_are_dropped_inside_attention(masked):
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
    assert same_distribution(y.reshape(n, 3), theirs.reshape(n, 3).numpy()) == (3 if masked else 7)
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


def test_keys_are_dropped_in_scores_and_on_maps():
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


def test_heads_are_dropped_inside_attention():
    """As Keras's layer: the same weights and evaluation; with the output projection the
    identity, heads are seen.
    """
    x = np.random.default_rng(0).normal(size=(500, 4, 6)).astype("float32")
    layer, plain = L.DropHeadAttention(3, 2, head_rate=0.4, seed=0), K.MultiHeadAttention(3, 2)
    layer.build(x.shape, x.shape), plain.build(x.shape, x.shape)
    weights = layer.get_weights()
    weights[-2] = np.eye(6, dtype="float32").reshape(3, 2, 6)
    layer.set_weights(weights), plain.set_weights(weights)
    still = array(plain(x, x))
    np.testing.assert_allclose(array(layer(x, x)), still, rtol=1e-5, atol=1e-6)
    gains = (array(layer(x, x, training=True)) / still).reshape(500, 4, 3, 2)
    np.testing.assert_allclose(
        gains, gains[:, :1, :, :1] * np.ones((1, 4, 1, 2)), rtol=1e-2, atol=1e-3
    )
    kept = (gains[:, 0, :, 0] > 0).sum(1)
    chances = [math.comb(3, k) * 0.6**k * 0.4 ** (3 - k) for k in range(4)]
    expected = 500 * np.array(
        [chances[1], chances[2], chances[3] + chances[0]]
    )  # where all would be dropped, all are kept
    assert stats.chisquare(np.bincount(kept, minlength=4)[1:], expected).pvalue > ALPHA
    again = L.DropHeadAttention.from_config(layer.get_config())
    assert again.head_rate == 0.4
    with pytest.raises(ValueError, match="argument `head_rate`"):
        L.DropHeadAttention(3, 2, head_rate=1.0)


def test_heads_keep_their_sum():
    heads = array(L.DropHead(0.5, seed=0)(np.ones((2000, 2, 4, 3), "float32"), training=True))
    np.testing.assert_allclose(heads.mean(2), 1.0, rtol=1e-6)  # the sum over heads keeps its weight
    assert np.unique(heads[:, 0, :, 0].round(4)).tolist() == pytest.approx(
        [0, 1, 4 / 3, 2, 4], abs=1e-3
    )
