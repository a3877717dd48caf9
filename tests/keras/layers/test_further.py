"""Keras layers that cut, adapt, mix and learn: laws by closed forms and beside the torch face, and
files.
"""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest

keras = pytest.importorskip(
    "keras", reason="Keras is not installed: pip install 'thinned[keras]' and a backend"
)
stats = pytest.importorskip("scipy.stats")
torch = pytest.importorskip("torch")

import thinned.keras as tk  # noqa: E402
from thinned import functional as F  # noqa: E402
from thinned import nn  # noqa: E402
from thinned.keras import layers as L  # noqa: E402

from ..help import ALPHA, array, same_law, unbuilt  # noqa: E402

# Keras on torch converts arrays in a way that NumPy 2.4 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
K = keras.layers


def again(layer):
    """The layer made anew of its configuration, after a way through JSON."""
    config = json.loads(json.dumps(layer.get_config()))
    other = type(layer).from_config(copy.deepcopy(config))
    assert unbuilt(json.loads(json.dumps(other.get_config()))) == unbuilt(config)
    return other


@pytest.mark.parametrize(("size", "holes", "axes"), [(2, 1, (3, 4)), (3, 2, (4, 3)), (2, 1, (5,))])
def test_holes_are_those_of_torch(size, holes, axes):
    """All outcomes of small maps, as often as in torch; channels fall together."""
    n = 2500
    layer = again(L.Cutout(size, holes, data_format="channels_first", seed=0))
    ours = array(layer(np.ones((n, 2, *axes), "float32"), training=True))
    theirs = F.cutout(torch.ones(n, 1, *axes), size, holes).numpy()
    np.testing.assert_array_equal(ours[:, 0], ours[:, 1])
    if holes == 1:
        assert same_law(ours[:, 0].reshape(n, -1), theirs.reshape(n, -1)) == math.prod(axes)
    else:
        a, b = ((y == 0).reshape(n, -1).sum(1) for y in (ours[:, 0], theirs))
        assert same_law(a[:, None].astype(float), b[:, None].astype(float)) > 3
    last = array(
        L.Cutout(size, holes, data_format="channels_last", seed=0)(
            np.ones((n, *axes, 2), "float32"), training=True
        )
    )
    np.testing.assert_array_equal(np.moveaxis(last, -1, 1), ours)
    np.testing.assert_array_equal(array(layer(ours)), ours)
    with pytest.raises(
        ValueError, match=r"argument `size`. Expected less than what hides every map of 3 x 4"
    ):
        L.Cutout(8)(np.ones((1, 3, 4, 1), "float32"))


def test_spans_are_those_of_torch():
    n, t = 2000, 7
    for p, places in ((0.4, 5), (0.0, 1), (1.0, 1)):  # round(2.8) tokens
        layer = again(L.HiddenCut(p, seed=0))
        ours = array(layer(np.ones((n, t, 2), "float32"), training=True))
        theirs = F.hidden_cut(torch.ones(n, t, 2), p).numpy()
        assert same_law(ours[..., 0], theirs[..., 0]) == places
        np.testing.assert_array_equal(ours[..., 0], ours[..., 1])
    assert tuple(L.HiddenCut(0.2)(keras.Input((None, 3)), training=True).shape) == (None, None, 3)


def test_standout():
    """Kept as the pre-activation says; the mean in evaluation, as in torch with the same weights."""
    n = 4000
    layer = again(L.Standout(K.Dense(2), "tanh", alpha=2.0, beta=-0.3, seed=0))
    net = nn.Standout(torch.nn.Linear(3, 2), torch.tanh, 2.0, -0.3)
    layer.build((None, 3))
    layer.set_weights([net.module.weight.detach().numpy().T, net.module.bias.detach().numpy()])
    x = np.random.default_rng(0).normal(size=(1, 3)).astype("float32").repeat(n, 0)
    with torch.no_grad():
        theirs, h = net(torch.tensor(x)).numpy(), net.module(torch.tensor(x[0])).numpy()
        assert same_law(array(layer(x, training=True)), theirs) == 4
        np.testing.assert_allclose(
            array(layer(x[:2])), net.eval()(torch.tensor(x[:2])).numpy(), rtol=1e-5
        )
    for kept, keep in zip(
        (array(layer(x, training=True)) != 0).T, 1 / (1 + np.exp(-2 * h + 0.3)), strict=True
    ):
        assert stats.binomtest(int(kept.sum()), n, keep).pvalue > ALPHA
    with pytest.raises(ValueError, match="belongs into `activation`"):
        L.Standout(K.Dense(2, "relu"))


