"""Round trips of every layer: what is dropped is the same, and rates are those of the variables."""

from __future__ import annotations

import json

import numpy as np
import pytest

keras = pytest.importorskip(
    "keras", reason="Keras is not installed: pip install 'thinned[keras]' and a backend"
)

import thinned.keras as tk  # noqa: E402
from thinned import presets  # noqa: E402
from thinned.keras import layers as L  # noqa: E402

from .help import array  # noqa: E402

K = keras.layers
FIRST, LAST = "channels_first", "channels_last"


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


def of(make, *shape):
    """(a function of the data format that makes the layer, the shape of an example, the arity)."""
    return (lambda format_: make()), shape, 1


def both(make, *shape):
    """As :func:`of`, for a layer with a data format."""
    return make, shape, 1


def cell(make):
    return of(lambda: make(K.LSTMCell(3)), 4, 5)


CASES = {
    "AlphaDropout": of(lambda: L.AlphaDropout(0.3, seed=7), 12),
    "BatchwiseDropout": of(lambda: L.BatchwiseDropout(0.3, seed=7), 12),
    "ConcreteDropout": both(
        lambda f: L.ConcreteDropout(
            K.Conv2D(3, 1, data_format=f), 0.3, per="channel", data_format=f, seed=7
        ),
        5,
        6,
        4,
    ),
    "Cutout": both(lambda f: L.Cutout(2, data_format=f, seed=7), 5, 6, 4),
    "DropBlock": both(lambda f: L.DropBlock(0.3, 2, data_format=f, seed=7), 5, 6, 4),
    "DropBlock1D": both(lambda f: L.DropBlock1D(0.3, 2, data_format=f, seed=7), 6, 4),
    "DropBlock2D": both(lambda f: L.DropBlock2D(0.3, (2, 3), data_format=f, seed=7), 5, 6, 4),
    "DropBlock3D": both(lambda f: L.DropBlock3D(0.3, 2, data_format=f, seed=7), 3, 4, 5, 4),
    "DropConnect": of(lambda: L.DropConnect(K.Dense(5), 0.3, seed=7), 6),
    "DropHead": of(lambda: L.DropHead(0.3, seed=7), 6, 4, 3),
    "DropHeadAttention": (lambda f: L.DropHeadAttention(4, 3, head_rate=0.3, seed=7), (5, 6), 2),
    "DropKey": of(lambda: L.DropKey(0.3, seed=7), 4, 5),
    "DropKeyAttention": (lambda f: L.DropKeyAttention(2, 3, key_rate=0.3, seed=7), (5, 6), 2),
    "DropMessage": of(lambda: L.DropMessage(0.3, seed=7), 12),
    "DropNode": of(lambda: L.DropNode(0.3, seed=7), 12),
    "DropPath": of(lambda: L.DropPath(0.3, seed=7), 4, 5),
    "DropState": cell(lambda c: L.DropState(c, 0.3, "recurrent", inputs=0.2, seed=7)),
    "Dropout": of(lambda: L.Dropout(0.3, seed=7), 12),
    "EmbeddingDropout": of(lambda: L.EmbeddingDropout(K.Embedding(20, 3), 0.3, seed=7), 6),
    "FeatureAlphaDropout": both(
        lambda f: L.FeatureAlphaDropout(0.3, data_format=f, seed=7), 5, 6, 4
    ),
    "GaussianDropout": of(lambda: L.GaussianDropout(0.3, seed=7), 12),
    "HiddenCut": of(lambda: L.HiddenCut(0.3, seed=7), 9, 4),
    "InformationDropout": of(lambda: L.InformationDropout(K.Dense(5), K.Dense(5), seed=7), 6),
    "Jumpout": of(lambda: L.Jumpout(0.3, seed=7), 12),
    "LayerDrop": of(lambda: L.LayerDrop(K.Dense(6), 0.5, seed=7), 6),
    "LockedDropout": of(lambda: L.LockedDropout(0.3, seed=7), 4, 6),
    "Mixout": of(lambda: L.Mixout(K.Dense(5), 0.3, seed=7), 6),
    "PatchDropout": of(lambda: L.PatchDropout(0.3, seed=7), 9, 4),
    "RNNDrop": cell(lambda c: L.RNNDrop(c, 0.3, seed=7)),
    "RecurrentDropout": cell(lambda c: L.RecurrentDropout(c, 0.3, seed=7)),
    "ShakeDrop": of(lambda: L.ShakeDrop(0.5, seed=7), 4, 5),
    "ShakeShake": (lambda f: L.ShakeShake(seed=7), (4, 5), "list"),
    "Shakeout": of(lambda: L.Shakeout(K.Dense(5), 0.3, seed=7), 6),
    "SpatialDropout": both(lambda f: L.SpatialDropout(0.3, data_format=f, seed=7), 5, 6, 4),
    "SpatialDropout1D": of(lambda: L.SpatialDropout1D(0.3, seed=7), 6, 4),
    "SpatialDropout2D": both(lambda f: L.SpatialDropout2D(0.3, data_format=f, seed=7), 5, 6, 4),
    "SpatialDropout3D": both(lambda f: L.SpatialDropout3D(0.3, data_format=f, seed=7), 3, 4, 5, 4),
    "SpecDropout": both(
        lambda f: L.SpecDropout(presets.spatial_dropout(0.3), data_format=f, seed=7), 5, 6, 4
    ),
    "Standout": of(lambda: L.Standout(K.Dense(8), seed=7), 6),
    "StochasticDepth": of(lambda: L.StochasticDepth(0.3, seed=7), 4, 5),
    "Swapout": (lambda f: L.Swapout(0.3, 0.2, seed=7), (4, 5), "list"),
    "TargetedDropout": of(lambda: L.TargetedDropout(K.Dense(5), seed=7), 6),
    "TargetedUnitDropout": of(lambda: L.TargetedUnitDropout(K.Dense(5), seed=7), 6),
    "TokenDropout": of(lambda: L.TokenDropout(0.3, seed=7), 6, 4),
    "UniformDropout": of(lambda: L.UniformDropout(0.3, seed=7), 12),
    "VariationalDropout": of(lambda: L.VariationalDropout(0.3, seed=7), 12),
    "VariationalRNNDropout": cell(lambda c: L.VariationalRNNDropout(c, 0.3, inputs=0.2, seed=7)),
    "WeightDrop": of(lambda: L.WeightDrop(K.LSTM(3), 0.3, seed=7), 4, 5),
    "WordDropout": of(lambda: L.WordDropout(0.3, 1, seed=7), 9),
    "Zoneout": cell(lambda c: L.Zoneout(c, 0.3, 0.2, seed=7)),
}
IDS = ("EmbeddingDropout", "WordDropout")
FORMATS = [
    (name, format_)
    for name, (make, *_) in CASES.items()
    for format_ in ((LAST, FIRST) if "data_format" in make(LAST).config_names else (LAST,))
]


