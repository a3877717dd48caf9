"""Layers for Keras 3 on the backend of KERAS_BACKEND: Keras's own checklist for its dropout layers,
laws by closed forms.
"""

from __future__ import annotations

import copy
import itertools
import json
import math

import numpy as np
import pytest

keras = pytest.importorskip(
    "keras", reason="Keras is not installed: pip install 'thinned[keras]' and a backend"
)
stats = pytest.importorskip("scipy.stats")

from thinned import InputError, presets  # noqa: E402
from thinned.algebra import Bernoulli, Classic, Drop, moments  # noqa: E402
from thinned.algebra.per import block_fraction, seed_rate  # noqa: E402
from thinned.keras import layers as L  # noqa: E402

from .help import ALPHA, array  # noqa: E402

# Keras on torch converts arrays in a way that NumPy 2.4 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


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


# layer, arguments beside the rate, input shape, what evaluation multiplies by at rate 0.3, rate 1
# allowed
TABLE = [
    ("Dropout", {}, (6, 4), 1.0, True),
    ("Dropout", {"scale": "classic"}, (6, 4), 0.7, True),
    ("Dropout", {"noise_shape": (None, 1, None)}, (6, 5, 4), 1.0, True),
    ("GaussianDropout", {}, (6, 4), 1.0, False),
    ("AlphaDropout", {"noise_shape": [6, 1, 4]}, (6, 5, 4), 1.0, True),
    ("UniformDropout", {}, (6, 4), 1.0, None),
    ("DropBlock1D", {"block_size": 3}, (6, 7, 2), 1.0, True),
    (
        "DropBlock2D",
        {"block_size": (2, 3), "data_format": "channels_first"},
        (6, 2, 5, 6),
        1.0,
        True,
    ),
    ("DropBlock3D", {"block_size": 2}, (3, 4, 3, 5, 2), 1.0, True),
    ("LockedDropout", {}, (6, 5, 4), 1.0, True),
    ("TokenDropout", {}, (6, 5, 4), 1.0, True),
    ("DropPath", {}, (8, 3, 4), 1.0, True),
    ("StochasticDepth", {"per": "batch"}, (8, 3, 4), 0.7, True),
    ("DropHead", {}, (6, 3, 4, 2), 1.0, False),
    ("DropKey", {}, (6, 3, 4), 1.0, False),
    ("ShakeDrop", {"alpha": [-1.0, 0.5]}, (8, 3, 4), 0.7 - 0.3 / 4, None),
    ("HiddenCut", {}, (6, 9, 4), 1.0, True),
]
NAMES = [f"{name}-{'-'.join(more) or 'plain'}" for name, more, *_ in TABLE]


@pytest.mark.parametrize(("name", "more", "shape", "gain", "whole"), TABLE, ids=NAMES)
def test_checklist(name, more, shape, gain, whole):
    """Shapes, types, no weights, built, config, symbols, seeds, evaluation, rate 0, rate 1."""
    make = getattr(L, name)
    layer = make(0.3, seed=7, name="here", **more)
    assert layer.built
    assert layer.supports_masking
    assert not layer.weights
    assert not layer.get_weights()
    assert not layer.losses
    assert layer.compute_output_shape(shape) == shape

    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    first, second = array(layer(x, training=True)), array(layer(x, training=True))
    assert first.shape == shape
    assert first.dtype == np.float32
    assert not np.array_equal(first, second) or name in ("StochasticDepth", "ShakeDrop")  # one coin
    np.testing.assert_allclose(array(layer(x)), x * np.float32(gain), rtol=1e-6)

    config = json.loads(json.dumps(layer.get_config()))
    again = make.from_config(config)
    assert again.get_config() == layer.get_config()
    np.testing.assert_array_equal(array(again(x, training=True)), first)

    symbol = layer(keras.Input(shape[1:]), training=True)
    assert tuple(symbol.shape) == (None, *shape[1:])

    np.testing.assert_array_equal(array(make(0, **more)(x, training=True)), x)
    if whole:
        y = array(make(1.0, **more)(np.full(shape, np.inf, "float32"), training=True))
        np.testing.assert_array_equal(y, np.zeros(shape))
    elif whole is False:
        with pytest.raises(ValueError, match="argument `rate`"):
            make(1.0, **more)


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


