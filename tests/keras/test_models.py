"""Models with dropout in Keras 3: training, files, Monte Carlo, finding, checking, changing; and
the other backends.
"""

from __future__ import annotations

import gzip
import importlib.util
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

keras = pytest.importorskip(
    "keras", reason="Keras is not installed: pip install 'thinned[keras]' and a backend"
)
stats = pytest.importorskip("scipy.stats")
datasets = pytest.importorskip("sklearn.datasets")

import thinned.keras as tk  # noqa: E402
from thinned import InputError, presets  # noqa: E402
from thinned.algebra import Linear  # noqa: E402
from thinned.keras import layers as L  # noqa: E402

from .help import array  # noqa: E402

# Keras on torch converts arrays in a way that NumPy 2.4 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
K = keras.layers
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def digits():
    """Handwritten digits of 8 x 8, written as the tutorials' 28 x 28: 1,280 to train on, 517 to
    test.
    """
    x, y = datasets.load_digits(return_X_y=True)
    x = np.pad(
        (x / 16).astype("float32").reshape(-1, 8, 8).repeat(3, 1).repeat(3, 2),
        ((0, 0), (2, 2), (2, 2)),
    )
    return x[:1280], y[:1280], x[1280:], y[1280:]


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


def compiled(model, loss="sparse_categorical_crossentropy", optimizer="adam"):
    model.compile(optimizer, loss, metrics=["accuracy"] if loss.startswith("sparse") else None)
    return model


TUTORIALS = {
    "784-512-256-10, 0.25": lambda: [
        K.Dense(512, "relu"),
        L.Dropout(0.25),
        K.Dense(256, "relu"),
        L.Dropout(0.25),
    ],
    "512, 0.2": lambda: [K.Dense(512, "relu"), L.Dropout(0.2)],
    "128, 0.2": lambda: [K.Dense(128, "relu"), L.Dropout(0.2)],
    "128 with batch normalisation": lambda: [
        K.Dense(128),
        K.BatchNormalization(),
        K.ReLU(),
        L.Dropout(0.2),
    ],
}


def tutorial(name):
    parts = [K.Flatten(), *TUTORIALS[name](), K.Dense(10, "softmax")]
    return compiled(
        keras.Sequential([keras.Input((28, 28)), *parts]), optimizer=keras.optimizers.Adam(3e-3)
    )


@pytest.mark.parametrize("name", TUTORIALS)
def test_tutorials_learn_digits(name, digits):
    """Trains to what these networks reach in a few epochs, evaluates without noise, and is the same
    from a file.
    """
    x, y, x_test, y_test = digits
    model = tutorial(name)
    model.fit(x, y, epochs=2, batch_size=128, verbose=0)
    assert model.evaluate(x_test, y_test, batch_size=517, verbose=0)[1] > 0.8
    np.testing.assert_array_equal(model.predict_on_batch(x_test), model.predict_on_batch(x_test))
    assert [s.rate for s in tk.find(model)] == [
        layer.rate for layer in model.layers if isinstance(layer, L.Dropout)
    ]
    assert (tk.predict(model, x_test[:50], samples=5).std > 0).any()


SHARED = ROOT.parent / "shared" / "data" / "mnist"


@pytest.mark.skipif(not SHARED.is_dir(), reason="MNIST is not here")
def test_a_tutorial_learns_mnist():
    images, labels = (
        gzip.decompress((SHARED / f"train-{n}-ubyte.gz").read_bytes())
        for n in ("images-idx3", "labels-idx1")
    )
    x = np.frombuffer(images, np.uint8, 6000 * 784, 16).reshape(-1, 28, 28).astype("float32") / 255
    y = np.frombuffer(labels, np.uint8, 6000, 8).astype("int32")
    model = tutorial("784-512-256-10, 0.25")
    model.fit(x[:5000], y[:5000], epochs=1, batch_size=128, verbose=0)
    assert model.evaluate(x[5000:], y[5000:], batch_size=1000, verbose=0)[1] > 0.88


def everything():
    """One network with most of the layers, on sequences of ids."""
    ids = keras.Input((8,), dtype="int32")
    h = K.Embedding(12, 6)(L.WordDropout(0.2, 1, keep_id=0)(ids))
    h = L.TokenDropout(0.1)(L.LockedDropout(0.2)(h))
    h = L.Zoneout(keras.layers.LSTMCell(6), 0.1, 0.2, return_sequences=True)(h)
    h = L.DropConnect(K.GRU(6, return_sequences=True), 0.3, scale="inverted")(h)
    h = K.Add()([h, L.DropPath(0.2)(L.UniformDropout(0.1)(h))])
    h = L.DropBlock1D(0.1, 3)(K.Conv1D(6, 3, padding="same")(h))
    h = L.AlphaDropout(0.1)(L.GaussianDropout(0.1)(K.Flatten()(h)))
    h = L.DropConnect(K.Dense(5, "relu"), 0.3)(h)
    h = L.StochasticDepth(0.2, "batch")(L.SpecDropout(presets.batchwise_dropout(0.2))(h))
    h = L.Dropout(0.2, "classic")(h)
    return keras.Model(ids, L.ConcreteDropout(K.Dense(2, "softmax"), examples=16)(h))