def model_of(name, format_):
    """A model of the layer alone, named "it", and an input that tells the axes apart."""
    make, shape, arity = CASES[name]
    rng = np.random.default_rng(0)
    if name in IDS:
        x = rng.integers(2, 20, (8, *shape)).astype("int32")
    else:
        x = rng.uniform(1, 2, (8, *shape)).astype("float32")
    input_ = keras.Input(x.shape[1:], dtype=str(x.dtype))
    layer = make(format_)
    layer.name = "it"
    y = layer(input_) if arity == 1 else layer(*([input_] * 2 if arity == 2 else [[input_] * 2]))
    model = keras.Model(input_, y)
    if name == "Mixout":  # of pretrained weights it mixes nothing before training
        layer.layer.kernel.assign(layer.layer.kernel + 1.0)
    model.compile("sgd", "mse")  # Keras asks for the state trees of compiled models alone
    return model, x


def draws(model, x):
    keras.utils.set_random_seed(1)  # inner layers of Keras draw by seeds of their own
    return array(model(x, training=True))


def test_every_layer_is_here():
    assert set(CASES) == {n for n in L.__all__ if isinstance(getattr(L, n), type)}


@pytest.mark.parametrize(("name", "format_"), FORMATS)
def test_what_is_dropped_survives_every_round_trip(name, format_, tmp_path):
    """Of one seed: configuration, clone, file, weights and state tree give the same draws."""
    model, x = model_of(name, format_)
    if format_ == FIRST and name == "ConcreteDropout" and not _convolves_first():
        pytest.skip("Keras convolves channels first on torch alone")
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "it.weights.h5")
    weights, tree = model.get_weights(), model.get_state_tree("numpy_array")
    paths = [v.path for v in model.variables]
    assert len(set(paths)) == len(paths)
    config = json.loads(json.dumps(model.get_config()))

    wanted, again = draws(model, x), draws(model, x)
    assert not np.array_equal(wanted, again) or name in (
        "StochasticDepth",
        "ShakeDrop",
        "LayerDrop",
    )
    evaluated = array(model(x, training=False))

    copies = {
        "config": keras.Model.from_config(config),
        "clone": keras.models.clone_model(model),
        "state tree": keras.models.clone_model(model),
        "weights file": keras.models.clone_model(model),
    }
    for copy in copies.values():
        copy.set_weights(weights)
    copy = copies["state tree"]
    if [w.path for w in copy.weights] == [w.path for w in model.weights]:  # not within wrappers
        copy.set_weights([0 * w for w in weights])
    if hasattr(copy.get_layer("it"), "rate_state"):
        copy.get_layer("it").rate = 0.9
    copy.set_state_tree(tree)
    copies["weights file"].set_weights([0 * w for w in weights])
    copies["weights file"].load_weights(tmp_path / "it.weights.h5")
    copies["file"] = keras.models.load_model(tmp_path / "model.keras")
    for how, copy in copies.items():
        one, other = model.get_layer("it"), copy.get_layer("it")
        assert getattr(other, "data_format", None) == getattr(one, "data_format", None), how
        np.testing.assert_array_equal(draws(copy, x), wanted, err_msg=how)
        np.testing.assert_allclose(
            array(copy(x, training=False)), evaluated, rtol=1e-6, err_msg=how
        )


