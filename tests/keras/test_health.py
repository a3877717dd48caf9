"""The known mistakes, each in a model of its own."""

from __future__ import annotations

import numpy as np
import pytest

keras = pytest.importorskip(
    "keras", reason="Keras is not installed: pip install 'thinned[keras]' and a backend"
)

import thinned.keras as tk  # noqa: E402
from thinned import InputError  # noqa: E402
from thinned.keras import layers as L  # noqa: E402

from .help import array  # noqa: E402

K = keras.layers


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


class TwiceTheRate(K.Layer):
    """A wrong dropout: twice what it says."""

    rate = 0.2

    def call(self, x, training=False):
        return keras.random.dropout(x, 0.4, seed=1) if training else x


TwiceTheRate.__name__ = "MyDropout"


class Always(K.Layer):
    def __init__(self):
        super().__init__()
        self.seed = keras.random.SeedGenerator(0)

    def call(self, x):
        return keras.random.dropout(x, 0.5, seed=self.seed)


MISTAKES = {
    "L5": [K.Dense(20), L.Dropout(0.3), K.Dense(20), K.BatchNormalization(), K.Dense(2)],
    "L7": [K.Dense(20), Always(), K.Dense(2)],
    "L14": [K.Dense(20), K.Dense(2), K.Dropout(0.3), K.Softmax()],
    "L19": [K.Dense(20), L.Dropout(1.0), K.Dense(2)],
    "L20": [K.Dense(20), TwiceTheRate(), K.Dense(2)],
    "L22": [K.Dense(20, "selu"), L.Dropout(0.3), K.Dense(2)],
    "L22 ": [K.Dense(20, "relu"), K.AlphaDropout(0.3), K.Dense(2)],
    "": [
        K.Dense(20, "selu"),
        L.AlphaDropout(0.1),
        K.Dense(20, "relu"),
        K.Dropout(0.3),
        K.Reshape((5, 4)),
        L.DropBlock1D(0.2, 3),
        K.SpatialDropout1D(0.3),
        K.Flatten(),
        K.LayerNormalization(),
        L.UniformDropout(0.1),
        K.BatchNormalization(),
        K.Dense(2),
    ],
}


@pytest.mark.parametrize("code", MISTAKES)
def test_check(code):
    model = keras.Sequential([keras.Input((10,)), *MISTAKES[code]])
    before = [array(w).copy() for w in model.weights]
    found = tk.check(model, np.random.default_rng(0).normal(size=(64, 10)).astype("float32"))
    assert found.codes == ({code.strip()} if code else set()), str(found)
    for a, w in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(a, array(w))
    if code == "L20":
        assert dict(found[0].evidence)["measured"] == pytest.approx(0.4, abs=0.05)


def test_check_of_dead_dropout():
    class Dead(K.Layer):
        def __init__(self):
            super().__init__()
            self.inner = K.Dropout(0.5)

        def call(self, x):
            return self.inner(x, training=False)

    x = keras.Input((5, 3))
    model = keras.Model(x, K.Dense(2)(K.LSTM(2, recurrent_dropout=1.0)(Dead()(x))))
    found = tk.check(model, np.random.default_rng(0).normal(size=(32, 5, 3)).astype("float32"))
    assert found.codes == {"L21"}
    assert len(found) == 2
    with pytest.raises(InputError, match="no weights yet"):
        tk.check(keras.Sequential([K.Dense(2)]), np.ones((2, 2)))


def test_check_finds_no_mistake_in_these():
    x = keras.Input((6,))
    h = L.Mixout(K.Dense(6, "selu"), 0.5)(L.VariationalDropout(0.2)(x))
    h = L.Shakeout(K.Dense(6, "relu"), 0.3)(L.DropConnect(K.Dense(6, "relu"), 0.3)(h))
    h = L.ShakeShake()([L.ShakeDrop(0.3)(h), L.Swapout(0.3)([h, h])])
    h = L.Standout(K.Dense(6))(L.LayerDrop(K.Dense(6), 0.2)(h))
    model = keras.Model(x, L.ConcreteDropout(K.Dense(6))(h))
    assert not tk.check(model, np.random.default_rng(0).normal(size=(64, 6)).astype("float32"))
    kinds = {s.layer: s.kind for s in tk.find(model)}
    assert kinds["Mixout"] == kinds["DropConnect"] == "weights"
    assert kinds["ShakeShake"] == kinds["Swapout"] == "branch"
    assert (
        tk.predict(model, np.ones((2, 6), "float32"), samples=5, outputs="values").std > 0
    ).all()