def test_masks_pass_through():
    layer = keras.Sequential(
        [keras.layers.Embedding(5, 3, mask_zero=True), L.LockedDropout(0.5), keras.layers.LSTM(2)]
    )
    ids = np.array([[1, 2, 0, 0], [3, 4, 1, 0]])
    cut = layer.layers[2](layer.layers[0](ids[:, :2]))
    np.testing.assert_allclose(array(layer(ids))[0], array(cut)[0], rtol=1e-5)


def test_seeds_of_neighbours_are_their_own():
    """Keras on torch: Dropout(seed=1) draws at its second call what Dropout(seed=2) draws at its
    first.
    """
    x = np.ones((50, 100), "float32")
    one, two = L.Dropout(0.5, seed=1), L.Dropout(0.5, seed=2)
    one(x, training=True)
    same = (array(one(x, training=True)) == array(two(x, training=True))).sum()
    assert stats.binomtest(int(same), x.size).pvalue > ALPHA


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_enumerated_masks(p):
    """Three coins: the eight masks with their probabilities."""
    y = array(L.Dropout(p, seed=3)(np.ones((20_000, 3), "float32"), training=True)) > 0
    counts = np.bincount(y @ [1, 2, 4], minlength=8)
    expected = [
        20_000 * math.prod((1 - p) if code >> i & 1 else p for i in range(3)) for code in range(8)
    ]
    assert stats.chisquare(counts, expected).pvalue > ALPHA


def test_enumerated_blocks():
    """Blocks of two on a map of four: every set of seeds grown by hand."""
    p, size, n = 0.4, 2, 4
    gamma = seed_rate(p, (1, size, 1), (1, n, 1))
    expected = np.zeros(2**n)
    for seeds in itertools.product((0, 1), repeat=n - size + 1):
        fell = [
            any(seeds[j] for j in range(max(0, i - size + 1), min(i, n - size) + 1))
            for i in range(n)
        ]
        code = sum((not f) << i for i, f in enumerate(fell))
        expected[code] += math.prod(gamma if s else 1 - gamma for s in seeds)
    y = array(L.DropBlock1D(p, size, seed=1)(np.ones((20_000, n, 1), "float32"), training=True))[
        ..., 0
    ]
    counts = np.bincount((y > 0) @ [1, 2, 4, 8], minlength=16)
    assert not counts[expected == 0].any()
    assert stats.chisquare(counts[expected > 0], 20_000 * expected[expected > 0]).pvalue > ALPHA
    assert y.mean() == pytest.approx(1.0, abs=1e-5)  # divided by the share that was kept


def test_blocks_drop_what_is_defined():
    p, extent = 0.1, (1, 7, 7, 1)
    y = array(L.DropBlock2D(p, 7, seed=0)(np.ones((100, 14, 14, 8), "float32"), training=True))
    planes = (y == 0).mean((1, 2)).ravel()
    expected = block_fraction(seed_rate(p, extent, (1, 14, 14, 1)), extent, (1, 14, 14, 1))
    assert stats.ttest_1samp(planes, expected).pvalue > ALPHA


POINTS = [
    presets.dropout(0.3),
    presets.dropout(0.3, "classic"),
    presets.gaussian_dropout(0.4),
    presets.uniform_dropout(0.3),
    presets.alpha_dropout(0.2),
    Drop(Bernoulli(0.25), per="b", of="b *", scale=Classic()),
]


@pytest.mark.parametrize("spec", POINTS, ids=lambda p: p.name or "own")
def test_moments_are_the_closed_forms(spec):
    v, n = 1.5, 40_000
    y = (
        array(L.SpecDropout(spec, seed=5)(np.full((n, 1), v, "float32"), training=True))
        .astype("float64")
        .ravel()
    )
    law = moments(spec)
    mean, var = law.mean(v), law.var(v)
    assert stats.ttest_1samp(y, mean).pvalue > ALPHA
    squares = (y - mean) ** 2
    assert stats.ttest_1samp(squares, var).pvalue > ALPHA
    if isinstance(spec.scale, Classic):
        assert float(array(L.SpecDropout(spec)(np.full((1, 1), v)))[0, 0]) == pytest.approx(
            mean, rel=1e-6
        )


