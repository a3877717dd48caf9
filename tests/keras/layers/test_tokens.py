"""Words, patches and spans."""

from __future__ import annotations

import math

import numpy as np
import pytest

keras = pytest.importorskip(
    "keras", reason="Keras is not installed: pip install 'thinned[keras]' and a backend"
)
stats = pytest.importorskip("scipy.stats")
torch = pytest.importorskip("torch")

from thinned import functional as F  # noqa: E402
from thinned.keras import layers as L  # noqa: E402

from ..help import ALPHA, again, array, same_distribution  # noqa: E402


def test_words():
    ids = np.tile(np.array([[0, 5, 6, 7]]), (5000, 1))
    layer = L.WordDropout(0.3, 1, keep_id=0, seed=0)
    y = array(layer(ids, training=True))
    assert (y[:, 0] == 0).all()
    assert ((y == ids) | (y == 1)).all()
    assert stats.binomtest(int((y[:, 1:] == 1).sum()), 15_000, 0.3).pvalue > ALPHA
    np.testing.assert_array_equal(array(layer(ids)), ids)
    assert "int" in keras.backend.standardize_dtype(layer(keras.Input((4,), dtype="int32")).dtype)
    with pytest.raises(ValueError, match="whole numbers"):
        layer(np.ones((2, 3), "float32"))


def test_patches():
    x = np.tile(np.arange(9, dtype="float32")[None, :, None], (3000, 1, 2))
    patches = L.PatchDropout(0.5, seed=0)
    y = array(patches(x, training=True))[..., 0]
    assert y.shape == (3000, 5)
    assert (y[:, 0] == 0).all()
    assert (np.diff(y, axis=1) > 0).all()
    sets = np.unique(y[:, 1:], axis=0, return_counts=True)[1]
    assert len(sets) == math.comb(8, 4)
    assert stats.chisquare(sets).pvalue > ALPHA
    np.testing.assert_array_equal(array(patches(x)), x)
    assert patches(keras.Input((9, 2)), training=True).shape == (None, 5, 2)
    with pytest.raises(ValueError, match="leave a patch"):
        L.PatchDropout(0.9)(x[:, :5], training=True)


def test_spans_are_those_of_torch():
    n, t = 2000, 7
    for p, places in ((0.4, 5), (0.0, 1), (1.0, 1)):  # round(2.8) tokens
        layer = again(L.HiddenCut(p, seed=0))
        ours = array(layer(np.ones((n, t, 2), "float32"), training=True))
        theirs = F.hidden_cut(torch.ones(n, t, 2), p).numpy()
        assert same_distribution(ours[..., 0], theirs[..., 0]) == places
        np.testing.assert_array_equal(ours[..., 0], ours[..., 1])
    assert tuple(L.HiddenCut(0.2)(keras.Input((None, 3)), training=True).shape) == (None, None, 3)