def two(prefix=""):
    parts = [L.Dropout(0.25, seed=3, name=f"{prefix}a"), L.Dropout(1 / 3, name=f"{prefix}b")]
    cells = [
        L.Zoneout(K.LSTMCell(3), 0.1, 0.2, return_sequences=True, name=f"{prefix}z"),
        L.DropState(K.LSTMCell(3), 0.2, inputs=0.4, name=f"{prefix}s"),
    ]
    inner = keras.Sequential([K.Dense(4), L.Dropout(0.4, name=f"{prefix}a")], name=f"{prefix}inner")
    model = keras.Sequential([keras.Input((4, 5)), *parts, *cells, inner], name="model")
    model.compile("sgd", "mse")
    return model


def rates(model):
    return [(s.name, s.argument, s.rate) for s in tk.find(model)]


def test_the_state_tree_holds_every_rate_under_a_path_of_its_own():
    model = two()
    paths = [v.path for v in model.variables]
    assert len(set(paths)) == len(paths)
    tree = model.get_state_tree("numpy_array")["non_trainable_variables"]
    assert tree["model"]["inner"]["a"]["rate"] == np.float32(0.4)
    assert tree["model"]["a"]["rate"] == np.float32(0.25)
    assert tree["model"]["z"] == {"rate": np.float32(0.1), "cell_rate": np.float32(0.2)}
    assert tree["model"]["s"] == {"rate": np.float32(0.2), "inputs": np.float32(0.4)}


def test_a_state_tree_sets_the_rates_that_layers_report():
    one, same, other = two(), two(), two("other_")
    one.layers[0].rate, one.layers[1].rate = 0.75, 0.6
    before = rates(other)
    tree = one.get_state_tree()
    other.set_state_tree(tree)  # other names: nothing of it is theirs
    assert rates(other) == before
    same.set_state_tree(tree)
    assert rates(same) == rates(one)
    assert same.layers[0].rate == 0.75
    assert same.layers[1].rate == 0.6
    assert same.layers[0].get_config()["rate"] == 0.75
    y = array(same.layers[0](np.ones((200, 50), "float32"), training=True))
    assert abs((y == 0).mean() - 0.75) < 0.03
    assert set(np.unique(y)) == {0.0, 4.0}