@pytest.mark.parametrize("format_", ["channels_last", "channels_first"])
def test_coins_are_shared_as_the_layout_says(format_):
    layer = L.SpecDropout("spatial", arguments_of_point={"p": 0.5}, seed=0, data_format=format_)
    y = array(layer(np.ones((4, 6, 5, 6), "float32"), training=True))
    y = y if format_ == "channels_first" else np.moveaxis(y, -1, 1)
    assert (y == y[:, :, :1, :1]).all()
    assert 0 < (y[:, :, 0, 0] == 0).mean() < 1


@pytest.mark.parametrize("p", [0.4, 1.0])
def test_gradient_is_the_same_mask(p):
    x = np.random.default_rng(0).normal(size=(20, 30)).astype("float32")
    if p == 1.0:
        x[0, 0] = np.inf
    kept = array(L.Dropout(p, seed=2)(np.ones_like(x), training=True))
    layer = L.Dropout(p, seed=2)
    np.testing.assert_array_equal(gradient(lambda x: layer(x, training=True), x), kept)


def test_dropconnect_of_each_example():
    """Mean and variance of a pre-activation, Wan et al. 2013: q W v and p q W^2 v^2, bias as a
    weight of input 1.
    """
    n, p = 20_000, 0.4
    layer = L.DropConnect(keras.layers.Dense(1), p, seed=0)
    v = np.array([0.5, -1.0, 2.0], "float32")
    layer.build((None, 3))
    layer.set_weights([np.array([[1.0], [0.25], [-0.75]], "float32"), np.array([0.3], "float32")])
    y = array(layer(np.tile(v, (n, 1)), training=True)).astype("float64").ravel()
    products = np.append(v * [1.0, 0.25, -0.75], 0.3)
    mean, var = (1 - p) * products.sum(), p * (1 - p) * (products**2).sum()
    assert stats.ttest_1samp(y, mean).pvalue > ALPHA
    assert stats.ttest_1samp((y - mean) ** 2, var).pvalue > ALPHA
    assert len(np.unique(y.round(4))) == 16  # every set of four weights
    assert float(array(layer(v[None]))[0, 0]) == pytest.approx(mean, rel=1e-5)
    assert len(layer.weights) == 2


def test_dropconnect_of_the_batch():
    layer = L.DropConnect(keras.layers.Conv1D(8, 3), 0.5, scale="inverted", seed=0)
    x = np.random.default_rng(0).normal(size=(1, 9, 4)).astype("float32")
    y = array(layer(np.repeat(x, 3, 0), training=True))
    np.testing.assert_allclose(y, np.repeat(y[:1], 3, 0), rtol=1e-5, atol=1e-6)
    assert not np.allclose(y, array(layer(np.repeat(x, 3, 0), training=True)))
    np.testing.assert_allclose(array(layer(x)), array(layer.layer(x)), rtol=1e-6)
    again = L.DropConnect.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    with pytest.raises(ValueError, match="names"):
        L.DropConnect(keras.layers.Conv1D(2, 3), 0.5, names=["kernal"]).build((None, 9, 4))


