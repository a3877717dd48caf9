"""Monte Carlo dropout: the mean over all masks, and what is in inference."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

keras = pytest.importorskip(
    "keras", reason="Keras is not installed: pip install 'thinned[keras]' and a backend"
)
stats = pytest.importorskip("scipy.stats")

import thinned.keras as tk  # noqa: E402
from thinned import InputError  # noqa: E402
from thinned.keras import layers as L  # noqa: E402

from .help import array  # noqa: E402

K = keras.layers


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


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


def test_predict_leaves_batch_normalization_alone():
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


AROUND = {
    "DropConnect": lambda inner: L.DropConnect(inner, 1e-6, scale="inverted"),
    "Mixout": lambda inner: L.Mixout(inner, 1e-6),
    "LayerDrop": lambda inner: L.LayerDrop(inner, 1e-6),
    "Concrete": lambda inner: L.ConcreteDropout(inner, 1e-6),
    "Information": lambda inner: L.InformationDropout(
        inner, K.Dense(4, bias_initializer=keras.initializers.Constant(-50))
    ),
}


@pytest.mark.parametrize("name", AROUND)
def test_layers_inside_train_when_the_model_does(name):
    """Monte Carlo passes draw in the layer around, and leave batch normalization inside in
    inference; training updates it.
    """
    x = np.random.default_rng(0).normal(5, 3, size=(32, 4)).astype("float32")
    inner = keras.Sequential(
        [keras.Input((4,)), K.Dense(4, kernel_initializer="identity"), K.BatchNormalization()]
    )
    model = keras.Sequential([keras.Input((4,)), AROUND[name](inner)])
    statistics = inner.layers[1].non_trainable_weights
    before = [array(w).copy() for w in statistics]
    mean = tk.predict(model, x, samples=3, outputs="values").mean
    np.testing.assert_allclose(mean, x / np.sqrt(1 + 1e-3), rtol=2e-2)
    np.testing.assert_array_equal(before[0], array(statistics[0]))
    model(x, training=True)
    assert not np.allclose(before[0], array(statistics[0]))


class Shuffling(keras.utils.PyDataset):
    """Batches in another order whenever they are read."""

    def __init__(self, x):
        super().__init__()
        self.x, self.random, self.reads = x, np.random.default_rng(0), 0
        self.order = np.arange(len(x))

    def __len__(self):
        return -(-len(self.x) // 4)

    def __getitem__(self, i):
        return (self.x[self.order[4 * i : 4 * i + 4]],)

    def on_epoch_begin(self):
        self.reads += 1
        self.random.shuffle(self.order)


def ramp(rows=10):
    """A model that keeps its input to 1 %, and rows that are far apart."""
    model = keras.Sequential([keras.Input((3,)), L.GaussianDropout(1e-4)])
    return model, np.outer(4.0 ** np.arange(rows), [1, 2, 3]).astype("float32")


SOURCES = {
    "array": lambda x: x,
    "generator": lambda x: ((x[i : i + 4],) for i in range(0, len(x), 4)),
    "with targets": lambda x: ((x[i : i + 4], x[i : i + 4, 0]) for i in range(0, len(x), 4)),
    "PyDataset": Shuffling,
    "shuffling loader of rows": lambda x: loader(x, tuples=False),
    "shuffling loader of tuples": lambda x: loader(x, tuples=True),
}


def loader(x, tuples):
    torch = pytest.importorskip("torch")
    x = torch.tensor(x)
    data = torch.utils.data.TensorDataset(x) if tuples else x
    generator = torch.Generator().manual_seed(0)
    return torch.utils.data.DataLoader(data, batch_size=3, shuffle=True, generator=generator)


@pytest.mark.parametrize("source", SOURCES)
def test_all_samples_of_every_backend_come_from_one_pass_over_the_data(source):
    """Rows of a source that shuffles are not mixed: each row's mean is one row of the data."""
    model, x = ramp()
    data = SOURCES[source](x)
    got = tk.predict(model, data, samples=8, batch_size=4, keep=True)
    rows = np.abs(np.log(got.mean[:, None, 0] / x[None, :, 0])).argmin(1)
    assert sorted(rows) == list(range(len(x)))
    np.testing.assert_allclose(got.mean, x[rows], rtol=0.03)
    assert (got.std < 0.05 * x[rows]).all()
    assert (got.std > 0).all()
    np.testing.assert_allclose(got.samples.std(0, ddof=1), got.std, rtol=1e-6)
    if "shuffling" not in source and source != "PyDataset":
        assert list(rows) == list(range(len(x)))
    if source == "PyDataset":
        assert data.reads == 1


def test_steps_end_data_that_does_not():
    model, x = ramp(4)
    endless = ((x,) for _ in itertools.count())
    assert tk.predict(model, endless, samples=2, steps=3).mean.shape == (12, 3)


def stateful(rate):
    """A recurrent layer that adds what it sees, noisily, over batches."""
    cell = K.SimpleRNN(
        1,
        activation="linear",
        kernel_initializer="ones",
        recurrent_initializer="ones",
        use_bias=False,
        stateful=True,
    )
    model = keras.Sequential([keras.Input(batch_shape=(2, 3, 1)), L.GaussianDropout(rate), cell])
    return model, cell


