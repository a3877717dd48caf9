"""Where a model draws."""

from __future__ import annotations

import pytest

keras = pytest.importorskip(
    "keras", reason="Keras is not installed: pip install 'thinned[keras]' and a backend"
)

import thinned.keras as tk  # noqa: E402
from thinned.keras import layers as L  # noqa: E402

K = keras.layers


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


def test_find():
    x = keras.Input((6, 4))
    h = K.MultiHeadAttention(2, 3, dropout=0.2, name="mha")(x, x)
    h = K.Bidirectional(
        K.LSTM(3, dropout=0.1, recurrent_dropout=0.3, return_sequences=True), name="both"
    )(h)
    h = K.SpatialDropout1D(0.4, name="spatial")(h)
    h = keras.Sequential(
        [L.LockedDropout(0.25, name="locked"), K.GaussianNoise(0.1, name="noise")], name="inner"
    )(h)
    h = L.Zoneout(keras.layers.LSTMCell(2), 0.1, 0.2, name="zone")(h)
    sites = tk.find(keras.Model(x, h))
    seen = [(s.name, s.kind, s.argument, s.rate) for s in sites]
    assert next(s for s in seen if s[0].startswith("mha"))[1:] == ("dropout", "rate", 0.2)
    recurrent = [s for s in seen if s[0].startswith("both")]
    assert sorted(s[2:] for s in recurrent) == sorted(
        [("dropout", 0.1), ("recurrent_dropout", 0.3)] * 2
    )
    assert [s for s in seen if s[0].split("/")[0] in ("spatial", "inner", "zone")] == [
        ("spatial", "dropout", "rate", 0.4),
        ("inner/locked", "dropout", "rate", 0.25),
        ("inner/noise", "noise", "stddev", 0.1),
        ("zone", "recurrent", "rate", 0.1),
        ("zone", "recurrent", "cell_rate", 0.2),
    ]
    assert "inner/locked" in str(sites)
    assert str(tk.find(K.Dense(2))) == "no randomness found"