def test_a_rate_keeps_its_double_precision():
    layer = L.Dropout(1 / 3)
    assert layer.rate == 1 / 3
    layer.rate = 0.1
    assert layer.rate == 0.1
    layer.rate_state.state.assign(0.3)
    assert layer.rate == 0.3


def test_a_model_trains_after_a_state_tree():
    model = two()
    x, y = np.ones((8, 4, 5), "float32"), np.ones((8, 4), "float32")
    model.fit(x, y, epochs=1, verbose=0)
    tree = model.get_state_tree()
    model.set_state_tree(tree)
    model.fit(x, y, epochs=1, verbose=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda b: b(L.Dropout)(0.3),
        lambda b: b(L.SpatialDropout2D)(0.3),
        lambda b: b(L.DropBlock2D)(0.3, 2),
        lambda b: b(L.Cutout)(2),
        lambda b: b(L.ShakeDrop)(0.3),
        lambda b: b(L.HiddenCut)(0.3),
        lambda b: b(L.Jumpout)(0.3),
        lambda b: b(L.DropHead)(0.3),
        lambda b: b(L.DropKey)(0.3),
        lambda b: b(L.PatchDropout)(0.3),
        lambda b: b(L.WordDropout)(0.3, 1),
        lambda b: b(L.VariationalDropout)(0.3),
    ],
)
def test_the_build_of_a_subclass_is_called(make):
    built = []

    def with_build(kind):
        class Own(kind):
            def build(self, input_shape):
                built.append(tuple(input_shape))
                self.gain = self.add_weight(name="gain", shape=(), initializer="ones")
                super().build(input_shape)

            def call(self, inputs, training=False):
                y = super().call(inputs, training=training)
                return y * keras.ops.cast(self.gain.value, y.dtype)

        return Own

    layer = make(with_build)
    shape = {"HiddenCut": (3, 4, 5), "PatchDropout": (3, 4, 5), "WordDropout": (3, 4)}.get(
        type(layer).__mro__[1].__name__, (3, 4, 5, 6)
    )
    dtype = "int32" if len(shape) == 2 else "float32"
    layer(np.ones(shape, dtype), training=True)
    assert built == [shape]
    assert layer.built
    assert any(w.name == "gain" for w in layer.weights)


def test_apply_keeps_the_data_format():
    """Of layers that are copied, and of the layer that a Drop is added to."""
    x = keras.Input((4, 5, 6))
    h = L.SpatialDropout2D(0.5, data_format=FIRST, name="mine")(x)
    h = K.Conv2D(4, 1, data_format=FIRST, name="conv")(h) if _convolves_first() else h
    model = keras.Model(x, K.Dense(2, name="head")(K.Flatten()(h)))
    where = "conv" if _convolves_first() else "mine"
    copy = tk.apply(model, where, presets.spatial_dropout(0.5))
    added = copy.get_layer("conv_dropout" if _convolves_first() else "mine")
    assert copy.get_layer("mine").data_format == added.data_format == FIRST
    y = array(added(np.ones((3, 4, 5, 6), "float32"), training=True))
    assert (y == y[:, :, :1, :1]).all()


def _convolves_first():
    return keras.backend.backend() == "torch"


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="one format for each backend")
def test_an_export_is_the_evaluation(tmp_path):
    """All layers with weights of a sequence in one model, exported for torch."""
    import torch

    x = keras.Input((4, 6))
    h = L.SpatialDropout(0.2, data_format=FIRST)(L.Dropout(0.2, "classic")(x))
    h = L.DropConnect(K.Dense(6), 0.3)(L.StochasticDepth(0.3)(h))
    h = L.DropBlock1D(0.2, 2, data_format=LAST)(h)
    model = keras.Model(x, K.Dense(2)(L.AlphaDropout(0.3)(K.Flatten()(h))))
    data = np.random.default_rng(0).normal(size=(1, 4, 6)).astype("float32")
    path = str(tmp_path / "model.pt2")
    model.export(path, format="torch", verbose=False)
    exported = torch.export.load(path).module()
    y = exported(torch.tensor(data))
    y = y[0] if isinstance(y, (tuple, list)) else y
    np.testing.assert_allclose(array(y), array(model(data, training=False)), rtol=1e-5, atol=1e-6)
