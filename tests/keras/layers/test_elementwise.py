"""Dropout on single elements: types, masks by enumeration, gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest

keras = pytest.importorskip(
    "keras", reason="Keras is not installed: pip install 'thinned[keras]' and a backend"
)
stats = pytest.importorskip("scipy.stats")
torch = pytest.importorskip("torch")

from thinned.keras import layers as L  # noqa: E402

from ..help import ALPHA, array  # noqa: E402


def gradient(f, x):
    """d sum(f(x)) / dx, by the backend's own means."""
    name = keras.backend.backend()
    if name == "torch":
        x = keras.ops.convert_to_tensor(x).clone().requires_grad_(True)
        f(x).sum().backward()
        return x.grad.cpu().numpy()
    if name == "jax":
        import jax

        return np.asarray(jax.grad(lambda x: f(x).sum())(keras.ops.convert_to_tensor(x)))
    import tensorflow as tf

    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(f(x))
    return tape.gradient(y, x).numpy()


@pytest.mark.parametrize("dtype", ["float16", "mixed_bfloat16", "float64"])
def test_types(dtype):
    if dtype == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has no float64 unless told so")
    layer = L.Dropout(0.3, seed=0, dtype=dtype)
    y = layer(np.ones((50, 200), "float32"), training=True)
    assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
    values = np.unique(array(keras.ops.cast(y, "float32")))
    np.testing.assert_allclose(values, [0, 1 / 0.7], rtol=5e-3)
    assert L.AlphaDropout(0.3, dtype=dtype)(np.ones((4, 4)), training=True).dtype == y.dtype


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_enumerated_masks(p):
    """Three elements: the eight masks with their probabilities."""
    y = array(L.Dropout(p, seed=3)(np.ones((20_000, 3), "float32"), training=True)) > 0
    counts = np.bincount(y @ [1, 2, 4], minlength=8)
    expected = [
        20_000 * math.prod((1 - p) if code >> i & 1 else p for i in range(3)) for code in range(8)
    ]
    assert stats.chisquare(counts, expected).pvalue > ALPHA


@pytest.mark.parametrize("p", [0.4, 1.0])
def test_gradient_is_the_same_mask(p):
    x = np.random.default_rng(0).normal(size=(20, 30)).astype("float32")
    if p == 1.0:
        x[0, 0] = np.inf
    kept = array(L.Dropout(p, seed=2)(np.ones_like(x), training=True))
    layer = L.Dropout(p, seed=2)
    np.testing.assert_array_equal(gradient(lambda x: layer(x, training=True), x), kept)