def the_rest():
    """One network with the other layers, on sequences of any length."""
    ids = keras.Input((None,), dtype="int32")
    h = L.EmbeddingDropout(K.Embedding(12, 6, mask_zero=True), 0.2)(ids)
    h = L.DropState(K.LSTMCell(6), 0.2, "recurrent", return_sequences=True)(h)
    h = L.DropState(K.GRUCell(6), 0.2, input_rate=0.2, return_sequences=True)(h)
    h = L.Cutout(2)(L.HiddenCut(0.2)(L.DropKeyAttention(2, 3, key_rate=0.2)(h, h)))
    h = L.Swapout(0.2)([h, L.LayerDrop(K.Dense(6), 0.2)(h)])
    h = L.ShakeShake()([h, L.ShakeDrop(0.2)(K.Dense(6)(h))])
    h = L.Shakeout(K.Dense(6), 0.2)(L.Mixout(K.Dense(6), 0.2)(K.GlobalAveragePooling1D()(h)))
    h = L.VariationalDropout(examples=16)(
        L.Jumpout(0.1)(L.Standout(L.TargetedDropout(K.Dense(6)))(h))
    )
    return keras.Model(
        ids, K.Dense(2, "softmax")(L.InformationDropout(K.Dense(6, "elu"), K.Dense(6))(h))
    )


LOAD = """
import sys, numpy as np, keras, thinned.keras
ids = np.load(sys.argv[1])
for name in sys.argv[2:]:
    np.save(name + ".npy", keras.models.load_model(name, safe_mode=True).predict(ids, verbose=0))
"""


