"""Copies of models with dropout added or replaced."""

from __future__ import annotations

import numpy as np
import pytest

keras = pytest.importorskip(
    "keras", reason="Keras is not installed: pip install 'thinned[keras]' and a backend"
)

import thinned.keras as tk  # noqa: E402
from thinned import InputError, presets  # noqa: E402
from thinned.keras import layers as L  # noqa: E402

from .help import array  # noqa: E402

K = keras.layers


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


def functional():
    x = keras.Input((4,))
    shared = K.Dense(4, "relu", name="shared")
    h = shared(shared(x))
    h = keras.Sequential(
        [keras.Input((4,)), K.Dense(5, "relu", name="deep"), K.Dropout(0.5, name="old")],
        name="inner",
    )(h)
    h = K.Concatenate()([h, x])
    return keras.Model(x, K.Softmax()(K.Dense(3, name="head")(h)))


def test_apply_copies_weights_and_names():
    model, x = functional(), np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    copy = tk.apply(model, spec=0.3)
    assert [(s.name, s.rate) for s in tk.find(copy)] == [
        ("shared_dropout", 0.3),
        ("inner/deep_dropout", 0.3),
        ("inner/old", 0.5),
    ]
    np.testing.assert_allclose(copy.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-6)
    assert not np.allclose(array(copy(x, training=True)), array(copy(x, training=True)))
    assert [s.name for s in tk.find(model)] == ["inner/old"]
    copy.get_layer("head").set_weights([w * 0 for w in copy.get_layer("head").get_weights()])
    assert np.any(model.get_layer("head").get_weights()[0])

    replaced = tk.apply(model, K.Dropout, presets.gaussian_dropout(0.2))
    assert [(s.name, s.layer, s.rate) for s in tk.find(replaced)] == [
        ("inner/old", "SpecDropout", 0.2)
    ]
    one = tk.apply(model, lambda name, layer: name == "head", lambda: L.UniformDropout(0.1))
    assert [s.name for s in tk.find(one)][-1] == "head_dropout"
    deep = tk.apply(model, "deep", 0.1)
    assert tk.find(deep)[0].name == "inner/deep_dropout"
    assert (
        tk.find(tk.apply(keras.Sequential([K.Dense(3, name="a"), K.Dense(2)]), "a", 0.1))[0].name
        == "a_dropout"
    )


def test_apply_refuses():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(InputError, match="neither Sequential nor functional"):
        tk.apply(Own(), spec=0.1)
    with pytest.raises(InputError, match=r"did you mean .*'head'"):
        tk.apply(functional(), "haed", 0.1)
    with pytest.raises(InputError, match="argument `spec`"):
        tk.apply(functional(), "head", 2.0)


def test_apply_replaces_no_layer_that_computes():
    """A dropout layer is replaced; a recurrent layer, a wrapper or a merging layer gets
    it behind.
    """
    x = keras.Input((4, 3))
    h = L.DropState(K.GRUCell(3), 0.2, return_sequences=True, name="state")(x)
    h = L.Swapout(0.2, name="swap")(
        [h, L.Mixout(K.Dense(3), name="mix")(L.VariationalDropout(name="learned")(h))]
    )
    model = keras.Model(x, K.Dense(1)(h))
    new = tk.apply(model, "state|swap|mix|learned", lambda: L.LockedDropout(0.1))
    kinds = [s.layer for s in tk.find(new) if s.ours and s.argument == "rate"]
    assert kinds.count("LockedDropout") == 4
    assert {"DropState", "Swapout", "Mixout"} < set(kinds)
    assert "VariationalDropout" not in kinds
    data = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    np.testing.assert_allclose(array(new(data)), array(model(data)), rtol=1e-5, atol=1e-6)


def test_apply_of_every_backend_keeps_adapted_statistics():
    """Also what a layer derives from its weights, and inside models and wrappers."""
    data = np.random.default_rng(0).normal(50, 9, size=(64, 3)).astype("float32")
    norm = K.Normalization()
    norm.adapt(data)
    bins = K.Discretization(num_bins=3, output_mode="one_hot")
    bins.adapt(data)
    x = keras.Input((3,))
    inner = keras.Sequential([keras.Input((3,)), norm, K.Dense(4, name="deep")])
    model = keras.Model(x, K.Dense(2)(K.Concatenate()([inner(x), K.Flatten()(bins(x))])))
    copy = tk.apply(model, "deep", 0.5)
    want = array(model(data))
    assert np.abs(want).max() > 0
    np.testing.assert_allclose(array(copy(data)), want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(copy.predict(data, verbose=0), want, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras looks up by TensorFlow")
def test_apply_of_every_backend_keeps_adapted_vocabularies():
    words = K.IntegerLookup(output_mode="one_hot")
    words.adapt(np.array([[5], [7], [5], [11]]))
    x = keras.Input((1,), dtype="int64")
    model = keras.Model(x, K.Dense(2)(K.Dense(4, name="deep")(words(x))))
    copy = tk.apply(model, "deep", 0.5)
    ids = np.array([[5], [7], [11], [13]])
    np.testing.assert_allclose(array(copy(ids)), array(model(ids)), rtol=1e-6)


def test_apply_copies_a_sequence_that_was_built_by_a_call():
    model = keras.Sequential([K.Dense(3, name="a"), K.Dense(2)])
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    want = array(model(x))
    np.testing.assert_allclose(array(tk.apply(model, "a", 0.5)(x)), want, rtol=1e-6)
