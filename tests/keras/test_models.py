"""Models with dropout in Keras 3: training, files, weights from torch, other backends, the page."""

from __future__ import annotations

import gzip
import importlib.util
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
torch = pytest.importorskip("torch")
datasets = pytest.importorskip("sklearn.datasets")

import thinned.keras as tk  # noqa: E402
from thinned import nn, presets  # noqa: E402
from thinned.keras import layers as L  # noqa: E402

from .help import array, outputs  # noqa: E402

K = keras.layers


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


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
    "128 with batch normalization": lambda: [
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
    h = L.DropState(K.GRUCell(6), 0.2, inputs=0.2, return_sequences=True)(h)
    h = L.VariationalRNNDropout(K.GRUCell(6), 0.2, return_sequences=True)(h)
    h = L.RecurrentDropout(K.LSTMCell(6), return_sequences=True)(h)
    h = L.WeightDrop(L.RNNDrop(K.LSTMCell(6), return_sequences=True), 0.2)(h)
    h = L.DropBlock(0.1, 1)(L.SpatialDropout1D(0.1)(L.SpatialDropout(0.1)(h)))
    h = L.FeatureAlphaDropout(0.1)(L.BatchwiseDropout(0.1)(L.DropMessage(0.1)(h)))
    h = L.DropNode(0.1)(L.TargetedUnitDropout(K.Dense(6))(h))
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


def test_weights_move_between_torch_and_keras():
    """A perceptron with classic scaling and DropConnect: the means of evaluation are the same."""
    net = torch.nn.Sequential(
        torch.nn.Linear(6, 8),
        torch.nn.ReLU(),
        nn.Dropout(p=0.3, scale="classic"),
        nn.DropConnect(torch.nn.Linear(8, 5), p=0.4),
        torch.nn.Tanh(),
        nn.Dropout(0.2),
        torch.nn.Linear(5, 2),
    ).eval()
    model = keras.Sequential(
        [
            keras.Input((6,)),
            K.Dense(8, "relu"),
            L.Dropout(0.3, "classic"),
            L.DropConnect(K.Dense(5), 0.4),
            K.Activation("tanh"),
            L.Dropout(0.2),
            K.Dense(2),
        ]
    )
    weights = [v.detach().numpy() for v in net.state_dict().values()]
    model.set_weights([w.T if w.ndim == 2 else w for w in weights])
    want, got = outputs(net, model, np.random.default_rng(0).normal(size=(9, 6)).astype("float32"))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    back = [w.T if w.ndim == 2 else w for w in model.get_weights()]
    for a, b in zip(weights, back, strict=True):
        np.testing.assert_array_equal(a, b)


def test_convolutions_move_between_torch_and_keras():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(2, 4, 3), torch.nn.BatchNorm2d(4, eps=1e-3)
            self.block, self.depth = nn.DropBlock2d(0.2, 3), nn.StochasticDepth(p=0.4)
            self.head = torch.nn.Linear(4 * 6 * 5, 3)

        def forward(self, x):
            h = self.block(self.norm(self.conv(x.permute(0, 3, 1, 2))))
            return self.head((h + self.depth(h)).permute(0, 2, 3, 1).flatten(1))

    net = Net()
    net(torch.randn(5, 8, 7, 2))  # moves the statistics
    x = keras.Input((8, 7, 2))
    h = L.DropBlock2D(0.2, 3, data_format="channels_last")(
        K.BatchNormalization(name="norm")(K.Conv2D(4, 3, name="conv")(x))
    )
    h = K.Add()([h, L.StochasticDepth(0.4)(h)])
    model = keras.Model(x, K.Dense(3, name="head")(K.Flatten()(h)))
    state = {name: v.detach().numpy() for name, v in net.state_dict().items()}
    model.get_layer("conv").set_weights(
        [state["conv.weight"].transpose(2, 3, 1, 0), state["conv.bias"]]
    )
    model.get_layer("norm").set_weights(
        [state[f"norm.{n}"] for n in ("weight", "bias", "running_mean", "running_var")]
    )
    model.get_layer("head").set_weights([state["head.weight"].T, state["head.bias"]])
    want, got = outputs(
        net.eval(), model, np.random.default_rng(0).normal(size=(3, 8, 7, 2)).astype("float32")
    )
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


OTHERS = (
    "of_every_backend or round_trip or enumerated or all_masks or schedules_reach "
    "or (learn_digits and (784 or normalization))"
)


@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_the_other_backends(backend):
    """Part of the tests in a process of its own: distributions, tutorials, schedules, Monte Carlo.

    All tests run with KERAS_BACKEND set.
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