def test_jumpout():
    """The rate of a call is |N(0, sigma^2)| over the active share, up to ``most``; survivors are
    scaled by it.
    """
    sigma, n, share = 0.2, 3000, 0.5
    x = np.tile(np.array([1.0, 0.0], "float32"), (n, 1))
    layer = again(L.Jumpout(sigma, seed=0))
    rates = []
    for _ in range(150):
        y = array(layer(x, training=True))[:, 0]
        gain = y.max()
        rates.append(1 - gain ** (-1 / 0.75))
        assert stats.binomtest(int((y == 0).sum()), n, rates[-1]).pvalue > ALPHA / 150
        assert set(np.unique(y)) <= {0.0, gain}
    inside = np.array(rates)[np.array(rates) < 0.6 - 1e-4]
    ends = 0.6 * share / sigma
    below = 2 * stats.norm.cdf(ends) - 1
    assert stats.binomtest(len(inside), 150, below).pvalue > ALPHA
    assert (
        stats.kstest(inside * share / sigma, lambda v: (2 * stats.norm.cdf(v) - 1) / below).pvalue
        > ALPHA
    )
    np.testing.assert_array_equal(array(layer(x)), x)
    layer.sigma = 0.0
    np.testing.assert_array_equal(array(layer(x, training=True)), x)
    assert not array(layer(-x, training=True)[:, 1]).any()
    with pytest.raises(ValueError, match="argument `least`"):
        L.Jumpout(0.1, least=0.5, most=0.4)
    with pytest.raises(ValueError, match="argument `sigma`"):
        L.Jumpout(2)


def test_shakeout_as_in_torch():
    n = 3000
    layer, net = again(L.Shakeout(K.Dense(2), 0.4, 0.3, seed=0)), torch.nn.Linear(3, 2)
    layer.build((None, 3))
    w, b = (v.detach().numpy() for v in net.parameters())
    layer.set_weights([w.T, b])
    x = np.random.default_rng(0).normal(size=(1, 3)).astype("float32").repeat(n, 0)
    theirs = F.shakeout(torch.tensor(x), net.weight, net.bias, 0.4, 0.3).detach().numpy()
    y = array(layer(x, training=True))
    assert same_law(y, theirs) == 8
    plain = array(layer(x[:1]))
    np.testing.assert_allclose(plain, x[:1] @ w.T + b, rtol=1e-5, atol=1e-6)
    assert stats.ttest_1samp(y[:, 0], plain[0, 0]).pvalue > ALPHA
    with pytest.raises(ValueError, match="argument `c`"):
        L.Shakeout(K.Dense(2), 0.5, -1.0)
    with pytest.raises(ValueError, match="argument `layer`"):
        L.Shakeout(K.Conv1D(2, 3))


