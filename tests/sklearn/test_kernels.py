"""The native kernels of the scikit-learn API,
compared with autograd in float64 and scikit-learn's Adam.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer
from torch.nn import functional as F

from thinned.engines.torch import native, ops
from thinned.sklearn import DropoutClassifier, DropoutRegressor, DropoutSearchCV, kernels
from thinned.sklearn.network import Population
from thinned.sklearn.records import FeatureRows

pytestmark = [
    pytest.mark.skipif(bool(ops.missing), reason=ops.missing or "native"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

UNITS = (9, 83, 6, 3)  # 83: blocks of 64, registers, and a rest
ALL, BATCH = 40, 21
ACTIVATIONS = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "logistic": torch.sigmoid,
    "identity": lambda z: z,
}
HEADS = {
    "softmax": lambda z, y: -(y * z.log_softmax(-1)).sum(-1),
    "logistic": lambda z, y: F.binary_cross_entropy_with_logits(z, y, reduction="none").sum(-1),
    "identity": lambda z, y: 0.5 * (z - y).square().mean(-1),
}


@pytest.fixture
def without(monkeypatch):
    """Call to take the native kernels away."""

    def remove():
        monkeypatch.setattr(native, "perceptron", None)
        monkeypatch.setattr(native, "adam", None)

    return remove


def rows(seed=0):
    """Rows [40, 9] that are mostly zeros; the fourth is empty."""
    x = np.random.default_rng(seed).normal(size=(ALL, UNITS[0])).astype(np.float32)
    x[np.random.default_rng(seed + 1).random(x.shape) < 0.75] = 0
    x[3] = 0
    return x


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("few", [False, True])
def test_gradients_are_those_of_autograd(m, activation, head, few, instructions):
    torch.manual_seed(0)
    population = Population(UNITS, m, activation, few)
    population.flat.normal_(std=0.4)
    everything = FeatureRows(rows())
    gradients = kernels.Gradients(population, head, BATCH + 2, everything.entries if few else None)
    lead = (m,) if m > 1 else ()
    for own in {False, m > 1}:  # rows of their own for each network, or one batch for all
        each = lead if own else lead and (1,)
        which = torch.stack([torch.randperm(ALL)[:BATCH] for _ in range(m if own else 1)]).view(
            *each, BATCH, 1
        )
        x = everything.take(which.flatten()).view(*each, BATCH, UNITS[0])
        y = torch.rand(*each, BATCH, UNITS[-1]).softmax(-1)
        share = torch.rand(*each, BATCH, 1)
        for maps in (
            [None, None, None],
            [(torch.rand(*lead, BATCH, UNITS[i]).gt(0.4) / 0.6, None) for i in range(3)],
            [None, (1 + torch.randn(*lead, BATCH, UNITS[1]), None), None],
        ):
            parts = [part.double().requires_grad_() for part in population.parts]
            h = x.double()
            for i in range(3):
                h = h if maps[i] is None else h * maps[i][0].double()
                w, b = parts[i], parts[3 + i]
                z = h @ (w.mT if m > 1 else w[0].mT) + (b if m > 1 else b[0])
                h = ACTIVATIONS[activation](z)
            wanted = (HEADS[head](z, y.double().expand_as(z)) * share[..., 0].double()).sum(-1)
            slopes_of = (
                UNITS[-1] if head == "identity" else 1
            )  # scikit-learn's: of the sum over outputs, though the loss is the mean
            expected = torch.autograd.grad(slopes_of * wanted.sum(), parts)
            for threads in (1, 2):
                before = torch.get_num_threads()
                torch.set_num_threads(threads)
                try:
                    population.gradient.fill_(7.0)
                    loss = gradients(which if few else x, y, share, maps)
                finally:
                    torch.set_num_threads(before)
                torch.testing.assert_close(loss.double(), wanted.detach(), rtol=2e-5, atol=1e-6)
                for got, right in zip(population.gradients, expected, strict=True):
                    # float32 sums that nearly cancel are as exact as their largest terms, which are
                    # those of the whole gradient: on one processor of three an entry missed 2e-6
                    atol = 2e-6 * max(1.0, 4 * right.abs().max().item())
                    torch.testing.assert_close(got.double(), right, rtol=2e-4, atol=atol)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_is_not_finite_is_seen(activation, instructions):
    population = Population((4, 6, 3), 1, activation)
    population.flat.fill_(torch.nan)
    gradients = kernels.Gradients(population, "softmax", 5, None)
    loss = gradients(
        torch.ones(5, 4),
        torch.eye(3)[:1].expand(5, 3).contiguous(),
        torch.full((5, 1), 0.2),
        [None, None],
    )
    assert loss.isnan()
    assert population.gradient.isnan().all()


def test_large_sums_overflow_nothing(instructions):
    """Probabilities of sums of 1e4 are 0 and 1, and a loss is the difference of sums."""
    for head in ("softmax", "logistic"):
        population = Population((1, 2), 1, "relu")
        population.parts[0].copy_(torch.tensor([[[1e4], [-1e4]]]))
        gradients = kernels.Gradients(population, head, 1, None)
        right = gradients(torch.ones(1, 1), torch.tensor([[1.0, 0.0]]), torch.ones(1, 1), [None])
        assert right.item() == 0.0
        assert population.gradients[0].flatten().tolist() == [0.0, 0.0]
        wrong = gradients(torch.ones(1, 1), torch.tensor([[0.0, 1.0]]), torch.ones(1, 1), [None])
        assert wrong.item() == 2e4
        assert population.gradients[0].flatten().tolist() == [1.0, -1.0]


@pytest.mark.parametrize("few", [False, True])
def test_adam_is_scikit_learns(few, instructions):
    torch.manual_seed(1)
    population = Population((70, 83, 3), 2, "relu", few)
    population.flat.normal_()
    moments = [population.buffer(), population.buffer()]
    rates, decays = [0.1, 0.003], torch.tensor([0.02, 0.0], dtype=torch.float64)
    adam = kernels.Adam(population, moments, rates)
    nets = [[part[j].double().numpy().copy() for part in population.parts] for j in range(2)]
    theirs = [
        AdamOptimizer(net, rate, 0.8, 0.99, 1e-6) for net, rate in zip(nets, rates, strict=True)
    ]
    for count in range(1, 6):
        population.gradient.normal_()
        squares = torch.tensor([sum((w**2).sum() for w in net[:2]) for net in nets])
        correction = np.sqrt(1 - 0.99**count) / (1 - 0.8**count)
        torch.testing.assert_close(
            adam(decays, correction, 0.8, 0.99, 1e-6), squares, rtol=1e-5, atol=0.0
        )
        for j, (net, their) in enumerate(zip(nets, theirs, strict=True)):
            slopes = [
                g[j].double().numpy() + (decays[j].item() * w if i < 2 else 0.0)
                for i, (g, w) in enumerate(zip(population.gradients, net, strict=True))
            ]
            their.update_params(net, slopes)
            for part, w in zip(population.parts, net, strict=True):
                np.testing.assert_allclose(part[j].numpy(), w, rtol=1e-4, atol=1e-5)


def same(a, b):
    np.testing.assert_allclose(a.loss_curve_, b.loss_curve_, rtol=1e-4)
    for left, right in zip([*a.coefs_, *a.intercepts_], [*b.coefs_, *b.intercepts_], strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-4)


OPTIONS = {
    "hidden_layer_sizes": (70, 8),
    "dropout": 0.3,
    "input_dropout": 0.2,
    "batch_size": 16,
    "random_state": 0,
    "max_iter": 8,
}


@pytest.mark.parametrize(
    "further",
    [{}, {"solver": "sgd"}, {"l1": 0.1, "max_norm": 1.0}, {"activation": "tanh", "alpha": 1.0}],
)
@pytest.mark.parametrize("make", [DropoutClassifier, DropoutRegressor])
def test_a_fit_is_the_one_of_torchs_operators(make, further, without):
    x = rows()
    y = (x.sum(1) > 0).astype(int) if make is DropoutClassifier else x.sum(1)
    assert kernels.native.perceptron is not None
    fits = [make(**OPTIONS, **further).fit(kind(x), y) for kind in (np.asarray, sparse.csr_matrix)]
    without()
    slow = make(**OPTIONS, **further).fit(x, y)
    for fast in fits:
        same(fast, slow)


def test_weighted_rows_and_searches_too(without):
    x = np.tile(rows(), (3, 1))
    y = (x.sum(1) > 0).astype(int)
    weight = np.random.default_rng(3).random(len(y))
    grid = {"dropout": [0.0, 0.4], "alpha": [1e-4, 0.1], "learning_rate_init": [0.001, 0.01]}

    def found():
        fit = DropoutClassifier(**OPTIONS).fit(x, y, sample_weight=weight)
        search = DropoutSearchCV(DropoutClassifier(**OPTIONS), grid, cv=3).fit(
            x, y, sample_weight=weight
        )
        return fit, search

    (fast, many), _ = found(), without()
    slow, other = found()
    same(fast, slow)
    np.testing.assert_allclose(
        many.cv_results_["mean_test_score"], other.cv_results_["mean_test_score"]
    )
    same(many.best_estimator_, other.best_estimator_)


def test_memory_goes_from_sparse_rows_to_dense_ones():
    x = rows()
    y = (x.sum(1) > 0).astype(int)
    mixed, dense = DropoutClassifier(**OPTIONS), DropoutClassifier(**OPTIONS)
    for kind in (sparse.csr_matrix, np.asarray, sparse.csr_matrix):
        mixed.partial_fit(kind(x), y, classes=[0, 1])
        dense.partial_fit(x, y, classes=[0, 1])
    same(mixed, dense)


def test_which_rows_are_taken_as_sparse():
    assert FeatureRows(np.ones((20, 5), np.float32)).entries is None
    assert FeatureRows(sparse.csr_matrix(np.ones((20, 5)))).entries is not None
    starts, columns, values = FeatureRows(rows()).entries
    np.testing.assert_array_equal(
        sparse.csr_matrix((values, columns, starts), (ALL, UNITS[0])).toarray(), rows()
    )