def test_one_step_of_everything_and_files(tmp_path):
    """Trains, predicts alike twice, and does so from a file in a fresh process."""
    ids = np.random.default_rng(0).integers(0, 12, (16, 8)).astype("int32")
    np.save(tmp_path / "ids.npy", ids)
    wanted = {}
    for make in (everything, the_rest):
        model = compiled(make())
        before = [array(w).copy() for w in model.trainable_weights]
        loss = model.fit(ids, ids[:, 0] % 2, epochs=1, batch_size=8, verbose=0).history["loss"][0]
        assert np.isfinite(loss)
        moved = [
            not np.array_equal(a, array(w))
            for a, w in zip(before, model.trainable_weights, strict=True)
        ]
        assert all(moved), [
            w.path for w, m in zip(model.trainable_weights, moved, strict=True) if not m
        ]
        y = model.predict(ids, verbose=0)
        np.testing.assert_array_equal(y, model.predict(ids, verbose=0))
        model.save(tmp_path / f"{make.__name__}.keras")
        wanted[str(tmp_path / f"{make.__name__}.keras")] = y
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "KERAS_BACKEND": keras.backend.backend()}
    call = [sys.executable, "-c", LOAD, str(tmp_path / "ids.npy"), *wanted]
    done = subprocess.run(call, env=env, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, y in wanted.items():
        np.testing.assert_allclose(np.load(f"{name}.npy"), y, rtol=1e-4, atol=1e-6)


def test_mixed_precision_trains(digits):
    x, y, *_ = digits
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        parts = [
            K.Dense(16, "relu"),
            L.Dropout(0.3),
            L.DropConnect(K.Dense(16, "relu"), 0.3),
            L.AlphaDropout(0.1),
        ]
        model = compiled(
            keras.Sequential(
                [
                    keras.Input((28, 28)),
                    K.Flatten(),
                    *parts,
                    K.Dense(10),
                    K.Activation("softmax", dtype="float32"),
                ]
            )
        )
        history = model.fit(x[:256], y[:256], epochs=1, verbose=0).history
        assert np.isfinite(history["loss"][0])
        assert parts[1].compute_dtype == "float16"
    finally:
        keras.mixed_precision.set_dtype_policy("float32")


def thinned_by_hand(w1, b1, w2, b2, x, p):
    """Every mask of the hidden layer with its probability: (probability, output)."""
    h = np.tanh(x @ w1 + b1)
    for mask in itertools.product((0, 1), repeat=h.shape[1]):
        chance = np.prod([1 - p if m else p for m in mask])
        z = (h * np.array(mask) / (1 - p)) @ w2 + b2
        e = np.exp(z - z.max(-1, keepdims=True))
        yield chance, e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("layer", [L.Dropout, K.Dropout], ids=["ours", "Keras's"])
def test_predict_is_the_mean_over_all_masks(layer):
    p, n = 0.4, 100
    model = keras.Sequential(
        [keras.Input((3,)), K.Dense(4, "tanh"), layer(p, seed=1), K.Dense(3, "softmax")]
    )
    x = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
    plain = model.predict(x, verbose=0)
    got = tk.predict(model, x, samples=n, keep=True)
    masks = list(thinned_by_hand(*(array(w) for w in model.weights), x, p))
    mean = sum(c * y for c, y in masks)
    var = sum(c * (y - mean) ** 2 for c, y in masks)
    z = (got.mean - mean) / np.sqrt(var / n)
    assert np.abs(z).max() < stats.norm.isf(1e-3 / 2 / z.size)
    np.testing.assert_allclose(got.samples.mean(0), got.mean, rtol=1e-9)
    np.testing.assert_allclose(got.samples.std(0, ddof=1), got.std, rtol=1e-9)
    entropy = stats.entropy(got.mean, axis=-1)
    np.testing.assert_allclose(got.entropy, entropy, rtol=1e-6)
    each = stats.entropy(got.samples, axis=-1).mean(0)
    np.testing.assert_allclose(got.mutual_information, entropy - each, atol=1e-6)
    np.testing.assert_array_equal(model.predict(x, verbose=0), plain)  # and the model draws no more


def test_predict_leaves_batch_normalisation_alone():
    x = np.random.default_rng(0).normal(5, 3, size=(32, 4)).astype("float32")
    inner = keras.Sequential([K.Dense(4), L.Dropout(0.5)])
    model = keras.Sequential([keras.Input((4,)), K.BatchNormalization(), inner, K.Dense(1)])
    statistics = [array(w).copy() for w in model.layers[0].weights]
    got = tk.predict(model, x, samples=3)
    assert (got.std > 0).any()
    assert got.entropy is None
    for before, w in zip(statistics, model.layers[0].weights, strict=True):
        np.testing.assert_array_equal(before, array(w))
    normal = keras.Sequential(
        [keras.Input((4,)), K.BatchNormalization(), L.GaussianDropout(0.0), L.Dropout(1e-6)]
    )
    np.testing.assert_allclose(
        tk.predict(normal, x, samples=2).mean, x / np.sqrt(1 + 1e-3), rtol=1e-5
    )


@pytest.mark.parametrize(
    "part",
    [
        lambda: K.LSTM(3, dropout=0.5),
        lambda: K.GRU(3, recurrent_dropout=0.5),
        lambda: L.Zoneout(keras.layers.GRUCell(3), 0.5),
        lambda: L.DropConnect(K.Dense(3), 0.5),
    ],
    ids=["dropout", "recurrent", "zoneout", "dropconnect"],
)
def test_predict_samples_inside_layers(part):
    model = keras.Sequential([keras.Input((5, 2)), part()])
    got = tk.predict(model, np.ones((2, 5, 2), "float32"), samples=3, outputs="values")
    assert (got.std > 0).any()


def test_predict_refuses():
    model = keras.Sequential([keras.Input((2,)), K.Dense(2), L.Dropout(0.0)])
    with pytest.raises(InputError, match="draws nothing"):
        tk.predict(model, np.ones((1, 2)))
    with pytest.raises(InputError, match="argument `samples`"):
        tk.predict(model, np.ones((1, 2)), samples=1)
    with pytest.raises(InputError, match="Keras model"):
        tk.predict("model", np.ones((1, 2)))


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


def functional():
    x = keras.Input((4,))
    shared = K.Dense(4, "relu", name="shared")
    h = shared(shared(x))
    h = keras.Sequential(
        [keras.Input((4,)), K.Dense(5, "relu", name="deep"), K.Dropout(0.5, name="old")],
        name="inner",
    )(h)
    h = K.Concatenate()([h, x])
    return keras.Model(x, K.Softmax()(K.Dense(3, name="head")(h)))


def test_apply_copies_weights_and_names():
    model, x = functional(), np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    copy = tk.apply(model, rate=0.3)
    assert [(s.name, s.rate) for s in tk.find(copy)] == [
        ("shared_dropout", 0.3), ("inner/deep_dropout", 0.3), ("inner/old", 0.5),
    ]  # fmt: skip
    np.testing.assert_allclose(copy.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-6)
    assert not np.allclose(array(copy(x, training=True)), array(copy(x, training=True)))
    assert [s.name for s in tk.find(model)] == ["inner/old"]
    copy.get_layer("head").set_weights([w * 0 for w in copy.get_layer("head").get_weights()])
    assert np.any(model.get_layer("head").get_weights()[0])

    replaced = tk.apply(model, K.Dropout, presets.gaussian_dropout(0.2))
    assert [(s.name, s.layer, s.rate) for s in tk.find(replaced)] == [("inner/old", "Drop", 0.2)]
    one = tk.apply(model, lambda name, layer: name == "head", lambda: L.UniformDropout(0.1))
    assert [s.name for s in tk.find(one)][-1] == "head_dropout"
    deep = tk.apply(model, "deep", 0.1)
    assert tk.find(deep)[0].name == "inner/deep_dropout"
    assert (
        tk.find(tk.apply(keras.Sequential([K.Dense(3, name="a"), K.Dense(2)]), "a", 0.1))[0].name
        == "a_dropout"
    )


def test_apply_refuses():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(InputError, match="neither Sequential nor functional"):
        tk.apply(Own(), rate=0.1)
    with pytest.raises(InputError, match=r"did you mean .*'head'"):
        tk.apply(functional(), "haed", 0.1)
    with pytest.raises(InputError, match="argument `rate`"):
        tk.apply(functional(), "head", 2.0)


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
        K.Dense(20, "selu"), L.AlphaDropout(0.1), K.Dense(20, "relu"), K.Dropout(0.3), K.Reshape((5, 4)), L.DropBlock1D(0.2, 3),
        K.SpatialDropout1D(0.3), K.Flatten(), K.LayerNormalization(), L.UniformDropout(0.1), K.BatchNormalization(), K.Dense(2),
    ],
}  # fmt: skip


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