@pytest.mark.parametrize("per", ["weight", "unit"])
def test_mixout_as_in_torch(per, tmp_path):
    """Between the pretrained weights and those of today, as often as in torch; the pretrained ones
    go into a file.
    """
    p, n = 0.4, 300
    inner = K.Dense(2, use_bias=False)
    inner.build((None, 2))
    before, now = (np.random.default_rng(i).normal(size=(2, 2)).astype("float32") for i in (0, 1))
    inner.set_weights([before])
    model = keras.Sequential([keras.Input((2,)), L.Mixout(inner, p, per, seed=0)])
    layer = model.layers[0]
    inner.set_weights([now])
    x = np.eye(2, dtype="float32")
    ours = np.stack([array(layer(x, training=True)).ravel() for _ in range(n)])
    theirs = np.stack(
        [
            F.mixout(torch.tensor(now.T), torch.tensor(before.T), p, per=per).numpy().T.ravel()
            for _ in range(n)
        ]
    )
    assert same_law(ours, theirs) == (16 if per == "weight" else 4)
    np.testing.assert_allclose(array(layer(x)), now, rtol=1e-6)
    layer.rate = 1.0
    np.testing.assert_allclose(array(layer(x, training=True)), before, rtol=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").layers[0]
    np.testing.assert_allclose(array(loaded(x, training=True)), before, rtol=1e-6)
    np.testing.assert_allclose(array(loaded(x)), now, rtol=1e-6)
    loaded.anchor()
    np.testing.assert_allclose(array(loaded(x, training=True)), now, rtol=1e-6)
    assert len(loaded.trainable_weights) == 1
    with pytest.raises(ValueError, match="argument `layer`"):
        L.Mixout(K.Flatten()).build((None, 2))


def test_mixout_of_a_layer_that_is_built_late():
    model = keras.Sequential([L.Mixout(K.LSTM(3), 1.0)])
    x = np.random.default_rng(0).normal(size=(4, 5, 2)).astype("float32")
    model.compile("sgd", "mse")
    model.fit(x, np.zeros((4, 3)), epochs=1, verbose=0)
    layer = model.layers[0]
    assert [tuple(v.shape) for v in layer.pretrained] == [(2, 12), (3, 12)]
    for kept, v in zip(layer.pretrained, layer.layer.trainable_variables[:2], strict=True):
        np.testing.assert_array_equal(array(kept), array(v))  # at rate 1 they have no gradient


@pytest.mark.parametrize("per", ["unit", "layer"])
def test_variational(per):
    """Noise of variance alpha for each unit; the price is the torch face's."""
    layer = again(L.VariationalDropout(0.3, examples=50, per=per, seed=0))
    net = nn.VariationalDropout(3, 0.3, per=per)
    layer.build((None, 3))
    assert layer.rate == pytest.approx(net.p)
    logit = np.array([-1.0, 0.0, 1.5], "float32") if per == "unit" else np.float32(0.4)
    layer.set_weights([logit])
    with torch.no_grad():
        net.logit.copy_(torch.tensor(logit))
    x = np.full((8000, 3), 2.0, "float32")
    y = array(layer(x, training=True)) / 2
    for column, a in zip(y.T, np.broadcast_to(1 / (1 + np.exp(-logit)), 3), strict=True):
        assert stats.kstest((column - 1) / np.sqrt(a), "norm").pvalue > ALPHA
    assert float(array(layer.losses[0])) == pytest.approx(
        float(net.divergence().detach()) / 50, rel=1e-5
    )
    assert layer.rate == pytest.approx(net.p, rel=1e-5)
    np.testing.assert_array_equal(array(layer(x)), x)
    with pytest.raises(
        ValueError, match=r"argument `rate`. Expected a float value above 0 and below 0.5"
    ):
        L.VariationalDropout(0.5)


def test_information():
    layer = again(
        L.InformationDropout(K.Dense(2, "relu"), K.Dense(2), max_alpha=0.6, beta=0.5, seed=0)
    )
    n = 6000
    x = np.random.default_rng(0).normal(size=(1, 3)).astype("float32").repeat(n, 0)
    layer.build(x.shape)
    assert len(layer.weights) == 4
    layer.layer.set_weights([np.ones((3, 2)), np.array([9.0, 9.0])])
    y, still = array(layer(x, training=True)), array(layer(x))
    np.testing.assert_allclose(still, x.sum(1, keepdims=True) + np.full(2, 9), rtol=1e-5)
    alpha = 0.001 + 0.6 / (1 + np.exp(-array(layer.noise(x[:1]))[0]))
    for i in range(2):
        assert stats.kstest(np.log(y[:, i] / still[:, i]) / alpha[i], "norm").pvalue > ALPHA
    price = F.information_divergence(torch.tensor(alpha), 0.601).sum()
    layer(x, training=True)
    assert float(array(layer.losses[-1])) == pytest.approx(0.5 * float(price), rel=1e-4)
    with pytest.raises(ValueError, match="argument `noise`"):
        L.InformationDropout(K.Dense(2), K.Dense(3))(x, training=True)


def test_check_finds_no_mistake_in_these():
    x = keras.Input((6,))
    h = L.Mixout(K.Dense(6, "selu"), 0.5)(L.VariationalDropout(0.2)(x))
    h = L.Shakeout(K.Dense(6, "relu"), 0.3)(L.DropConnect(K.Dense(6, "relu"), 0.3)(h))
    h = L.ShakeShake()([L.ShakeDrop(0.3)(h), L.Swapout(0.3)([h, h])])
    h = L.Standout(K.Dense(6))(L.LayerDrop(K.Dense(6), 0.2)(h))
    model = keras.Model(x, L.ConcreteDropout(K.Dense(6))(h))
    assert not tk.check(model, np.random.default_rng(0).normal(size=(64, 6)).astype("float32"))
    kinds = {s.layer: s.kind for s in tk.find(model)}
    assert kinds["Mixout"] == kinds["DropConnect"] == "weights"
    assert kinds["ShakeShake"] == kinds["Swapout"] == "branch"
    assert (
        tk.predict(model, np.ones((2, 6), "float32"), samples=5, outputs="values").std > 0
    ).all()


@pytest.mark.parametrize("per", ["weight", "unit"])
def test_targeted_as_in_torch(per):
    """Which weights are candidates, on a convolution with equal ones; how they fall; the pruned
    network in evaluation.
    """
    n, p = 80, 0.4
    torch.manual_seed(1)
    net = torch.nn.Conv1d(2, 4, 2, bias=False)
    with torch.no_grad():
        net.weight[1] = net.weight[0]  # two units of one norm
        net.weight[2].view(-1)[:3] = (
            0.01  # three weights of one size, so that no two are the smallest
        )
    host = nn.TargetedDropout(net, p, 0.5, per=per)
    layer = again(L.TargetedDropout(K.Conv1D(4, 2, use_bias=False), p, 0.5, per, seed=0))
    layer.build((None, 2, 2))
    kernel = net.weight.detach().numpy().transpose(2, 1, 0)
    layer.set_weights([kernel])
    x = np.eye(4, dtype="float32").reshape(
        4, 2, 2
    )  # [b, t, c]: each example is one weight of each unit
    ours = np.stack([array(layer(x, training=True)).ravel() for _ in range(n)])
    np.testing.assert_array_equal(np.unique((ours != 0).mean(0) < 1), [False, True])
    with torch.no_grad():
        far = torch.tensor(x.transpose(0, 2, 1))
        theirs = np.stack([host(far).numpy().transpose(0, 2, 1).ravel() for _ in range(n)])
        pruned = host.eval()(far).numpy().transpose(0, 2, 1)
    np.testing.assert_allclose(array(layer(x)), pruned, atol=1e-6)
    candidates = (pruned == 0).ravel()
    units = (ours == 0)[:, candidates]
    if per == "unit":
        units = (ours == 0).reshape(n, 4, 4).all(1)[:, (pruned == 0).reshape(4, 4).all(0)]
    assert units.shape[1] == (6 if per == "weight" else 2)
    assert stats.binomtest(int(units.sum()), units.size, p).pvalue > ALPHA
    assert (
        stats.binomtest(
            int((theirs[:, candidates] == 0).any(1).sum()), n, 1 - (1 - p) ** units.shape[1]
        ).pvalue
        > ALPHA
    )
    layer.rate = 0.0
    np.testing.assert_allclose(array(layer(x)).reshape(4, 4), kernel.reshape(4, 4), rtol=1e-6)
    with pytest.raises(ValueError, match="argument `layer`"):
        L.TargetedDropout(K.LSTM(2))


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
def test_what_is_inside_trains_when_the_model_does(name):
    """Monte Carlo passes draw in the layer around, and leave batch normalisation within in
    inference; training moves it.
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


def test_apply_puts_nothing_in_the_place_of_what_computes():
    """A dropout layer makes room for another; a recurrent layer, a wrapper or a merging layer gets
    it behind.
    """
    x = keras.Input((4, 3))
    h = L.DropState(K.GRUCell(3), 0.2, return_sequences=True, name="state")(x)
    h = L.Swapout(0.2, name="swap")(
        [h, L.Mixout(K.Dense(3), name="mix")(L.VariationalDropout(name="learned")(h))]
    )
    model = keras.Model(x, K.Dense(1)(h))
    new = tk.apply(model, "state|swap|mix|learned", lambda: L.LockedDropout(0.1))
    kinds = [s.layer for s in tk.find(new) if s.ours and s.argument == "rate"]
    assert kinds.count("LockedDropout") == 4
    assert {"DropState", "Swapout", "Mixout"} < set(kinds)
    assert "VariationalDropout" not in kinds
    data = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    np.testing.assert_allclose(array(new(data)), array(model(data)), rtol=1e-5, atol=1e-6)