def test_weight_drop_leaves_the_first_step():
    """With h0 = 0 recurrent weights meet nothing at the first step, and something at the second
    (AWD-LSTM's own test).
    """
    layer = L.DropConnect(
        keras.layers.GRU(6, return_sequences=True, bias_initializer="zeros"),
        0.5,
        scale="inverted",
        seed=0,
    )
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    one, two = array(layer(x, training=True)), array(layer(x, training=True))
    np.testing.assert_allclose(one[:, 0], two[:, 0], rtol=1e-5)
    assert not np.allclose(one[:, 1], two[:, 1])


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def test_concrete():
    """The relaxed coin's mean by quadrature, the divergence by its formula, and the loss."""
    p, t, n = 0.3, 0.5, 1000
    layer = L.ConcreteDropout(
        keras.layers.Dense(2, kernel_initializer="ones"),
        p,
        examples=n,
        length=0.5,
        temperature=t,
        seed=0,
    )
    x = np.ones((20_000, 3), "float32")
    y = array(layer(x, training=True)).astype("float64").ravel()
    u = (np.arange(200_000) + 0.5) / 200_000
    mean = (1 - sigmoid((np.log(p / (1 - p)) + np.log(u / (1 - u))) / t)).mean() / (1 - p)
    assert stats.ttest_1samp(y[::2], 3 * mean).pvalue > ALPHA
    expected = 3 * (p * np.log(p) + (1 - p) * np.log(1 - p)) + 0.5 * 0.25 * 6 / (1 - p)
    assert float(array(layer.losses[0])) == pytest.approx(expected / n, rel=1e-5)
    assert layer.rate == pytest.approx(p)
    np.testing.assert_allclose(array(layer(x[:2])), 3.0)
    channels = L.ConcreteDropout(
        keras.layers.Conv1D(1, 1), 0.3, per="channel", temperature=2.0, seed=0
    )
    noisy = (
        array(channels._noisy(keras.ops.ones((2, 5, 3))))
        if channels.build((None, 5, 3)) is None
        else None
    )
    assert (noisy == noisy[:, :1]).all()
    assert len(np.unique(noisy)) == 6
    assert channels.losses == []


def test_zoneout_by_hand():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 3)).astype("float32")

    def make(rate, **more):
        return L.Zoneout(keras.layers.SimpleRNNCell(5, seed=0), rate, return_sequences=True, **more)

    layer = make(0.25)
    y = array(layer(x))
    w, u, b = (array(v) for v in layer.trainable_variables)
    h = np.zeros((2, 5))
    for t in range(4):
        h = h + 0.75 * (np.tanh(x[:, t] @ w + h @ u + b) - h)
        np.testing.assert_allclose(y[:, t], h, rtol=1e-4, atol=1e-5)
    first, new = array(layer(x, training=True))[:, 0], np.tanh(x[:, 0] @ w + b)
    assert (np.isclose(first, new, rtol=1e-4) | (first == 0)).all()
    plain = keras.layers.RNN(keras.layers.SimpleRNNCell(5), return_sequences=True)
    plain.build(x.shape)
    still, free = make(1.0), make(0.0)
    assert not array(still(x, training=True)).any()
    free.build(x.shape)
    plain.set_weights(free.get_weights())
    np.testing.assert_allclose(array(free(x, training=True)), array(plain(x)), rtol=1e-5, atol=1e-6)


def test_zoneout_stays_at_its_rate():
    """Single steps from a state of ones, where the new state is 0: what stays is seen, of states
    and of an LSTM's cells.
    """
    layer = L.Zoneout(keras.layers.LSTMCell(50), 0.3, 0.6, seed=0, return_state=True)
    x = np.zeros((400, 1, 2), "float32")
    layer.build(x.shape)
    layer.set_weights(
        [w * 0 - 50.0 * (w.ndim == 1) for w in layer.get_weights()]
    )  # gates shut: new states are 0
    _, h, c = (
        array(s) for s in layer(x, initial_state=[keras.ops.ones((400, 50))] * 2, training=True)
    )
    for state, rate in ((h, 0.3), (c, 0.6)):
        assert set(np.unique(state.round(5))) == {0.0, 1.0}
        assert stats.binomtest(int(state.round().sum()), state.size, rate).pvalue > ALPHA
    config = layer.get_config()
    del config["cell"]["build_config"]  # the copy is not built
    assert L.Zoneout.from_config(copy.deepcopy(config)).get_config() == config
    with pytest.raises(ValueError, match="without dropout of its own"):
        L.Zoneout(keras.layers.GRUCell(3, dropout=0.1))


def test_words_and_patches_and_heads():
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

    heads = array(L.DropHead(0.5, seed=0)(np.ones((2000, 2, 4, 3), "float32"), training=True))
    np.testing.assert_allclose(heads.mean(2), 1.0, rtol=1e-6)  # the sum over heads keeps its weight
    assert np.unique(heads[:, 0, :, 0].round(4)).tolist() == pytest.approx(
        [0, 1, 4 / 3, 2, 4], abs=1e-3
    )


