"""Methods of ``thinned.nn`` in the perceptrons of the scikit-learn API,
compared with loops over layers.
"""

from __future__ import annotations

import itertools
import json
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch.nn import Identity, Linear, ReLU, Sequential, Tanh
from torch.nn import functional as F

import thinned
from thinned import InputError, functional, nn, presets
from thinned.algebra import Annealed, Curriculum, Early, Key, Late
from thinned.algebra.key import stream_of
from thinned.algebra.schedule import Linear as Ramp
from thinned.sklearn import DropoutClassifier, DropoutRegressor, DropoutSearchCV

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 5)).astype(np.float32)
Y = np.argmax(X @ RNG.normal(size=(5, 3)) + 0.3 * RNG.normal(size=(60, 3)), 1)
T = (np.sin(X[:, 0]) + X[:, 1]).astype(np.float32)
METHODS = [
    "standout",
    "jumpout",
    "fast_dropout",
    "thinned",
    "drop_connect",
    "mixout",
    "shakeout",
    "targeted_dropout",
    "targeted_unit_dropout",
    "concrete_dropout",
    "variational_dropout",
    "sparse_variational_dropout",
    "information_dropout",
]
POINTS = [
    "dropout",
    "gaussian_dropout",
    "uniform_dropout",
    "alpha_dropout",
    "feature_alpha_dropout",
    "batchwise_dropout",
    "spatial_dropout",
    "drop_path",
    "stochastic_depth",
]
# scikit-learn expects the same of its own SGDClassifier and forests: a repeated row has draws of
# its own, a weight has not
RANDOM = {
    f"check_sample_weight_equivalence_on_{kind}_data": "sample_weight is not equivalent to "
    "removing/repeating samples."
    for kind in ("dense", "sparse")
}
QUICK = {"max_iter": 20, "learning_rate_init": 0.05, "random_state": 0}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
@parametrize_with_checks(
    [DropoutClassifier(16, dropout="concrete_dropout", **QUICK)],
    expected_failed_checks=lambda net: RANDOM,
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def information(inputs, outputs, layer, random):
    noise = Linear(inputs, outputs)
    with torch.no_grad():
        for part in (noise.weight, noise.bias):
            part.uniform_(-(inputs**-0.5), inputs**-0.5, generator=random)
    return nn.InformationDropout(Sequential(layer, ReLU()), noise)


def by_hand(name, a, b, c, random):
    """The hidden layers 5-6-4 and the last one, as a user of ``thinned.nn`` would write them."""
    units = {
        "jumpout": lambda n: nn.Jumpout(),
        "thinned": lambda n: nn.Thinned(),
        "concrete_dropout": nn.ConcreteDropout,
        "variational_dropout": nn.VariationalDropout,
    }
    weights = {
        "drop_connect": nn.DropConnect,
        "mixout": nn.Mixout,
        "shakeout": nn.Shakeout,
        "targeted_dropout": nn.TargetedDropout,
        "sparse_variational_dropout": nn.SparseVariationalDropout,
    }
    if name in units:
        each = [a, ReLU(), ("drop1", units[name](6)), b, ReLU(), ("drop2", units[name](4)), c]
    elif name in weights:
        each = [a, ReLU(), ("drop1", weights[name](b)), ReLU(), ("drop2", weights[name](c))]
    elif name == "fast_dropout":
        each = [a, ReLU(), nn.FastDropout(b, 0.5, "relu"), nn.FastDropout(c, 0.5)]
    elif name == "standout":
        each = [("drop1", nn.Standout(a)), ("drop2", nn.Standout(b)), c]
    elif name == "targeted_unit_dropout":
        layer = lambda layer: nn.TargetedDropout(layer, per="unit")  # noqa: E731
        each = [("drop1", layer(a)), ReLU(), ("drop2", layer(b)), ReLU(), c]
    else:
        each = [("drop1", information(5, 6, a, random)), ("drop2", information(6, 4, b, random)), c]
    each = [
        ("drop0", nn.Dropout(0.2)),
        *(e if isinstance(e, tuple) else (f"m{i}", e) for i, e in enumerate(each)),
    ]
    return Sequential(OrderedDict(each))


def first_layers(net, outputs=3):
    """The weights that scikit-learn's perceptrons begin with, and the seed of the masks."""
    random = np.random.RandomState(net.random_state)
    seed = np.random.RandomState(net.random_state).randint(np.iinfo(np.int32).max)
    layers = []
    for i, o in itertools.pairwise([5, *np.atleast_1d(net.hidden_layer_sizes), outputs]):
        bound, layer = np.sqrt(6 / (i + o)), Linear(int(i), int(o))
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(random.uniform(-bound, bound, (i, o))).t())
            layer.bias.copy_(torch.tensor(random.uniform(-bound, bound, o)))
        layers.append(layer)
    return layers, int(seed)


