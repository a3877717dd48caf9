"""Keras's own checklist for its dropout layers, on all of ours; seeds, masks, names, errors."""

from __future__ import annotations

import json

import numpy as np
import pytest

keras = pytest.importorskip(
    "keras", reason="Keras is not installed: pip install 'thinned[keras]' and a backend"
)
stats = pytest.importorskip("scipy.stats")
torch = pytest.importorskip("torch")

from thinned import InputError, presets  # noqa: E402
from thinned.keras import layers as L  # noqa: E402

from ..help import ALPHA, array  # noqa: E402

# layer, arguments besides the rate, input shape, what evaluation multiplies by at rate 0.3, whether
# rate 1 is allowed
TABLE = [
    ("Dropout", {}, (6, 4), 1.0, True),
    ("Dropout", {"scale": "classic"}, (6, 4), 0.7, True),
    ("Dropout", {"noise_shape": (None, 1, None)}, (6, 5, 4), 1.0, True),
    ("GaussianDropout", {}, (6, 4), 1.0, False),
    ("AlphaDropout", {"noise_shape": [6, 1, 4]}, (6, 5, 4), 1.0, True),
    ("UniformDropout", {}, (6, 4), 1.0, None),
    ("BatchwiseDropout", {"scale": "classic"}, (6, 9), 0.7, True),
    ("FeatureAlphaDropout", {"data_format": "channels_first"}, (6, 5, 4), 1.0, True),
    ("SpatialDropout", {"scale": "classic"}, (6, 5, 4), 0.7, True),
    ("SpatialDropout", {"data_format": "channels_first"}, (6, 4, 5, 3), 1.0, True),
    ("SpatialDropout1D", {}, (6, 5, 4), 1.0, True),
    ("SpatialDropout2D", {}, (6, 5, 3, 4), 1.0, True),
    ("SpatialDropout3D", {"data_format": "channels_first"}, (6, 4, 2, 3, 2), 1.0, True),
    ("DropNode", {}, (12, 4), 1.0, True),
    ("DropMessage", {}, (12, 4), 1.0, True),
    ("DropBlock", {"block_size": (2, 3)}, (6, 5, 6, 2), 1.0, True),
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
    assert not np.array_equal(first, second) or name in ("StochasticDepth", "ShakeDrop")  # one draw
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


def test_every_method_with_a_keras_layer_has_its_name_of_the_catalog():
    """The class is that of torch, except for what a page lists as absent."""
    absent = {
        "FastDropout",
        "Thinned",
        "Disout",
        "MaxPoolDropout2d",
        "WeightedChannelDropout",
        "LoraDropout",
        "SparseVariationalDropout",
        "AttentionDropout",
        "DropEdge",
    }
    names = {
        row.constructor.removeprefix("nn.")
        for row in presets.CATALOG.values()
        if row.constructor.startswith("nn.") and row.constructor[3].isupper()
    }
    assert absent <= names
    assert names - absent <= set(L.__all__)


ERRORS = [
    (
        lambda: L.Dropout(-0.5),
        r"Invalid value received for argument `rate`. Expected a float value between 0 and 1. "
        r"Received: rate=-0.5",
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
    (lambda: L.SpecDropout("drop_block"), r"argument `spec`. Expected a thinned.Drop"),
    (lambda: L.SpecDropout(3), r"argument `spec`"),
    (lambda: L.Dropout(p=0.5), r"Dropout has no argument 'p'; did you mean 'rate'"),
    (lambda: L.Dropout(0.5, noise_shpe=(1, 2)), r"did you mean 'noise_shape'"),
    (lambda: L.LockedDropout(0.5, noise_shape=(1, 2)), r"has no argument 'noise_shape'"),
    (lambda: L.DropBlock(0.5, blok_size=3), r"did you mean 'block_size'"),
    (lambda: L.Zoneout(keras.layers.GRUCell(2), cell_p=0.5), r"did you mean 'cell_rate'"),
    (
        lambda: L.RNNDrop(keras.layers.LSTMCell(2), return_sequence=True),
        r"did you mean 'return_sequences'",
    ),
    (lambda: L.DropHeadAttention(2, 3, head_rat=0.5), r"did you mean 'head_rate'"),
    (lambda: L.WeightDrop(keras.layers.Dense(2)), r"argument `layer`. Expected a recurrent layer"),
]


@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_errors_name_the_argument(number):
    call, text = ERRORS[number]
    if text is None:  # a map of unknown size is no mistake
        assert call().shape[1:] == (None, 9, 2)
        return
    with pytest.raises(ValueError, match=text):
        call()
    assert issubclass(InputError, ValueError)