def test_words_states_and_weights_train_of_every_backend():
    """A compiled step of wrappers, states and branches: everything moves but the pretrained
    weights.
    """
    parts = [
        L.EmbeddingDropout(K.Embedding(8, 3), 0.2),
        L.DropState(K.SimpleRNNCell(3), 0.2),
        L.Mixout(K.Dense(3), 0.2),
    ]
    model = compiled(
        keras.Sequential([keras.Input((4,), dtype="int32"), *parts, L.ShakeDrop(0.2), K.Dense(1)]),
        "mse",
    )
    ids = np.random.default_rng(0).integers(0, 8, (16, 4)).astype("int32")
    before = {w.path: array(w).copy() for w in model.weights}
    model.fit(ids, np.ones(16), batch_size=16, epochs=1, verbose=0)
    still = [w.path for w in model.weights if np.array_equal(before[w.path], array(w))]
    assert still == [parts[2].pretrained[0].path]


OTHERS = "of_every_backend or enumerated or all_masks or schedules_reach or (learn_digits and (784 or normalisation))"


@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_the_other_backends(backend):
    """Part of the tests in a process of its own: laws, tutorials, schedules, Monte Carlo; all run
    with KERAS_BACKEND set.
    """
    if keras.backend.backend() != "torch":
        pytest.skip("the torch backend's run starts the others")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    env = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": str(ROOT / "src"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    call = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        OTHERS,
        str(Path(__file__).parent),
    ]
    done = subprocess.run(call, env=env, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-3000:]


MISSING = """
import sys
sys.modules["keras"] = None
import thinned
try:
    thinned.keras
except ImportError as error:
    print(error)
"""


def test_a_missing_extra_says_what_to_install():
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", MISSING],
        env=env,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert "pip install 'thinned[keras]'" in done.stdout
    assert done.stdout.count("\n") == 1


def test_importing_thinned_imports_no_keras():
    program = "import sys, thinned; thinned.InputError; sys.exit('keras' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    assert (
        subprocess.run(
            [sys.executable, "-c", program], env=env, check=False, timeout=100
        ).returncode
        == 0
    )


def test_the_page_runs():
    text = (ROOT / "docs" / "keras.md").read_text()
    names = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(compile(block, "docs/keras.md", "exec"), names)
    assert names["sure"].mean.shape == (64, 10)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # KerasTuner asks threads by old names
@pytest.mark.parametrize(("which", "package"), [("optuna", "optuna"), ("tuner", "keras_tuner")])
def test_the_example_runs(which, package):
    pytest.importorskip(package)
    spec = importlib.util.spec_from_file_location(
        "keras_optuna", ROOT / "examples" / "keras_optuna.py"
    )
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    best = getattr(example, f"by_{which}")(2, epochs=1)
    assert set(best) == {"hidden", "last", "scale"}
    assert 0 <= best["hidden"] <= 0.6
