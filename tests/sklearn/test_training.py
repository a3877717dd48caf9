"""Training by the scikit-learn API, compared with scikit-learn, autograd, formulas and loops."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.utils import compute_sample_weight

from thinned import functional, presets
from thinned.algebra import Key
from thinned.algebra.key import stream_of
from thinned.sklearn import DropoutClassifier, DropoutRegressor
from thinned.sklearn.methods import METHODS
from thinned.sklearn.specs import for_rows

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 5)).astype(np.float32)
Y = np.argmax(X @ RNG.normal(size=(5, 3)) + 0.3 * RNG.normal(size=(60, 3)), 1)
T = np.sin(X[:, 0]) + X[:, 1]
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


def weights(net):
    return [*net.coefs_, *net.intercepts_]


def close(left, right, rtol=1e-4, atol=1e-5):
    for a, b in zip(weights(left), weights(right), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
def test_without_dropout_it_is_scikit_learns(solver, activation):
    """Also with L2, small batches, and an end by the training loss."""
    options = {
        "hidden_layer_sizes": (7, 6),
        "solver": solver,
        "activation": activation,
        "alpha": 0.1,
        "batch_size": 16,
        "max_iter": 25,
        "random_state": 3,
        "learning_rate_init": 0.02,
        "tol": 0.03,
        "n_iter_no_change": 4,
    }
    for ours, theirs, y in (
        (DropoutClassifier, MLPClassifier, Y),
        (DropoutRegressor, MLPRegressor, T),
    ):
        a, b = ours(dropout=0.0, **options).fit(X, y), theirs(**options).fit(X.astype(float), y)
        assert a.n_iter_ == b.n_iter_
        assert a.t_ == b.t_
        np.testing.assert_allclose(a.loss_curve_, b.loss_curve_, rtol=1e-4)
        close(a, b, 1e-3, 1e-4)


def test_without_dropout_early_stopping_and_warm_start_are_scikit_learns():
    options = {
        "hidden_layer_sizes": 8,
        "early_stopping": True,
        "max_iter": 30,
        "random_state": 1,
        "n_iter_no_change": 3,
    }
    a, b = DropoutClassifier(dropout=0.0, **options).fit(X, Y), MLPClassifier(**options).fit(X, Y)
    assert a.validation_scores_ == pytest.approx(b.validation_scores_)
    assert a.best_validation_score_ == pytest.approx(max(a.validation_scores_))
    close(a, b, 1e-3, 1e-4)
    options = {"hidden_layer_sizes": 8, "warm_start": True, "max_iter": 4, "random_state": 1}
    a, b = DropoutClassifier(dropout=0.0, **options), MLPClassifier(**options)
    for _ in range(3):
        a.fit(X, Y)
        b.fit(X, Y)
        close(a, b, 1e-3, 1e-4)
    assert len(a.loss_curve_) == len(b.loss_curve_)
    np.testing.assert_allclose(a.loss_curve_, b.loss_curve_, rtol=1e-4)


def by_autograd(net, specs, y, epochs, weight=None):
    """Full batches in the rows' own order, gradient descent without momentum, masks by the public
    function; returns the weights.
    """
    random = np.random.RandomState(net.random_state)
    seed = np.random.RandomState(net.random_state).randint(np.iinfo(np.int32).max)
    units = [X.shape[1], *net.hidden_layer_sizes, y.shape[1]]
    ws, bs = [], []
    for i, o in itertools.pairwise(units):
        bound = np.sqrt((2 if net.activation == "logistic" else 6) / (i + o))
        ws.append(
            torch.tensor(
                random.uniform(-bound, bound, (i, o)), dtype=torch.float32, requires_grad=True
            )
        )
        bs.append(
            torch.tensor(random.uniform(-bound, bound, o), dtype=torch.float32, requires_grad=True)
        )
    act = {
        "relu": torch.relu,
        "tanh": torch.tanh,
        "logistic": torch.sigmoid,
        "selu": torch.selu,
        "identity": lambda h: h,
    }
    weight = torch.ones(len(X)) if weight is None else torch.tensor(weight, dtype=torch.float32)
    for step in range(epochs):
        h = torch.tensor(X)
        for i, (w, b) in enumerate(zip(ws, bs, strict=True)):
            if specs[i] is not None:
                h = functional.drop(h, specs[i], key=Key(seed, stream_of(f"drop{i}"), step=step))
            h = h @ w + b
            if i < len(ws) - 1:
                h = act[net.activation](h)
        if isinstance(net, DropoutClassifier):
            loss = -(torch.log_softmax(h, 1) * torch.tensor(y)).sum(1)
        else:
            loss = 0.5 * (h - torch.tensor(y)).square().mean(1)
        penalty = sum(net.alpha / 2 * w.square().sum() + net.l1 * w.abs().sum() for w in ws)
        total = ((loss * weight).sum() + penalty) / weight.sum()
        gradients = torch.autograd.grad(total, [*ws, *bs])
        with torch.no_grad():
            for value, gradient in zip([*ws, *bs], gradients, strict=True):
                value -= net.learning_rate_init * gradient
            for w in ws[:-1]:
                if net.max_norm:
                    w *= (net.max_norm / w.norm(dim=0)).clamp_max(1)
    return [v.detach().numpy() for v in (*ws, *bs)]


PLAIN = {
    "solver": "sgd",
    "momentum": 0.0,
    "shuffle": False,
    "batch_size": 60,
    "learning_rate_init": 0.3,
    "random_state": 5,
}


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        *((name, kind) for name in POINTS for kind in ("relu", "tanh")),
        *(("alpha_dropout", kind) for kind in ("logistic", "selu", "identity")),
    ],
)
def test_every_point_trains_as_autograd_says(name, activation):
    net = DropoutClassifier(
        (6, 4), dropout=name, input_dropout=0.2, activation=activation, max_iter=4, **PLAIN
    ).fit(X, Y)
    want = by_autograd(
        net,
        [presets.dropout(0.2), presets.make(name), presets.make(name)],
        np.eye(3, dtype="f")[Y],
        4,
    )
    for got, expected in zip(weights(net), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    "places", list(itertools.product(["batchwise_dropout", 0.3], repeat=3)), ids=str
)
def test_only_what_a_batch_keeps_is_computed(places):
    """Smaller products, where rows share a mask; gradients of dropped units are 0, next to every
    kind of neighbor.
    """
    given, *hidden = places
    net = DropoutClassifier(
        (6, 4), dropout=hidden, input_dropout=given, alpha=0.3, max_iter=4, **PLAIN
    ).fit(X, Y)
    specs = [
        presets.batchwise_dropout(0.5) if p == "batchwise_dropout" else presets.dropout(p)
        for p in places
    ]
    for got, expected in zip(
        weights(net), by_autograd(net, specs, np.eye(3, dtype="f")[Y], 4), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-5)


def test_rates_for_each_layer_and_every_penalty():
    each = [0.7, presets.gaussian_dropout(0.2)]
    weight = RNG.integers(0, 4, 60)
    net = DropoutRegressor(
        (6, 4), dropout=each, alpha=0.5, l1=0.2, max_norm=0.8, max_iter=5, **PLAIN
    ).fit(X, T, weight)
    want = by_autograd(
        net, [None, presets.dropout(0.7), each[1]], T[:, None].astype("f"), 5, weight
    )
    for got, expected in zip(weights(net), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-5)
    assert np.linalg.norm(net.coefs_[0], axis=0).max() <= 0.8001


def test_every_point_for_rows_is_tested():
    assert [name for name in for_rows() if name not in METHODS] == POINTS


LAWS = {
    "dropout": (presets.dropout(0.3), 0.3 / 0.7),
    "gaussian_dropout": (presets.gaussian_dropout(0.3), 0.3 / 0.7),
    "uniform_dropout": (presets.uniform_dropout(0.5), 0.25 / 3),
    "classic": (presets.dropout(0.3, scale="classic"), 0.3 * 0.7),
}


@pytest.mark.parametrize("name", LAWS)
def test_moments_of_predictions_are_those_of_the_law(name):
    """One hidden layer: Var = sum_j (w_j h_j)^2 Var(a). 20,000 draws: a variance's error is 1 to
    1.5 %, five of them.
    """
    spec, var = LAWS[name]
    net = DropoutRegressor(
        8, dropout=spec, max_iter=10, learning_rate_init=0.02, random_state=0
    ).fit(X, T)
    rows = X[:3]
    samples = net.predict_samples(rows, 20_000)[:, :, 0]
    hidden = np.maximum(rows @ net.coefs_[0] + net.intercepts_[0], 0)
    sure = (hidden**2 @ net.coefs_[1] ** 2)[:, 0] * var
    np.testing.assert_allclose(samples.var(0), sure, rtol=0.075)
    np.testing.assert_array_less(
        np.abs(samples.mean(0) - net.predict(rows)), 5 * np.sqrt(sure / 20_000)
    )


def test_return_std_against_a_loop():
    """A loop with NumPy's own masks; 4,000 draws each, so a deviation's error is 1.6 %; five of
    them.
    """
    options = {"max_iter": 20, "learning_rate_init": 0.02, "samples": 4000, "random_state": 0}
    net = DropoutRegressor((12, 9), dropout=[0.5, 0.2], input_dropout=0.1, **options).fit(X, T)
    mean, std = net.predict(X[:4], return_std=True)
    random, drawn = np.random.default_rng(1), []
    for _ in range(4000):
        h = X[:4]
        for i, p in enumerate((0.1, 0.5, 0.2)):
            h = np.maximum(h, 0) if i else h
            h = (h * (random.random(h.shape) >= p) / (1 - p)) @ net.coefs_[i] + net.intercepts_[i]
        drawn.append(h[:, 0])
    np.testing.assert_allclose(std, np.std(drawn, 0), rtol=0.11)
    np.testing.assert_array_less(np.abs(mean - np.mean(drawn, 0)), 5 * std * np.sqrt(2 / 4000))
    samples = net.predict_samples(X[:4])
    np.testing.assert_allclose(std, samples.std(0)[:, 0], rtol=1e-4)
    np.testing.assert_array_equal(net.predict(X[:4]), mean)


def test_probabilities_are_a_mean_over_networks():
    net = DropoutClassifier(8, max_iter=5, samples=30, random_state=0).fit(X, Y)
    np.testing.assert_allclose(net.predict_proba(X), net.predict_samples(X).mean(0), rtol=1e-5)
    two = DropoutClassifier(8, max_iter=5, random_state=0).fit(X, Y > 0)
    assert two.predict_samples(X, 3).shape == (3, 60, 1)
    plain = two.predict_proba(X)
    np.testing.assert_allclose(
        two.set_params(samples=2000).predict_proba(X)[:5], plain[:5], atol=0.1
    )


def test_weights_of_rows_are_repetitions():
    """Of one full batch without dropout. With it a repeated row has masks of its own, but one of
    weight 0 is never there.
    """
    weight = RNG.integers(0, 4, 60)
    again = np.repeat(np.arange(60), weight)
    for kind, y in ((DropoutClassifier, Y), (DropoutRegressor, T)):
        net = kind(8, dropout=0.0, max_iter=15, random_state=0)
        close(
            net.fit(X, y, weight),
            kind(8, dropout=0.0, max_iter=15, random_state=0).fit(X[again], y[again]),
            1e-3,
            1e-4,
        )
        weight_or_nothing = (np.arange(60) < 50).astype(float)
        options = {"dropout": 0.5, "max_iter": 15, "random_state": 0, "shuffle": False}
        close(
            kind(8, **options).fit(X, y, weight_or_nothing), kind(8, **options).fit(X[:50], y[:50])
        )


def test_class_weights_are_weights_of_rows():
    y = np.minimum(Y, 1)
    options = {"max_iter": 10, "random_state": 0, "batch_size": 16}
    plain = DropoutClassifier(8, **options)
    weighted = DropoutClassifier(8, class_weight="balanced", **options).fit(X, y)
    close(weighted, plain.fit(X, y, compute_sample_weight("balanced", y)))
    weighted.set_params(class_weight={0: 3.0, 1: 0.5}).fit(X, y, np.arange(60.0))
    close(weighted, plain.fit(X, y, np.where(y == 0, 3.0, 0.5) * np.arange(60)))


def test_partial_fits_are_epochs():
    for solver in ("adam", "sgd"):
        options = {
            "dropout": 0.4,
            "shuffle": False,
            "batch_size": 20,
            "random_state": 0,
            "solver": solver,
        }
        whole = DropoutClassifier(8, max_iter=6, **options).fit(X, Y)
        parts = DropoutClassifier(8, **options).partial_fit(X, Y, classes=[0, 1, 2])
        for _ in range(5):
            parts.partial_fit(X, Y)
        close(whole, parts, 1e-6, 1e-7)
        assert parts.loss_curve_ == pytest.approx(whole.loss_curve_)


def test_torchs_generator_and_callers_arrays_are_left_alone():
    before, x = torch.get_rng_state(), X.copy()
    x.flags.writeable = False
    DropoutClassifier(8, dropout="gaussian_dropout", max_iter=3).fit(x, Y).predict_samples(x, 2)
    assert torch.equal(before, torch.get_rng_state())


def test_early_stopping_keeps_the_best():
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        net = DropoutRegressor(
            8,
            dropout=0.2,
            early_stopping=True,
            n_iter_no_change=3,
            max_iter=400,
            learning_rate_init=0.05,
            validation_fraction=0.3,
            random_state=0,
        ).fit(X, T)
    assert net.n_iter_ == len(net.validation_scores_) < 400
    assert net.best_validation_score_ == max(net.validation_scores_) > net.validation_scores_[-1]
    assert net.best_loss_ is None
