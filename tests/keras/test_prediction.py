"""Monte Carlo dropout: the mean over all masks, and what is in inference."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

keras = pytest.importorskip(
    "keras", reason="Keras is not installed: pip install 'thinned[keras]' and a backend"
)
stats = pytest.importorskip("scipy.stats")

import thinned.keras as tk  # noqa: E402
from thinned import InputError  # noqa: E402
from thinned.keras import layers as L  # noqa: E402

from .help import array  # noqa: E402

K = keras.layers


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


def thinned_by_hand(w1, b1, w2, b2, x, p):
    """Every mask of the hidden layer with its probability: (probability, output)."""
    h = np.tanh(x @ w1 + b1)
    for mask in itertools.product((0, 1), repeat=h.shape[1]):
        chance = np.prod([1 - p if m else p for m in mask])
        z = (h * np.array(mask) / (1 - p)) @ w2 + b2
        e = np.exp(z - z.max(-1, keepdims=True))
        yield chance, e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("layer", [L.Dropout, K.Dropout], ids=["ours", "Keras's"])
def test_predict_is_the_mean_over_all_masks(layer):
    p, n = 0.4, 100
    model = keras.Sequential(
        [keras.Input((3,)), K.Dense(4, "tanh"), layer(p, seed=1), K.Dense(3, "softmax")]
    )
    x = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
    plain = model.predict(x, verbose=0)
    got = tk.predict(model, x, samples=n, keep=True)
    masks = list(thinned_by_hand(*(array(w) for w in model.weights), x, p))
    mean = sum(c * y for c, y in masks)
    var = sum(c * (y - mean) ** 2 for c, y in masks)
    z = (got.mean - mean) / np.sqrt(var / n)
    assert np.abs(z).max() < stats.norm.isf(1e-3 / 2 / z.size)
    np.testing.assert_allclose(got.samples.mean(0), got.mean, rtol=1e-9)
    np.testing.assert_allclose(got.samples.std(0, ddof=1), got.std, rtol=1e-9)
    entropy = stats.entropy(got.mean, axis=-1)
    np.testing.assert_allclose(got.entropy, entropy, rtol=1e-6)
    each = stats.entropy(got.samples, axis=-1).mean(0)
    np.testing.assert_allclose(got.mutual_information, entropy - each, atol=1e-6)
    np.testing.assert_array_equal(model.predict(x, verbose=0), plain)  # and the model draws no more


def test_predict_leaves_batch_normalization_alone():
    x = np.random.default_rng(0).normal(5, 3, size=(32, 4)).astype("float32")
    inner = keras.Sequential([K.Dense(4), L.Dropout(0.5)])
    model = keras.Sequential([keras.Input((4,)), K.BatchNormalization(), inner, K.Dense(1)])
    statistics = [array(w).copy() for w in model.layers[0].weights]
    got = tk.predict(model, x, samples=3)
    assert (got.std > 0).any()
    assert got.entropy is None
    for before, w in zip(statistics, model.layers[0].weights, strict=True):
        np.testing.assert_array_equal(before, array(w))
    normal = keras.Sequential(
        [keras.Input((4,)), K.BatchNormalization(), L.GaussianDropout(0.0), L.Dropout(1e-6)]
    )
    np.testing.assert_allclose(
        tk.predict(normal, x, samples=2).mean, x / np.sqrt(1 + 1e-3), rtol=1e-5
    )


@pytest.mark.parametrize(
    "part",
    [
        lambda: K.LSTM(3, dropout=0.5),
        lambda: K.GRU(3, recurrent_dropout=0.5),
        lambda: L.Zoneout(keras.layers.GRUCell(3), 0.5),
        lambda: L.DropConnect(K.Dense(3), 0.5),
    ],
    ids=["dropout", "recurrent", "zoneout", "dropconnect"],
)
def test_predict_samples_inside_layers(part):
    model = keras.Sequential([keras.Input((5, 2)), part()])
    got = tk.predict(model, np.ones((2, 5, 2), "float32"), samples=3, outputs="values")
    assert (got.std > 0).any()


def test_predict_refuses():
    model = keras.Sequential([keras.Input((2,)), K.Dense(2), L.Dropout(0.0)])
    with pytest.raises(InputError, match="draws nothing"):
        tk.predict(model, np.ones((1, 2)))
    with pytest.raises(InputError, match="argument `samples`"):
        tk.predict(model, np.ones((1, 2)), samples=1)
    with pytest.raises(InputError, match="Keras model"):
        tk.predict("model", np.ones((1, 2)))


AROUND = {
    "DropConnect": lambda inner: L.DropConnect(inner, 1e-6, scale="inverted"),
    "Mixout": lambda inner: L.Mixout(inner, 1e-6),
    "LayerDrop": lambda inner: L.LayerDrop(inner, 1e-6),
    "Concrete": lambda inner: L.ConcreteDropout(inner, 1e-6),
    "Information": lambda inner: L.InformationDropout(
        inner, K.Dense(4, bias_initializer=keras.initializers.Constant(-50))
    ),
}


@pytest.mark.parametrize("name", AROUND)
def test_layers_inside_train_when_the_model_does(name):
    """Monte Carlo passes draw in the layer around, and leave batch normalization inside in
    inference; training updates it.
    """
    x = np.random.default_rng(0).normal(5, 3, size=(32, 4)).astype("float32")
    inner = keras.Sequential(
        [keras.Input((4,)), K.Dense(4, kernel_initializer="identity"), K.BatchNormalization()]
    )
    model = keras.Sequential([keras.Input((4,)), AROUND[name](inner)])
    statistics = inner.layers[1].non_trainable_weights
    before = [array(w).copy() for w in statistics]
    mean = tk.predict(model, x, samples=3, outputs="values").mean
    np.testing.assert_allclose(mean, x / np.sqrt(1 + 1e-3), rtol=2e-2)
    np.testing.assert_array_equal(before[0], array(statistics[0]))
    model(x, training=True)
    assert not np.allclose(before[0], array(statistics[0]))
