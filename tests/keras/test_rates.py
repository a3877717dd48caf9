"""Rates set in place."""

from __future__ import annotations

import numpy as np
import pytest

keras = pytest.importorskip(
    "keras", reason="Keras is not installed: pip install 'thinned[keras]' and a backend"
)

import thinned.keras as tk  # noqa: E402
from thinned import InputError  # noqa: E402
from thinned.algebra import Linear  # noqa: E402
from thinned.keras import layers as L  # noqa: E402

from .help import array  # noqa: E402

K = keras.layers


@keras.saving.register_keras_serializable("test_rates")
class Block(keras.layers.Layer):
    """Without a ``get_config``, and with an argument that no configuration can hold."""

    def __init__(self, activate, **kwargs):
        super().__init__(**kwargs)
        self.activate = activate
        self.dense, self.drop = K.Dense(4), K.Dropout(0.5, name="drop")

    def call(self, x, training=False):
        return self.drop(self.activate(self.dense(x)), training=training)


def rates(model):
    return {f"{s.name}.{s.argument}": s.rate for s in tk.find(model)}


@pytest.mark.parametrize("drop", [K.Dropout, L.Dropout])
def test_steps_of_every_backend_read_the_new_rate(drop):
    """Of Keras's layers too, which hold it as a constant of a compiled step. The loss is expected
    to be 64 + 8 at rate 0.5, and its deviation is 1, so 66 is six deviations off (alpha 1e-8).
    """
    keras.utils.set_random_seed(0)
    dense = K.Dense(1, use_bias=False, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((8,)), drop(0.5, name="drop"), dense])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x, y = np.ones((2048, 8), "float32"), np.zeros((2048, 1), "float32")

    def loss():
        return model.fit(x, y, verbose=0).history["loss"][0]

    assert loss() > 66
    changes = tk.set_rate(model, 0.0)
    assert str(changes) == "drop.rate: 0.5 -> 0"
    assert loss() == 64
    changes.undo()
    assert rates(model) == {"drop.rate": 0.5}
    assert loss() > 66
    tk.set_rate(model, 1.0)
    assert loss() == 0


def test_attention_drops_and_saves_the_new_rate(tmp_path):
    x = keras.Input((4, 6))
    model = keras.Model(x, K.MultiHeadAttention(2, 3, dropout=0.5, name="mha")(x, x))
    data = np.random.default_rng(0).normal(size=(5, 4, 6)).astype("float32")
    assert len(tk.set_rate(model, 1.0)) == 1
    assert not array(model(data, training=True)).any()
    model.save(tmp_path / "model.keras")
    assert set(rates(keras.models.load_model(tmp_path / "model.keras")).values()) == {1.0}
    tk.set_rate(model, 0.0)
    np.testing.assert_allclose(
        array(model(data, training=True)), array(model(data, training=False)), rtol=1e-6
    )


def test_layers_without_a_configuration_are_set_in_place():
    x = keras.Input((4,))
    model = keras.Model(x, K.Dense(1)(K.Dense(4, name="deep")(Block(keras.ops.relu)(x))))
    tk.set_rate(model, lambda name, layer: 0.25)
    assert list(rates(model).values()) == [0.25]
    with pytest.raises(InputError, match=r"'block.*Block cannot be made.*def get_config.*set_rate"):
        tk.apply(model, "deep", 0.1)


def test_where_and_rates_of_zero():
    rnn = K.LSTM(3, dropout=0.2, recurrent_dropout=0.4, return_sequences=True, name="rnn")
    parts = [
        rnn,
        L.Dropout(0.0, name="off"),
        K.Dropout(0.0, name="never"),
        K.Dropout(0.3, name="d"),
    ]
    model = keras.Sequential([keras.Input((4, 5)), *parts])
    assert len(tk.set_rate(model, 0.1)) == 3
    assert rates(model)["off.rate"] == 0
    tk.set_rate(model, 0.6, "off")
    assert rates(model)["off.rate"] == 0.6
    tk.set_rate(model, 0.7, "d")
    assert (rates(model)["d.rate"], rates(model)["off.rate"]) == (0.7, 0.6)


def test_set_rate_refuses_before_it_changes():
    parts = [
        K.Dropout(0.3, name="d"),
        K.GaussianDropout(0.2, name="g"),
        K.Dropout(0.0, name="never"),
    ]
    model = keras.Sequential([keras.Input((4,)), *parts])
    before = rates(model)
    for rate, where, message in [
        (1.5, None, "argument `rate`.*between 0 and 1.*1.5"),
        ("0.5", None, "argument `rate`"),
        (1.0, None, "rate of g`.*below 1"),
        (0.5, "never", "made with rate=0.*above 0"),
        (0.5, "dd", "selects no layer with a rate.*'d'"),
        (0.5, "(", "regular expression"),
        (Linear(0.0, 0.3, 10), None, "ScheduleCallback"),
        (lambda name, layer: 2.0 if name == "g" else 0.1, None, "rate of g"),
    ]:
        with pytest.raises(InputError, match=message):
            tk.set_rate(model, rate, where)
        assert rates(model) == before
    with pytest.raises(InputError, match="Keras model or layer is needed"):
        tk.set_rate([model], 0.5)
