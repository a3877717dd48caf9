"""One point, one law: the Keras face beside the torch face, and torch weights in Keras models."""

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
from thinned import nn, presets  # noqa: E402
from thinned.algebra.per import Block  # noqa: E402
from thinned.engines import keras as engine  # noqa: E402
from thinned.keras import layers as L  # noqa: E402

from ..help import array  # noqa: E402

# Keras on torch converts arrays in a way that NumPy 2.4 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
K = keras.layers
POINTS = {name: row for name, row in presets.CATALOG.items() if callable(row.fn)}
ALPHA = 1e-3 / (3 * len(POINTS))
MANY = 6000


def drawn(spec, axes):
    """(from Keras, from torch): the factor, or the filled value, of 1.5 on a tensor of ``axes``."""
    x = np.full(axes, 1.5, "float32")
    layer = L.SpecDropout(spec, seed=11, data_format="channels_first")
    return array(layer(x, training=True)), F.drop(torch.tensor(x), spec).numpy()


def shared(y):
    """Along which axes all values are one."""
    return tuple(bool((y == y.take([0], axis)).all()) for axis in range(y.ndim))


def test_every_point_is_here():
    assert len(POINTS) == 15


@pytest.mark.parametrize("name", POINTS)
def test_the_same_point_has_the_same_law_in_both_faces(name):
    """Shared axes are equal, and so are the distributions of values (chi-squared; Kolmogorov and
    Smirnov where continuous).
    """
    size = {"block": 3} if name == "dropblock" else {}
    spec = presets.make(name, **{POINTS[name].strength: 0.3}, **size)
    axes = {"b *": (4, 5), "n *": (4, 5), "e *": (4, 5), "b c *": (4, 3, 6, 5)}.get(
        spec.of, (4, 3, 5)
    )
    coins, _ = engine.cells(axes, spec)
    long = next(i for i, n in enumerate(coins) if n > 1)  # an axis of coins of their own, made long
    ours, theirs = drawn(spec, (*axes[:long], MANY, *axes[long + 1 :]))
    assert shared(ours) == shared(theirs)
    if isinstance(spec.per, Block):
        a, b = ((y == 0).mean((1, 2, 3)) for y in (ours, theirs))  # how much of a map falls
        np.testing.assert_allclose([ours.mean(), theirs.mean()], 1.5, rtol=1e-5)
    else:
        a, b = (np.moveaxis(y, long, 0).reshape(MANY, -1)[:, 0] for y in (ours, theirs))
    values = np.unique(np.concatenate((a, b)).round(4))
    if len(values) > MANY // 4:
        assert stats.ks_2samp(a, b).pvalue > ALPHA
        return
    counts = np.array([[(y.round(4) == v).sum() for v in values] for y in (a, b)])
    common = counts.sum(0) > 20
    assert common.any()
    assert stats.chi2_contingency(counts[:, common]).pvalue > ALPHA


@pytest.mark.parametrize("name", POINTS)
def test_evaluation_is_the_same_in_both_faces(name):
    spec = presets.make(name, **{POINTS[name].strength: 0.3})
    x = np.random.default_rng(0).normal(size=(2, 3, 9)).astype("float32")
    y = array(L.SpecDropout(spec, data_format="channels_first")(x))
    np.testing.assert_allclose(y, F.drop(torch.tensor(x), spec, mode="mean").numpy(), rtol=1e-6)


def outputs(net, model, x):
    with torch.no_grad():
        return net(torch.tensor(x)).numpy(), model.predict(x, verbose=0)


def test_weights_move_between_torch_and_keras():
    """A perceptron with classic scaling and DropConnect: evaluation multiplies by the same means."""
    net = torch.nn.Sequential(
        torch.nn.Linear(6, 8), torch.nn.ReLU(), nn.Dropout(p=0.3, scale="classic"),
        nn.DropConnect(torch.nn.Linear(8, 5), p=0.4), torch.nn.Tanh(), nn.Dropout(0.2), torch.nn.Linear(5, 2),
    ).eval()  # fmt: skip
    model = keras.Sequential([
        keras.Input((6,)), K.Dense(8, "relu"), L.Dropout(0.3, "classic"), L.DropConnect(K.Dense(5), 0.4),
        K.Activation("tanh"), L.Dropout(0.2), K.Dense(2),
    ])  # fmt: skip
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


def test_zoneout_moves_between_torch_and_keras():
    """Krueger's evaluation over many steps, on an LSTM with a rate of each state; torch adds two
    biases.
    """
    net = nn.DropState(
        torch.nn.LSTM(3, 5, batch_first=True), method="zoneout", states=0.2, cells=0.5
    ).eval()
    model = keras.Sequential(
        [keras.Input((7, 3)), L.Zoneout(K.LSTMCell(5), 0.2, 0.5, return_sequences=True)]
    )
    w, u, b, c = (v.detach().numpy() for v in net.state_dict().values())
    model.set_weights([w.T, u.T, b + c])
    want, got = outputs(
        lambda x: net(x)[0],
        model,
        np.random.default_rng(0).normal(size=(4, 7, 3)).astype("float32"),
    )
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_heads_fall_inside_attention():
    """Beside Keras's layer: the same weights and evaluation; with the output projection the
    identity, heads are seen.
    """
    x = np.random.default_rng(0).normal(size=(500, 4, 6)).astype("float32")
    layer, plain = L.DropHeadAttention(3, 2, head_rate=0.4, seed=0), K.MultiHeadAttention(3, 2)
    layer.build(x.shape, x.shape), plain.build(x.shape, x.shape)
    weights = layer.get_weights()
    weights[-2] = np.eye(6, dtype="float32").reshape(3, 2, 6)
    layer.set_weights(weights), plain.set_weights(weights)
    still = array(plain(x, x))
    np.testing.assert_allclose(array(layer(x, x)), still, rtol=1e-5, atol=1e-6)
    gains = (array(layer(x, x, training=True)) / still).reshape(500, 4, 3, 2)
    np.testing.assert_allclose(
        gains, gains[:, :1, :, :1] * np.ones((1, 4, 1, 2)), rtol=1e-2, atol=1e-3
    )
    kept = (gains[:, 0, :, 0] > 0).sum(1)
    chances = [math.comb(3, k) * 0.6**k * 0.4 ** (3 - k) for k in range(4)]
    expected = 500 * np.array(
        [chances[1], chances[2], chances[3] + chances[0]]
    )  # where all would fall, all stay
    assert stats.chisquare(np.bincount(kept, minlength=4)[1:], expected).pvalue > ALPHA
    again = L.DropHeadAttention.from_config(layer.get_config())
    assert again.head_rate == 0.4
    with pytest.raises(ValueError, match="argument `head_rate`"):
        L.DropHeadAttention(3, 2, head_rate=1.0)
