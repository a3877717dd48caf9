"""Mixout, shakeout and targeted dropout, as in torch."""

from __future__ import annotations

import numpy as np
import pytest

keras = pytest.importorskip(
    "keras", reason="Keras is not installed: pip install 'thinned[keras]' and a backend"
)
stats = pytest.importorskip("scipy.stats")
torch = pytest.importorskip("torch")

from thinned import functional as F  # noqa: E402
from thinned import nn  # noqa: E402
from thinned.keras import layers as L  # noqa: E402

from ..help import ALPHA, again, array, same_distribution  # noqa: E402

K = keras.layers


def test_shakeout_as_in_torch():
    n = 3000
    layer, net = again(L.Shakeout(K.Dense(2), 0.4, 0.3, seed=0)), torch.nn.Linear(3, 2)
    layer.build((None, 3))
    w, b = (v.detach().numpy() for v in net.parameters())
    layer.set_weights([w.T, b])
    x = np.random.default_rng(0).normal(size=(1, 3)).astype("float32").repeat(n, 0)
    theirs = F.shakeout(torch.tensor(x), net.weight, net.bias, 0.4, 0.3).detach().numpy()
    y = array(layer(x, training=True))
    assert same_distribution(y, theirs) == 8
    plain = array(layer(x[:1]))
    np.testing.assert_allclose(plain, x[:1] @ w.T + b, rtol=1e-5, atol=1e-6)
    assert stats.ttest_1samp(y[:, 0], plain[0, 0]).pvalue > ALPHA
    with pytest.raises(ValueError, match="argument `c`"):
        L.Shakeout(K.Dense(2), 0.5, -1.0)
    with pytest.raises(ValueError, match="argument `layer`"):
        L.Shakeout(K.Conv1D(2, 3))


@pytest.mark.parametrize("per", ["weight", "unit"])
def test_mixout_as_in_torch(per, tmp_path):
    """Between the pretrained and the present weights, as often as in torch; the pretrained ones
    are saved in a file.
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
    assert same_distribution(ours, theirs) == (16 if per == "weight" else 4)
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


@pytest.mark.parametrize("per", ["weight", "unit"])
def test_targeted_as_in_torch(per):
    """Which weights are candidates, on a convolution with equal ones; how often they are dropped;
    the pruned network in evaluation.
    """
    n, p = 80, 0.4
    torch.manual_seed(1)
    net = torch.nn.Conv1d(2, 4, 2, bias=False)
    with torch.no_grad():
        net.weight[1] = net.weight[0]  # two units of equal norm
        net.weight[2].view(-1)[:3] = (
            0.01  # three weights of equal size, so that no two are the smallest
        )
    torch_layer = nn.TargetedDropout(net, p, 0.5, per=per)
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
        theirs = np.stack([torch_layer(far).numpy().transpose(0, 2, 1).ravel() for _ in range(n)])
        pruned = torch_layer.eval()(far).numpy().transpose(0, 2, 1)
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


def test_targeted_units_are_those_of_targeted_dropout():
    x = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    layer = again(L.TargetedUnitDropout(K.Dense(6), 0.4, 0.5, seed=2))
    general = L.TargetedDropout(K.Dense(6), 0.4, 0.5, "unit", seed=2)
    layer.build(x.shape), general.build(x.shape)
    general.set_weights(layer.get_weights())
    np.testing.assert_array_equal(array(layer(x, training=True)), array(general(x, training=True)))
    np.testing.assert_array_equal(array(layer(x)), array(general(x)))
    assert ((array(layer(x)) == 0).all(0)).sum() == 3