def loss_of(out, y, weight):
    """The mean loss; where the network gives a mean and a variance, of the probabilities that these
    make.
    """
    if isinstance(out, tuple):
        out = out[0] / (1 + torch.pi / 8 * out[1]).sqrt()
    return (F.cross_entropy(out, y, reduction="none") * weight).sum() / weight.sum()


def loop(model, layers, seed, net, batches, weight, examples):
    """Gradient descent without momentum over the public layers, with torch's own optimizer.

    Returns the losses.
    """
    key, optimizer = (
        thinned.key(model, seed),
        torch.optim.SGD(model.parameters(), lr=net.learning_rate_init),
    )
    learned = any(hasattr(layer, "divergence") for layer in model.modules())
    out = []
    for step, rows in enumerate(batches):
        key.at(step, samples=rows)
        w = weight[rows]
        loss = loss_of(model(torch.tensor(X)[rows]), torch.tensor(Y)[rows], w)
        loss = loss + sum(net.alpha / 2 * layer.weight.square().sum() for layer in layers) / w.sum()
        if learned:
            loss = loss + net.divergence * nn.divergence(model, examples)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for layer in layers[:-1]:
                if net.max_norm:
                    layer.weight *= (
                        net.max_norm / layer.weight.norm(dim=1, keepdim=True)
                    ).clamp_max(1)
        out.append(loss.item())
    return out


