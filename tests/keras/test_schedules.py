"""Rates that change while training."""

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


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


def test_schedules_reach_compiled_steps():
    """At rate 1 the head's kernel gets no gradient: it moves in the first two steps and stands
    still in the last two.
    """
    model = keras.Sequential(
        [keras.Input((3,)), L.Dropout(0.0, name="moving"), K.Dense(1, use_bias=False)]
    )
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x = np.ones((16, 3), "float32")
    kernels, rates = [], []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            rates.append(model.layers[0].rate)
            if hasattr(self.model, "jax_state_sync"):
                self.model.jax_state_sync()
            kernels.append(array(model.layers[1].kernel).copy())

    jump = tk.ScheduleCallback(lambda step: 0.0 if step < 2 else 1.0)
    model.fit(
        x, np.zeros(16), batch_size=4, epochs=1, shuffle=False, verbose=0, callbacks=[jump, Watch()]
    )
    assert rates == [0.0, 0.0, 1.0, 1.0]
    assert not np.array_equal(kernels[0], kernels[1])
    np.testing.assert_array_equal(kernels[1], kernels[2])
    np.testing.assert_array_equal(kernels[2], kernels[3])
    model.fit(
        x,
        np.zeros(16),
        batch_size=8,
        epochs=3,
        verbose=0,
        callbacks=[tk.ScheduleCallback(Linear(0, 0.4, 2), unit="epoch"), Watch()],
    )
    assert rates[4:] == [0.0, 0.0, 0.2, 0.2, 0.4, 0.4]
    model.fit(
        x,
        np.zeros(16),
        batch_size=16,
        epochs=1,
        verbose=0,
        callbacks=[tk.ScheduleCallback(Linear(0, 1.0, 20)), Watch()],
    )
    assert rates[10:] == [0.5]  # the optimizer stands at step 10


def test_schedules_refuse_what_cannot_move():
    model = keras.Sequential([keras.Input((3,)), K.Dropout(0.5), K.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(InputError, match=r"no layer of thinned\.keras"):
        model.fit(
            np.ones((4, 3)),
            np.ones(4),
            verbose=0,
            callbacks=[tk.ScheduleCallback(Linear(0, 0.4, 2))],
        )
    with pytest.raises(InputError, match="argument `schedule`"):
        tk.ScheduleCallback(0.5)