def test_states_of_every_backend_are_kept_apart_and_put_back():
    """Each sample runs over the batches with states of its own: sums are those of one pass."""
    model, layer = stateful(1e-4)
    x = np.arange(1.0, 13.0, dtype="float32").reshape(4, 3, 1)
    model.predict_on_batch(x[:2] * 0 + 5.0)  # the state from before is 15, not 0
    before = [array(s).copy() for s in layer.states]
    moved = keras.backend.backend() != "jax"  # there Keras's compiled calls keep no states
    assert before[0].ravel() == pytest.approx([15.0 * moved] * 2, rel=0.05)
    got = tk.predict(model, x, samples=6, batch_size=2, outputs="values", keep=True)
    sums = x.sum(1).reshape(2, 2)
    want = (before[0].ravel() + (sums.cumsum(0) if moved else sums)).reshape(4, 1)
    np.testing.assert_allclose(got.samples, np.broadcast_to(want, (6, 4, 1)), rtol=0.03)
    for was, state in zip(before, layer.states, strict=True):
        np.testing.assert_array_equal(array(state), was)


def test_the_sample_with_a_state_continues_its_own_noise():
    """Over two batches the deviation of the sums adds up: sample i's second sum is its first and
    more, not another sample's.
    """
    model, _ = stateful(0.3)
    x = np.ones((4, 3, 1), "float32")
    x[2:] = 1e-6
    got = tk.predict(model, x, samples=5, batch_size=2, outputs="values", keep=True).samples
    if keras.backend.backend() == "jax":
        pytest.skip("Keras's compiled calls keep no recurrent states on JAX")
    np.testing.assert_allclose(got[:, 2:], got[:, :2], rtol=1e-4)
    assert got[:, 0].std() > 0.1


def test_several_outputs_of_every_backend():
    x = keras.Input((4,))
    h = L.Dropout(0.5)(x)
    parts = {"kind": K.Dense(3, "softmax")(h), "size": K.Dense(2)(h)}
    data = np.random.default_rng(0).normal(size=(10, 4)).astype("float32")
    for model in (keras.Model(x, parts), keras.Model(x, list(parts.values()))):
        got = tk.predict(model, data, samples=5, batch_size=4, keep=True)
        kind, size = got.values() if isinstance(got, dict) else got
        assert isinstance(got, type(model.output))
        assert kind.mean.shape == (10, 3)
        assert size.samples.shape == (5, 10, 2)
        np.testing.assert_allclose(kind.entropy, stats.entropy(kind.mean, axis=-1), rtol=1e-6)
        assert size.entropy is None
    both = tk.predict(model, data, samples=2, outputs=["probabilities", "logits"])
    np.testing.assert_allclose(both[1].mean.sum(-1), 1.0, rtol=1e-6)
    with pytest.raises(InputError, match=r"argument `outputs`.*structure of the outputs"):
        tk.predict(model, data, samples=2, outputs=["values"])


def test_auto_looks_at_every_batch():
    """Rows of the first batch sum to 1 by chance, those of the second do not."""
    model = keras.Sequential([keras.Input((2,)), L.GaussianDropout(1e-9)])
    x = np.array([[0.5, 0.5]] * 2 + [[3.0, 4.0]] * 2, "float32")
    assert tk.predict(model, x, samples=2, batch_size=2).entropy is None
    assert tk.predict(model, x[:2], samples=2, batch_size=2).entropy is not None


def test_a_model_that_was_never_called_is_built_first():
    class Own(keras.Model):
        def build(self, shape):
            self.drop, self.head = L.Dropout(0.5), K.Dense(2)
            self.head.build(shape)

        def call(self, x, training=None):
            return self.head(self.drop(x, training=training))

    assert (tk.predict(Own(), np.ones((3, 4), "float32"), samples=4).std > 0).any()


NOT_READ = {
    "samples": [0, 1, -3, 2.5, "9", None, True, float("nan")],
    "batch_size": [0, -1, 1.5, "9", None, True],
    "steps": [0, -1, 1.5, "9", True],
    "outputs": ["proba", 3, None, ["values", "values"], {"a": "values"}],
}


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n, values in NOT_READ.items() for v in values]
)
def test_a_bad_argument_is_named_with_its_rule_and_value(name, value):
    model, x = ramp(4)
    with pytest.raises(InputError, match=f"argument `{name}`.*Expected") as caught:
        tk.predict(model, x, **{name: value})
    assert f"{name}={value!r}" in str(caught.value) or f"{name}={value}" in str(caught.value)


@pytest.mark.parametrize(
    "x", [np.ones((0, 3), "float32"), None, "rows", 3, [np.ones((2, 3)), np.ones((3, 3))], iter(())]
)
def test_data_that_cannot_be_read_is_an_input_error(x):
    model, _ = ramp(4)
    with pytest.raises(InputError, match=r"^x "):
        tk.predict(model, x, samples=2)