PLAIN = {
    "solver": "sgd",
    "momentum": 0.0,
    "shuffle": False,
    "random_state": 5,
    "alpha": 0.2,
    "max_norm": 0.9,
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_as_its_layers_do(name):
    net = DropoutClassifier(
        (6, 4),
        dropout=name,
        input_dropout=0.2,
        batch_size=20,
        max_iter=2,
        divergence=0.7,
        learning_rate_init=0.1,
        **PLAIN,
    )
    if name == "targeted_unit_dropout":
        net.set_params(max_norm=None)  # which makes equal norms, of which none is the smallest
    layers, seed = first_layers(net)
    model = by_hand(name, *layers, torch.Generator().manual_seed(seed))
    batches = [torch.arange(a, a + 20) for a in (0, 20, 40, 0, 20, 40)]
    losses = loop(model, layers, seed, net, batches, torch.ones(60), 60)
    net.fit(X, Y)
    for layer, w, b in zip(layers, net.coefs_, net.intercepts_, strict=True):
        np.testing.assert_allclose(w.T, layer.weight.detach(), rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(b, layer.bias.detach(), rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(
        net.loss_curve_, [np.mean(losses[:3]), np.mean(losses[3:])], rtol=1e-4
    )
    shared = {id(p) for layer in layers for p in layer.parameters()}
    state = {
        n: p for n, p in (*model.named_parameters(), *model.named_buffers()) if id(p) not in shared
    }
    assert net.dropout_state_.keys() == state.keys()
    for key, value in state.items():
        np.testing.assert_allclose(net.dropout_state_[key], value.detach(), rtol=2e-4, atol=2e-5)
    model.eval()
    with torch.no_grad():
        z = model(torch.tensor(X))
    z = z[0] if isinstance(z, tuple) else z
    np.testing.assert_allclose(net.predict_proba(X), z.softmax(1), rtol=1e-3, atol=1e-5)


def test_divergences_and_weights_of_rows():
    """Divergences are paid for the total weight; a schedule of them is read at the step."""
    weight = RNG.integers(1, 4, 60)
    net = DropoutClassifier(
        (6, 4),
        dropout=["concrete_dropout", "sparse_variational_dropout"],
        batch_size=60,
        max_iter=3,
        learning_rate_init=0.1,
        **PLAIN,
    )
    (a, b, c), seed = first_layers(net)
    last = nn.SparseVariationalDropout(c)
    model = Sequential(
        OrderedDict(a=a, x=ReLU(), drop1=nn.ConcreteDropout(6), b=b, y=ReLU(), drop2=last)
    )
    loop(
        model, [a, b, c], seed, net, [torch.arange(60)] * 3, torch.tensor(weight), int(weight.sum())
    )
    net.fit(X, Y, weight)
    np.testing.assert_allclose(
        net.dropout_state_["drop2.log_variance"], last.log_variance.detach(), rtol=1e-5
    )
    np.testing.assert_allclose(
        net.dropout_state_["drop1.logit"], model.drop1.logit.detach(), rtol=1e-5
    )
    np.testing.assert_allclose(net.coefs_[1].T, b.weight.detach(), rtol=2e-4, atol=2e-5)
    options = {"batch_size": 60, "max_iter": 3, "dropout": "variational_dropout", **PLAIN}
    late = DropoutClassifier(6, divergence=Late(1.0, since=3), **options).fit(X, Y)
    never = DropoutClassifier(6, divergence=0.0, **options).fit(X, Y)
    ever = DropoutClassifier(6, **options).fit(X, Y)
    np.testing.assert_array_equal(
        late.dropout_state_["drop1.logit"], never.dropout_state_["drop1.logit"]
    )
    assert not np.allclose(ever.dropout_state_["drop1.logit"], never.dropout_state_["drop1.logit"])


@pytest.mark.parametrize("name", POINTS)
def test_points_draw_the_same_in_both_trainers(name):
    """A schedule that stands still goes the way of modules, a rate that of formulas; shuffled small
    batches of Adam.
    """
    strength = presets.rate_name(name)
    for kind, y in ((DropoutClassifier, Y), (DropoutRegressor, T)):
        options = {
            "batch_size": 16,
            "max_iter": 4,
            "random_state": 3,
            "input_dropout": 0.1,
            "learning_rate_init": 0.02,
        }
        moving = {"method": name, strength: Ramp(0.3, 0.3, 1)}
        one = kind((6, 4), dropout={"method": name, strength: 0.3}, **options).fit(X, y)
        two = kind((6, 4), dropout=moving, **options).fit(X, y)
        assert one.t_ == two.t_
        np.testing.assert_allclose(one.loss_curve_, two.loss_curve_, rtol=1e-4)
        for a, b in zip(
            (*one.coefs_, *one.intercepts_), (*two.coefs_, *two.intercepts_), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5)
        np.testing.assert_allclose(
            one.predict_samples(X, 3), two.predict_samples(X, 3), rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize(
    "schedule",
    [Annealed(0.6, 5), Curriculum(0.5, 0.3), Early(0.5, 4), Late(0.5, 2), Ramp(0.1, 0.7, 6)],
)
def test_schedules_move_rates_step_by_step(schedule):
    net = DropoutClassifier(
        6, dropout=schedule, batch_size=30, max_iter=4, learning_rate_init=0.2, **PLAIN
    )
    (a, b), seed = first_layers(net)
    optimizer = torch.optim.SGD([*a.parameters(), *b.parameters()], lr=0.2)
    for step in range(8):
        rows = torch.arange(30) + 30 * (step % 2)
        key = Key(seed, stream_of("drop1"), step=step, samples=rows)
        h = functional.drop(
            a(torch.tensor(X)[rows]).relu(), presets.dropout(schedule(step)), key=key
        )
        loss = F.cross_entropy(b(h), torch.tensor(Y)[rows])
        loss = loss + 0.1 * (a.weight.square().sum() + b.weight.square().sum()) / 30
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            a.weight *= (0.9 / a.weight.norm(dim=1, keepdim=True)).clamp_max(1)
    net.fit(X, Y)
    np.testing.assert_allclose(net.coefs_[0].T, a.weight.detach(), rtol=2e-4, atol=2e-5)
    for draw, probabilities in enumerate(
        net.predict_samples(X, 12)
    ):  # at the rate of the last step, whatever the draw
        h = functional.drop(a(torch.tensor(X)).relu(), presets.dropout(schedule(7)),
                            key=Key(seed, stream_of("mc.drop1"), step=draw))  # fmt: skip
        np.testing.assert_allclose(probabilities, b(h).softmax(1).detach(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["drop_connect", "shakeout", "targeted_dropout"])
def test_schedules_of_weights(name):
    rate = Ramp(0.1, 0.9, 5)
    net = DropoutClassifier(
        6,
        dropout={"method": name, "p": rate},
        batch_size=20,
        max_iter=2,
        learning_rate_init=0.1,
        **PLAIN,
    )
    (a, b), seed = first_layers(net)
    layer = {
        "drop_connect": nn.DropConnect,
        "shakeout": nn.Shakeout,
        "targeted_dropout": nn.TargetedDropout,
    }[name](b, rate)
    batches = [torch.arange(start, start + 20) for start in (0, 20, 40, 0, 20, 40)]
    model = Sequential(OrderedDict(a=a, x=ReLU(), drop1=layer))
    loop(model, [a, b], seed, net, batches, torch.ones(60), 60)
    net.fit(X, Y)
    for layer, w in zip((a, b), net.coefs_, strict=True):
        np.testing.assert_allclose(w.T, layer.weight.detach(), rtol=2e-4, atol=2e-5)
    with torch.no_grad():
        np.testing.assert_allclose(
            net.predict_proba(X), model.eval()(torch.tensor(X)).softmax(1), rtol=1e-3, atol=1e-5
        )


def test_fast_dropout_is_the_mean_over_all_masks():
    """One hidden layer and squared errors: the loss of 2^4 masks, each with its probability, is the
    loss of the moments.
    """
    p = 0.3
    net = DropoutRegressor(
        4,
        dropout={"method": "fast_dropout", "p": p},
        alpha=0.0,
        batch_size=60,
        max_iter=3,
        solver="sgd",
        momentum=0.0,
        learning_rate_init=0.1,
        random_state=5,
    )
    (a, b), _ = first_layers(net, 1)
    x, y = torch.tensor(X), torch.tensor(T)[:, None]
    for _ in range(3):
        loss = torch.zeros(())
        for mask in itertools.product((0.0, 1.0), repeat=4):
            kept = torch.tensor(mask)
            chance = torch.where(kept > 0, 1 - p, p).prod()
            loss = loss + chance * 0.5 * (b(a(x).relu() * kept / (1 - p)) - y).square().mean()
        loss.backward()
        with torch.no_grad():
            for part in (a.weight, a.bias, b.weight, b.bias):
                part -= 0.1 * part.grad
                part.grad = None
    net.fit(X, T)
    assert net.loss_ == pytest.approx(loss.item(), rel=1e-4)
    np.testing.assert_allclose(net.coefs_[0].T, a.weight.detach(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(net.coefs_[1].T, b.weight.detach(), rtol=1e-4, atol=1e-5)


def test_fast_goes_on_over_layers_without_dropout():
    each = [{"method": "fast_dropout", "p": 0.4}, 0.0]
    net = DropoutRegressor((6, 4), dropout=each, max_iter=3, random_state=5).fit(X, T)
    (a, b, c), _ = first_layers(net, 1)
    model = Sequential(a, ReLU(), nn.FastDropout(b, 0.4, "relu"), nn.FastDropout(c, 0.0))
    with torch.no_grad():
        for layer, w, bias in zip((a, b, c), net.coefs_, net.intercepts_, strict=True):
            layer.weight.copy_(torch.tensor(w.T))
            layer.bias.copy_(torch.tensor(bias))
        mean, var = model(torch.tensor(X[:3]))
    drawn = net.predict_samples(X[:3], 1500)[:, :, 0]
    np.testing.assert_allclose(
        drawn.var(0), var[:, 0], rtol=0.19
    )  # a variance's error is 3.7 %; five of them
    np.testing.assert_array_less(
        np.abs(drawn.mean(0) - mean[:, 0].numpy()), 5 * np.sqrt(var[:, 0].numpy() / 1500)
    )
    free = DropoutRegressor(
        (6,), dropout="fast_dropout", activation="tanh", max_iter=3, random_state=0
    ).fit(X, T)
    assert free.predict(X, return_std=True)[1].min() > 0


def last_layer(net, rows):
    hidden = np.maximum(rows @ net.coefs_[0] + net.intercepts_[0], 0)
    return hidden, net.coefs_[1][:, 0], net.intercepts_[1]


MOMENTS = {
    "drop_connect": lambda net, h, w, b: 0.25 * (h**2 @ w**2 + b**2),
    "shakeout": lambda net, h, w, b: h**2 @ (w + 0.1 * np.sign(w)) ** 2,
    "mixout": lambda net, h, w, b: h**2 @ (w - net.dropout_state_["drop1.anchor_0"][0]) ** 2,
    "variational_dropout": lambda net, h, w, b: (
        (h * w) ** 2 @ (1 / (1 + np.exp(-net.dropout_state_["drop1.logit"].astype(float))))
    ),
    "fast_dropout": lambda net, h, w, b: h**2 @ w**2,
}


@pytest.mark.parametrize("name", MOMENTS)
def test_moments_of_predictions_are_those_of_the_method(name):
    """One hidden layer, 1,500 draws: a variance's error is 3.7 to 5 %, five of them. The mean is
    that of evaluation.
    """
    net = DropoutRegressor(
        8, dropout=name, max_iter=15, learning_rate_init=0.02, random_state=0
    ).fit(X, T)
    rows = X[:3]
    samples = net.predict_samples(rows, 1500)[:, :, 0]
    var = MOMENTS[name](net, *last_layer(net, rows))
    np.testing.assert_allclose(samples.var(0), var, rtol=0.25)
    np.testing.assert_array_less(
        np.abs(samples.mean(0) - net.predict(rows)), 5 * np.sqrt(var / 1500)
    )
    mean, std = net.set_params(samples=40).predict(rows, return_std=True)
    np.testing.assert_allclose(std, samples[:40].std(0), rtol=1e-4)
    np.testing.assert_allclose(mean, samples[:40].mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_pickles_clones_and_goes_on(name):
    options = {
        "batch_size": 20,
        "shuffle": False,
        "random_state": 0,
        "dropout": name,
        "learning_rate_init": 0.01,
    }
    net = DropoutClassifier((6, 4), max_iter=3, **options).fit(X, Y)
    assert all(type(value) is np.ndarray for value in net.dropout_state_.values())
    back = pickle.loads(pickle.dumps(net))  # noqa: S301
    np.testing.assert_array_equal(net.predict_proba(X), back.predict_proba(X))
    np.testing.assert_array_equal(net.predict_samples(X, 4), back.predict_samples(X, 4))
    np.testing.assert_array_equal(net.predict_samples(X, 4), net.predict_samples(X, 6)[:4])
    assert net.predict_samples(X, 4).std(0).max() > 0
    assert clone(net).get_params() == net.get_params()
    parts = clone(net).partial_fit(X, Y, classes=[0, 1, 2])
    for _ in range(2):
        parts = pickle.loads(pickle.dumps(parts)).partial_fit(X, Y)  # noqa: S301
    assert parts.loss_curve_ == pytest.approx(net.loss_curve_)
    for a, b in zip(
        (*net.coefs_, *net.dropout_state_.values()),
        (*parts.coefs_, *parts.dropout_state_.values()),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_warm_starts():
    options = {"warm_start": True, "max_iter": 2, "random_state": 0, "learning_rate_init": 0.02}
    net = DropoutRegressor(6, dropout="mixout", **options).fit(X, T)
    first = net.coefs_[1].copy()
    before = net.dropout_state_["drop1.anchor_0"].copy()
    assert not np.allclose(before.T, first)
    net.fit(X, T)
    np.testing.assert_array_equal(
        net.dropout_state_["drop1.anchor_0"].T, first
    )  # what this fit found is what it mixes with
    net = DropoutRegressor(6, dropout="concrete_dropout", **options).fit(X, T)
    one = net.dropout_state_["drop1.logit"].copy()
    again = net.set_params(learning_rate_init=1e-9).fit(X, T)
    np.testing.assert_allclose(again.dropout_state_["drop1.logit"], one, rtol=1e-5)
    other = again.set_params(dropout="variational_dropout")
    with pytest.raises(InputError, match="dropout is another than when this was fitted"):
        other.predict(X)
    other.fit(X, T)  # what another method learned is of no use; the weights are
    np.testing.assert_allclose(other.dropout_state_["drop1.logit"], np.log(0.2 / 0.6), rtol=1e-5)


def test_early_stopping_keeps_the_best_rates_too():
    net = DropoutRegressor(
        8,
        dropout="concrete_dropout",
        early_stopping=True,
        n_iter_no_change=4,
        max_iter=100,
        random_state=0,
        learning_rate_init=0.05,
        validation_fraction=0.3,
    ).fit(X, T)
    best = int(np.argmax(net.validation_scores_)) + 1
    assert best < net.n_iter_
    short = clone(net).set_params(max_iter=best).fit(X, T)
    np.testing.assert_array_equal(net.coefs_[0], short.coefs_[0])
    np.testing.assert_array_equal(
        net.dropout_state_["drop1.logit"], short.dropout_state_["drop1.logit"]
    )


def test_settings_and_every_mixture():
    """Specs and methods mixed; settings survive JSON; each setting reaches its layer."""
    each = [
        {"method": "drop_connect", "p": 0.3, "sampling": "moments", "inference": "moments"},
        {"method": "standout", "alpha": 0.5, "beta": 1.0},
        {"method": "gaussian_dropout", "p": 0.2},
    ]
    net = DropoutClassifier(
        (6, 5, 4),
        dropout=json.loads(json.dumps(each)),
        input_dropout="shakeout",
        activation="tanh",
        solver="sgd",
        momentum=0.0,
        alpha=0.0,
        shuffle=False,
        batch_size=60,
        max_iter=2,
        random_state=5,
        learning_rate_init=0.1,
    )
    (a, b, c, d), seed = first_layers(net)
    inner = nn.DropConnect(b, 0.3, sampling="moments", inference="moments")
    model = Sequential(OrderedDict(
        drop0=nn.Shakeout(a), x=Tanh(), drop2=nn.Standout(inner, Tanh(), 0.5, 1.0), c=c, y=Tanh(),
        drop3=nn.GaussianDropout(0.2), d=d,
    ))  # fmt: skip
    loop(model, [a, b, c, d], seed, net, [torch.arange(60)] * 2, torch.ones(60), 60)
    net.fit(X, Y)
    for layer, w in zip((a, b, c, d), net.coefs_, strict=True):
        np.testing.assert_allclose(w.T, layer.weight.detach(), rtol=2e-4, atol=2e-5)
    spec = presets.drop_connect(0.3, per="batch")
    one = DropoutClassifier(6, dropout=spec, max_iter=2, random_state=0).fit(X, Y)
    same = {"method": "drop_connect", "p": 0.3, "per": "batch"}
    two = DropoutClassifier(6, dropout=same, max_iter=2, random_state=0).fit(X, Y)
    np.testing.assert_array_equal(one.coefs_[0], two.coefs_[0])
    both = [{"method": "drop_connect", "p": 0.3, "inference": "moments"}, 0.0]
    net = DropoutRegressor((6, 4), dropout=both, max_iter=2, random_state=5).fit(X, T)
    (a, b, c), _ = first_layers(net, 1)
    model = Sequential(
        a, ReLU(), nn.DropConnect(b, 0.3, activation=ReLU(), inference="moments"), Identity(), c
    ).eval()
    with torch.no_grad():
        for layer, w, bias in zip((a, b, c), net.coefs_, net.intercepts_, strict=True):
            layer.weight.copy_(torch.tensor(w.T))
            layer.bias.copy_(torch.tensor(bias))
        np.testing.assert_allclose(
            net.predict(X), model(torch.tensor(X))[:, 0], rtol=1e-4, atol=1e-5
        )


def test_a_search_trains_them_apart():
    net = DropoutClassifier(6, batch_size=16, max_iter=4, learning_rate_init=0.03, random_state=0)
    each = [
        0.1,
        "gaussian_dropout",
        "concrete_dropout",
        {"method": "shakeout", "c": 0.2},
        Annealed(0.5, 10),
    ]
    grid = {"dropout": each, "alpha": [1e-4, 0.1]}
    many = DropoutSearchCV(net, grid, scoring="neg_log_loss", cv=2).fit(X, Y)
    one = GridSearchCV(net, grid, scoring="neg_log_loss", cv=2).fit(X, Y)
    assert many.n_passes_ == 1 + 2 * 2 * 3
    np.testing.assert_allclose(
        many.cv_results_["mean_test_score"], one.cv_results_["mean_test_score"], rtol=5e-3
    )
    assert many.best_params_ == one.best_params_
    np.testing.assert_allclose(many.predict_proba(X), one.predict_proba(X), rtol=1e-4)


@pytest.mark.parametrize("dropout", [0.3, "batchwise_dropout", "concrete_dropout", "shakeout"])
def test_how_far_ahead_is_drawn_changes_nothing(dropout, monkeypatch):
    net = DropoutClassifier(6, dropout=dropout, batch_size=16, max_iter=3, random_state=0)
    whole = clone(net).fit(X, Y)
    monkeypatch.setattr("thinned.sklearn.training._AHEAD", 1)
    np.testing.assert_array_equal(clone(net).fit(X, Y).coefs_[0], whole.coefs_[0])


def test_torchs_generator_is_left_alone():
    before = torch.get_rng_state()
    for name in METHODS:
        DropoutClassifier(6, dropout=name, max_iter=1, random_state=0).fit(X, Y).predict_samples(
            X, 2
        )
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", presets.CATALOG)
def test_the_whole_catalogue_is_for_rows_or_refused(name):
    net = DropoutClassifier(6, dropout=name, max_iter=1, random_state=0)
    if name in METHODS + POINTS:
        assert net.fit(X, Y).n_iter_ == 1
        return
    with pytest.raises(InputError) as error:
        net.fit(X, Y)
    text = str(error.value)
    if name == "monte_carlo":
        assert "samples" in text
    elif presets.CATALOG[name].place == "schedule":
        assert "give it with its settings in a rate's place" in text
    else:
        rows = text.split("those for rows are ")[1].split(", ")
        assert sorted(rows) == sorted(map(repr, METHODS + POINTS))


BAD = [
    ({"dropout": {"method": "concrete_dropout", "q": 0.1}}, "unknown setting of "
                                                            "'concrete_dropout' 'q'"),
    ({"dropout": {"method": "concrete_dropout", "p": 0.0}}, "a rate that is learned has to be "
                                                            "above 0"),
    ({"dropout": {"method": "gaussian_dropout", "rate": 0.1}}, "unknown argument 'rate' of "
                                                               "'gaussian_dropout'"),
    ({"dropout": {"p": 0.1}}, "a dict such as {'method': 'shakeout', 'c': 0.2}"),
    ({"dropout": {"method": "drop_connect", "p": 1.5}}, "dropout probability has to be between 0 "
                                                        "and 1, but got 1.5"),
    ({"dropout": {"method": "thinned", "dims": 1}}, "unknown setting of 'thinned' 'dims'"),
    ({"dropout": {"method": "uniform_dropout", "p": Annealed(0.1, 5)}}, "unknown argument 'p' of "
                                                                        "'uniform_dropout'"),
    ({"input_dropout": "standout"}, "'standout' needs the layer that gives the units"),
    ({"input_dropout": "jumpout"}, "'jumpout' follows a ReLU"),
    ({"dropout": "jumpout", "activation": "tanh"}, "'jumpout' follows a ReLU"),
    ({"dropout": "information_dropout", "activation": "selu"}, "use it with activation='relu'"),
    ({"dropout": ["fast_dropout", 0.2]}, "behind it comes 'fast_dropout' or nothing, but got "
                                         "'dropout' at place 2"),
    ({"dropout": ["fast_dropout", "standout"]}, "behind it comes 'fast_dropout' or nothing, but "
                                                "got 'standout' at place 2"),
    ({"dropout": "fast_dropout", "activation": "tanh"}, "'fast_dropout' has moments for "
                                                        "activation='relu'"),
    ({"dropout": ["drop_connect", "targeted_unit_dropout"]}, "another method has the weights "
                                                             "into them"),
    ({"dropout": "monte_carlo"}, "set samples or call predict_samples"),
    ({"dropout": presets.locked_dropout()}, "those for rows are 'dropout', 'gaussian_dropout'"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "text"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_refusals_come_before_training(change, text):
    net = DropoutClassifier((6, 4), max_iter=1, random_state=0, **change)
    with pytest.raises(InputError) as error:
        net.fit(X, Y)
    assert text in str(error.value)
    assert not hasattr(net, "coefs_")