def test_any_point_is_a_layer():
    spec = Drop(Bernoulli(0.3), per="b d", of="b t d", scale=Classic())
    layer = L.SpecDropout(spec, seed=0)
    y = array(layer(np.ones((5, 6, 7), "float32"), training=True))
    assert (y == y[:, :1]).all()
    layer.rate = 0.6
    again = L.Drop.from_config(json.loads(json.dumps(layer.get_config())))
    assert again.spec == spec.at(0.6)
    np.testing.assert_allclose(array(layer(np.ones((1, 2, 3)))), 0.4, rtol=1e-6)


ERRORS = [
    (
        lambda: L.Dropout(-0.5),
        r"Invalid value received for argument `rate`. Expected a float value between 0 and 1. Received: rate=-0.5",
    ),
    (lambda: L.Dropout(1.5), r"argument `rate`"),
    (lambda: L.Dropout("half"), r"argument `rate`"),
    (lambda: L.Dropout(float("nan")), r"argument `rate`"),
    (lambda: L.Dropout(0.5, "klassik"), r"argument `scale`"),
    (lambda: L.Dropout(0.5, seed=1.5), r"argument `seed`"),
    (
        lambda: L.Dropout(0.5, noise_shape="Invalid"),
        r"`noise_shape`. Expected a tuple or list of integers.",
    ),
    (
        lambda: L.Dropout(0.5, noise_shape=(20, 1.5, 10)),
        r"`noise_shape`. Expected all elements to be integers or None",
    ),
    (
        lambda: L.Dropout(0.5, noise_shape=(20, -1, 10)),
        r"Expected all dimensions to be positive integers or None",
    ),
    (
        lambda: L.Dropout(0.5, noise_shape=(20, 0, 10)),
        r"Expected all dimensions to be positive integers or None",
    ),
    (
        lambda: L.Dropout(0.5, noise_shape=(3, 1))(np.ones((2, 5)), training=True),
        r"`noise_shape`. Expected for each axis",
    ),
    (lambda: L.Dropout(0.5)(np.ones((2, 5), "int32"), training=True), r"floating type"),
    (lambda: L.DropBlock2D(0.1, 0), r"argument `block_size`"),
    (lambda: L.DropBlock2D(0.1, (3, 3, 3)), r"argument `block_size`"),
    (
        lambda: L.DropBlock2D(0.1, 7)(np.ones((1, 5, 9, 2)), training=True),
        r"larger than the map of 5 x 9",
    ),
    (lambda: L.DropBlock2D(0.1, 3, data_format="last"), r"argument `data_format`"),
    (lambda: L.DropBlock2D(0.1, 3)(keras.Input((None, 9, 2)), training=True), None),
    (lambda: L.DropBlock2D(0.1, 3)(np.ones((1, 9, 2))), r"ndim=4"),
    (lambda: L.DropPath(2), r"argument `rate`"),
    (lambda: L.StochasticDepth(0.5, "row"), r"argument `per`"),
    (
        lambda: L.ConcreteDropout(keras.layers.Dense(2), 0.0),
        r"argument `rate`. Expected a float value above 0 and below 1",
    ),
    (lambda: L.ConcreteDropout(keras.layers.Dense(2), temperature=0), r"argument `temperature`"),
    (lambda: L.ConcreteDropout(keras.layers.Dense(2), examples=0), r"argument `examples`"),
    (lambda: L.DropConnect(keras.layers.Conv1D(2, 3), 0.5, per="example"), r"argument `per`"),
    (lambda: L.WordDropout(0.1, -1), r"argument `unknown_id`"),
    (lambda: L.DropHead(0.5, axis=0), r"argument `axis`"),
    (lambda: L.SpecDropout("dropblok"), r"did you mean 'dropblock'"),
    (lambda: L.SpecDropout(3), r"argument `spec`"),
    (lambda: L.SpecDropout(presets.dropout(0.5), arguments_of_point={"p": 1}), r"unexpected p"),
]


@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_errors_name_the_argument(number):
    call, text = ERRORS[number]
    if text is None:  # a map whose size is not known yet is no mistake
        assert call().shape[1:] == (None, 9, 2)
        return
    with pytest.raises(ValueError, match=text):
        call()
    assert issubclass(InputError, ValueError)
