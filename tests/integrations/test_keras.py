"""A real small fit under Keras."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest

pytest.importorskip("keras", reason="keras is not installed")

import keras
from thinned.integrations.keras import WatchCallback

pytestmark = pytest.mark.filterwarnings("ignore")  # Keras' own


@pytest.fixture(autouse=True)
def _nondeterministic():
    import torch

    torch.use_deterministic_algorithms(False)


def rows(count, seed):
    x = np.random.default_rng(seed).standard_normal((count, 10)).astype("float32")
    return x, x[:, :3].argmax(1)


def fit(callbacks, p=0.4, norm=True, epochs=5, size=256):
    keras.utils.set_random_seed(1)
    layers = [
        keras.layers.Dense(32, activation="relu"),
        *([keras.layers.BatchNormalization()] if norm else []),
    ]
    net = keras.Sequential(
        [keras.Input((10,)), *layers, keras.layers.Dropout(p), keras.layers.Dense(3)]
    )
    net.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    x, y = rows(size, 1)
    net.fit(
        x,
        y,
        batch_size=32,
        epochs=epochs,
        validation_data=rows(256, 2),
        verbose=0,
        callbacks=callbacks,
    )
    return net


def test_watched_is_the_same():
    x, y = rows(256, 1)
    callback = WatchCallback(x[:128], y[:128])
    plain, watched = fit([]), fit([callback])
    assert all(
        (a == b).all() for a, b in zip(plain.get_weights(), watched.get_weights(), strict=True)
    )
    samples = [r for r in callback.history if r["what"] == "sample"]
    assert len(samples) == 5
    (rate,) = samples[-1]["rates"].values()
    assert rate["nominal"] == 0.4
    assert abs(np.mean([next(iter(r["rates"].values()))["measured"] for r in samples]) - 0.4) < 0.05
    assert not rate["in_eval"]
    loss = watched.evaluate(x[:128], y[:128], verbose=0)[0]
    assert samples[-1]["eval"] == pytest.approx(loss, rel=1e-4)
    assert "dropout" in str(callback)


def test_a_gap_that_is_dropout():
    x, y = rows(2048, 1)
    callback = WatchCallback(x[:512], y[:512], window=4)
    fit([callback], p=0.5, norm=False, epochs=8, size=2048)
    assert {v.name for v in callback.verdicts} == {"gap-is-dropout"}
    assert callback.findings.codes == {"L16"}
