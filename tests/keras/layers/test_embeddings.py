"""Words of an embedding: by enumeration, and as in torch."""

from __future__ import annotations

import numpy as np
import pytest

keras = pytest.importorskip(
    "keras", reason="Keras is not installed: pip install 'thinned[keras]' and a backend"
)
stats = pytest.importorskip("scipy.stats")
torch = pytest.importorskip("torch")

import thinned.keras as tk  # noqa: E402
from thinned import nn  # noqa: E402
from thinned.keras import layers as L  # noqa: E402

from ..help import ALPHA, again, array, same_distribution  # noqa: E402

K = keras.layers


def test_enumerated_words_of_every_backend():
    """One draw for each word of the table: the eight ways to drop three words; 0 pads and is never
    dropped.
    """
    p, n = 0.3, 3000
    layer = L.EmbeddingDropout(
        K.Embedding(4, 2, mask_zero=True, embeddings_initializer="ones"), p, seed=0
    )
    ids = np.array([[1, 2, 3, 1, 0], [2, 2, 0, 3, 1]])
    draws = np.stack([array(layer(ids, training=True)) for _ in range(n // 10)])
    assert set(np.unique(draws.round(4))) == {0.0, np.float32(1 / 0.7).round(4), 1.0}
    np.testing.assert_array_equal(draws[..., 0], draws[..., 1])
    np.testing.assert_array_equal(draws[:, 0, 0], draws[:, 1, 4])  # a word is dropped everywhere
    np.testing.assert_array_equal(draws[:, 0, 4], 1.0)
    dropped = (draws[:, 0, :3, 0] == 0) @ [1, 2, 4]
    chances = np.array(
        [p ** bin(i).count("1") * (1 - p) ** (3 - bin(i).count("1")) for i in range(8)]
    )
    assert stats.chisquare(np.bincount(dropped, minlength=8), len(draws) * chances).pvalue > ALPHA
    np.testing.assert_array_equal(array(layer(ids)), 1.0)
    np.testing.assert_array_equal(
        array(layer.compute_mask(keras.ops.convert_to_tensor(ids))), ids != 0
    )


def test_words_are_dropped_as_in_torch():
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
    assert same_distribution(ours, theirs) == 4
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
