"""``thinned.predict`` against enumeration, closed forms and the ordinary loop."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import thinned
import thinned.nn as tnn


def network(layer=tnn.Dropout, p=0.3):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), layer(p), nn.Linear(8, 3)).eval()


class Wrapped(nn.Module):
    """A model that is no chain of layers."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


X = torch.randn(20, 4, generator=torch.Generator().manual_seed(3))


def enumerated(model, p):
    """Mean and standard deviation of the probabilities over all masks, in numpy."""
    first, last = model[0], model[3]
    w, b, v, c = (t.detach().double().numpy() for t in (*first.parameters(), *last.parameters()))
    hidden = np.maximum(X.double().numpy() @ w.T + b, 0)
    mean, square, logs = 0.0, 0.0, 0.0
    for mask in itertools.product((0, 1), repeat=len(b)):
        logits = hidden * np.array(mask) / (1 - p) @ v.T + c
        y = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        weight = (1 - p) ** sum(mask) * p ** (len(b) - sum(mask))
        mean, square, logs = mean + weight * y, square + weight * y * y, logs + weight * np.log(y)
    geometric = np.exp(logs) / np.exp(logs).sum(-1, keepdims=True)
    return mean, np.sqrt(np.maximum(square - mean**2, 0)), geometric


def test_exact_enumeration_equals_numpy():
    model = network()
    found = thinned.predict(model, X, method="exact", outputs="logits", batch_size=7, keep=True)
    mean, std, _ = enumerated(model, 0.3)
    np.testing.assert_allclose(found.mean, mean, atol=1e-6)
    np.testing.assert_allclose(found.std, std, atol=1e-6)
    assert found.samples.shape == (256, 20, 3)
    assert found.passes.tolist() == [256] * 20


def test_exact_quantiles_are_those_of_the_weighted_masks():
    model = nn.Sequential(tnn.Dropout(0.2)).eval()
    found = thinned.predict(
        model, torch.ones(1, 1), method="exact", quantiles=(0.1, 0.3), outputs="values"
    )
    assert found.quantiles.ravel().tolist() == [0.0, 1.25]  # 0 has the probability 0.2
    assert found.mean.item() == pytest.approx(1.0)


@pytest.mark.parametrize("wrap", [False, True])
def test_monte_carlo_approaches_enumeration(wrap):
    """Errors of the mean: independent draws as T^-1/2, stratified ones well below.

    Over 40 seeds the root mean square error has a relative standard error of about 1/sqrt(80); the
    bounds below are more than 4 of them away (alpha < 1e-4).
    """
    model = network()
    mean, _, _ = enumerated(model, 0.3)
    run = Wrapped(model).eval() if wrap else model

    def error(samples, draws):
        squares = [
            (
                thinned.predict(
                    run, X, samples, outputs="logits", draws=draws, seed=s, quantiles=()
                ).mean
                - mean
            )
            ** 2
            for s in range(20)
        ]
        return float(np.sqrt(np.mean(squares)))

    independent = [error(t, "independent") for t in (32, 128, 512)]
    slope = np.polyfit(np.log([32, 128, 512]), np.log(independent), 1)[0]
    assert -0.6 < slope < -0.4
    for samples in (20, 32):
        assert error(samples, "stratified") < 0.6 * error(samples, "independent")


def test_stratified_masks_have_the_rate_of_the_layer():
    """Each draw alone is Bernoulli(q): 4000 units x 20 seeds for each of 62 draws; alpha 1e-4."""
    model = nn.Sequential(tnn.Dropout(0.13)).eval()
    kept = np.stack(
        [
            thinned.predict(
                model, torch.ones(40, 100), 62, seed=s, keep=True, outputs="values"
            ).samples
            > 0
            for s in range(20)
        ]
    )
    n = 20 * 4000
    scores = (kept.mean((0, 2, 3)) - 0.87) / np.sqrt(0.87 * 0.13 / n)
    assert np.abs(scores).max() < 4.9  # 62 draws: 2 (1 - Phi(4.9)) * 62 < 1e-4
    counts = kept[:, :31].sum(1)
    assert set(np.unique(counts)) == {26, 27}  # 31 * 0.87 = 26.97
    assert np.abs(counts.mean() - 26.97) < 4 * np.sqrt(0.97 * 0.03 / n)
    # two draws of a block have the covariance of places without replacement, other pairs none
    flat = kept.reshape(20, 62, -1).swapaxes(0, 1).reshape(62, -1).astype(float)
    for other, of_block in ((1, True), (2, True), (17, True), (30, True), (31, False)):
        moment = (0.03 * 26 * 25 + 0.97 * 27 * 26) / (31 * 30) if of_block else 0.87**2
        both = (flat[0] * flat[other]).mean()
        assert abs(both - moment) < 4.5 * np.sqrt(moment * (1 - moment) / n)
    # two units are independent
    first, second = kept[:, 0, :, 0].ravel(), kept[:, 0, :, 1].ravel()
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(first.size)


def test_stratified_draws_on_a_trained_network():
    """Errors of mean and standard deviation of the logits at 20 passes, in standard deviations."""
    torch.manual_seed(0)
    x = torch.randn(300, 6)
    y = (x[:, 0] * x[:, 1] > 0).long()
    model = nn.Sequential(
        nn.Linear(6, 32), nn.ReLU(), tnn.Dropout(0.2),
        nn.Linear(32, 32), nn.ReLU(), tnn.Dropout(0.2), nn.Linear(32, 2),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    model.eval()
    settings = {"outputs": "values", "quantiles": ()}
    reference = thinned.predict(model, x[:50], 20000, draws="independent", seed=99, **settings)

    def errors(draws):
        found = [
            thinned.predict(model, x[:50], 20, draws=draws, seed=s, **settings) for s in range(20)
        ]
        mean = [((f.mean - reference.mean) / reference.std) ** 2 for f in found]
        spread = [(f.std / reference.std - 1) ** 2 for f in found]
        return np.sqrt(np.mean(mean)), np.sqrt(np.mean(spread))

    # 20 seeds x 50 rows: relative standard errors of these are below 4 percent
    (mean, spread), (stratified, same) = errors("independent"), errors("stratified")
    assert mean == pytest.approx(1 / np.sqrt(20), rel=0.15)
    assert stratified < 0.5 * mean
    assert same == pytest.approx(spread, rel=0.25)  # the error of the spread does not improve


def test_geometric_mean_of_softmax_regression_is_weight_scaling():
    """Baldi and Sadowski 2013. At p = 10/31 every unit is kept 21 times in a block of 31."""
    model = nn.Sequential(tnn.Dropout(10 / 31), nn.Linear(4, 3)).eval()
    geometric = thinned.predict(model, X, 31, method="geometric", outputs="logits").mean
    scaled = thinned.predict(model, X, method="weight scaling", outputs="logits")
    np.testing.assert_allclose(geometric, scaled.mean, atol=1e-6)
    np.testing.assert_allclose(scaled.mean, model(X).softmax(-1).detach(), atol=1e-6)
    assert scaled.std is None
    arithmetic = thinned.predict(model, X, 31, outputs="logits").mean
    assert np.abs(arithmetic - geometric).max() > 1e-3


def test_geometric_mean_against_enumeration():
    model = network()
    _, _, geometric = enumerated(model, 0.3)
    found = thinned.predict(model, X, 4096, method="geometric", outputs="logits", quantiles=())
    np.testing.assert_allclose(found.mean, geometric, atol=5e-3)


def test_linear_regression_has_its_marginal_moments():
    """Srivastava et al. 2014, section 9.1: mean w x, variance p / (1 - p) sum (w x)^2."""
    model = nn.Sequential(tnn.Dropout(0.2), nn.Linear(4, 1)).eval()
    found = thinned.predict(model, X, method="exact", outputs="values")
    weight = model[1].weight.detach().numpy()
    np.testing.assert_allclose(found.mean, model(X).detach(), atol=1e-6)
    std = np.sqrt(0.25 * ((weight * X.numpy()) ** 2).sum(1, keepdims=True))
    np.testing.assert_allclose(found.std, std, rtol=1e-5)


@pytest.mark.parametrize("draws", ["stratified", "independent"])
@pytest.mark.parametrize("masks", ["example", "shared"])
def test_results_do_not_depend_on_batches_nor_on_how_passes_run(draws, masks):
    model = network()
    loader = DataLoader(TensorDataset(X, torch.zeros(20)), batch_size=3)
    settings = {"samples": 40, "keep": True, "draws": draws, "masks": masks, "seed": 5}
    first = thinned.predict(model, X, **settings).samples
    np.testing.assert_allclose(
        first, thinned.predict(model, X, batch_size=6, **settings).samples, atol=1e-6
    )
    np.testing.assert_allclose(first, thinned.predict(model, loader, **settings).samples, atol=1e-6)
    hook = model.register_forward_hook(lambda *_: None)  # no chain that is split any more
    np.testing.assert_allclose(first, thinned.predict(model, X, **settings).samples, atol=1e-6)
    hook.remove()
    other = thinned.predict(model, X, **{**settings, "seed": 6}).samples
    assert np.abs(first - other).max() > 0.1


def test_shared_masks_make_each_pass_one_function():
    model = network()
    x = X[:1].repeat(10, 1)
    shared = thinned.predict(model, x, 20, masks="shared", keep=True, batch_size=4).samples
    assert np.abs(shared - shared[:, :1]).max() < 1e-6
    apart = thinned.predict(model, x, 20, keep=True).samples
    assert np.abs(apart - apart[:, :1]).max() > 0.1


def test_statistics_by_hand():
    model = network(p=0.5)
    found = thinned.predict(model, X, 50, outputs="logits", keep=True, quantiles=(0.25,))
    y = found.samples
    np.testing.assert_allclose(y.sum(-1), 1.0)
    mean = y.mean(0)
    entropy = -(mean * np.log(mean)).sum(-1)
    inner = -(y * np.log(y)).sum(-1).mean(0)
    np.testing.assert_allclose(found.mean, mean)
    np.testing.assert_allclose(found.std, y.std(0, ddof=1), atol=1e-12)
    np.testing.assert_allclose(found.quantiles, np.quantile(y, [0.25], axis=0))
    np.testing.assert_allclose(found.entropy, entropy)
    np.testing.assert_allclose(found.mutual_information, entropy - inner, atol=1e-12)
    votes = [np.bincount(row, minlength=3).max() / 50 for row in y.argmax(-1).T]
    np.testing.assert_allclose(found.variation_ratio, 1 - np.array(votes), atol=1e-12)


def test_binary_and_gaussian_outputs_by_hand():
    model = nn.Sequential(tnn.Dropout(0.5), nn.Linear(4, 1), nn.Sigmoid()).eval()
    found = thinned.predict(model, X, 30, outputs="binary", keep=True)
    p = found.samples[..., 0]
    mean = p.mean(0)
    np.testing.assert_allclose(
        found.entropy, -mean * np.log(mean) - (1 - mean) * np.log(1 - mean), rtol=1e-6
    )
    assert found.mean.shape == (20, 1)
    assert found.variation_ratio.shape == (20,)
    geometric = thinned.predict(model, X, 30, method="geometric", outputs="binary")
    logit = np.log(p / (1 - p)).mean(0)
    np.testing.assert_allclose(geometric.mean[:, 0], 1 / (1 + np.exp(-logit)), rtol=1e-6)
    head = nn.Sequential(tnn.Dropout(0.5), nn.Linear(4, 2)).eval()
    found = thinned.predict(head, X, 30, outputs="gaussian", keep=True)
    y = found.samples
    np.testing.assert_allclose(found.mean, y[..., 0].mean(0))
    np.testing.assert_allclose(found.epistemic, y[..., 0].var(0, ddof=1))
    np.testing.assert_allclose(found.aleatoric, np.exp(y[..., 1]).mean(0))
    np.testing.assert_allclose(found.std**2, found.aleatoric + found.epistemic)


class Functional(nn.Module):
    """Functional dropout, attention dropout and a deterministic beginning with in-place writes."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.2, batch_first=True)
        self.counted = 0

    def forward(self, x):
        self.counted += 1
        x.mul_(2.0)
        h = torch.relu_(self.first(x))
        h[:, 0] += 1.0
        h = F.dropout(h, 0.4, self.training)
        h = h[:, None] + self.attention(h[:, None], h[:, None], h[:, None])[0]
        return {"logits": self.last(h[:, 0]), "hidden": (h, None)}


def test_stock_models_give_the_mean_of_the_ordinary_loop_in_the_structure_of_their_outputs():
    """Means of 2000 passes; the difference is compared with its standard error (alpha 1e-4)."""
    torch.manual_seed(2)
    model = Functional().eval()
    before = X.clone()
    found = thinned.predict(
        model, X, 2000, outputs={"logits": "logits", "hidden": "values"}, quantiles=(), keep=True
    )
    assert torch.equal(X, before)
    assert found["hidden"][1] is None
    assert found["hidden"][0].mean.shape == (20, 1, 8)
    with torch.no_grad(), thinned.sampling(model):
        y = torch.stack([model(X.clone())["logits"].softmax(-1) for _ in range(2000)]).numpy()
    error = np.sqrt(found["logits"].std ** 2 / 2000 + y.var(0) / 2000)
    assert (np.abs(found["logits"].mean - y.mean(0)) < 4.9 * error).all()
    again = thinned.predict(
        model, X, 2000, outputs={"logits": "logits", "hidden": "values"}, quantiles=(), keep=True
    )
    np.testing.assert_array_equal(again["logits"].samples, found["logits"].samples)


def test_replayed_passes_equal_full_passes(monkeypatch):
    torch.manual_seed(2)
    model = Functional().eval()
    settings = {"samples": 6, "keep": True, "outputs": "values"}
    replayed = thinned.predict(model, X, **settings)
    monkeypatch.setattr("thinned.predictions.replay._COST", 1e9)
    full = thinned.predict(model, X, **settings)
    np.testing.assert_array_equal(replayed["logits"].samples, full["logits"].samples)


def test_recorded_beginnings_are_not_run_again():
    runs = []

    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = tnn.Dropout(0.5)

        def forward(self, x):
            for _ in range(10):
                x = torch.linalg.matrix_exp(x * 0.01)
            return self.drop(x).sum(-1)

    class Counting(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            runs.append(func)
            return func(*args, **(kwargs or {}))

    x = torch.randn(4, 60, 60)
    model = Slow().eval()
    with Counting():
        found = thinned.predict(model, x, 12, keep=True, draws="independent", outputs="values")
    assert runs.count(torch.linalg.matrix_exp) <= 20  # a layer may prepare itself in pass 0
    with torch.no_grad():
        once = model(x)
    assert np.abs(found.samples - once.numpy()).max() > 0.1
    assert np.abs(np.diff(found.samples, axis=0)).max() > 0.1


def test_a_beginning_that_a_later_part_overwrites_is_run_again():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.drop = nn.Linear(4, 400), tnn.Dropout(0.5)

        def forward(self, x):
            h = torch.linalg.matrix_exp(self.first(x).reshape(-1, 20, 20) * 0.1)
            noise = self.drop(torch.ones(len(x), 20, 20))
            return h.mul_(noise).sum(-1)

    model = Writes().eval()
    found = thinned.predict(model, X, 20, keep=True, outputs="values").samples
    h = torch.linalg.matrix_exp(model.first(X).reshape(-1, 20, 20) * 0.1)
    largest = (2 * h.abs()).sum(-1).detach().numpy()  # what is written twice grows without bound
    assert (np.abs(found) <= largest * (1 + 1e-5)).all()


def test_inputs_that_the_model_overwrites_after_the_draw_are_fresh_in_each_pass():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = tnn.Dropout(0.5)

        def forward(self, x):
            torch.linalg.matrix_exp(torch.zeros(60, 60))
            return x.mul_(self.drop(torch.ones(len(x), 4)))

    x = torch.ones(6, 4)
    found = thinned.predict(Writes().eval(), x, 20, keep=True, outputs="values").samples
    assert set(np.unique(found)) == {0.0, 2.0}
    assert (x == 1).all()


def test_draws_in_python_before_the_first_mask_differ_between_passes():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = tnn.Dropout(0.5)

        def forward(self, x):
            torch.linalg.matrix_exp(torch.zeros(60, 60))
            return self.drop(x * random.random())

    for model in (Scaled(), nn.Sequential(Scaled()), nn.Sequential(Scaled(), tnn.Dropout(0.1))):
        found = thinned.predict(model.eval(), torch.ones(2, 40), 6, keep=True, outputs="values")
        assert len({round(y.max(), 5) for y in found.samples}) == 6


def test_the_model_and_the_generators_are_left_as_they_were():
    model = nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), tnn.Dropout(0.5), nn.Dropout(0.5)
    ).eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(9)
    before = torch.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()
    thinned.predict(model, X, 10)
    assert torch.equal(before, torch.get_rng_state())
    assert (np.random.get_state()[1] == numpy_before).all()
    assert all(torch.equal(state[n], v) for n, v in model.state_dict().items())
    assert not any(m.training for m in model.modules())


def test_until_stops_by_a_bound_that_holds_at_all_looks():
    from thinned.predictions.statistics import error_bound

    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(2000):
        y = rng.random((1024, 1)) < 0.3
        looks = [y[:n].astype(float) for n in (32, 64, 128, 256, 512, 1024)]
        missed += any(abs(v.mean() - 0.3) > error_bound(v) for v in looks)
    # at most 0.05; a binomial count of 2000 is above 0.064 with a probability below 0.01
    assert missed / 2000 < 0.064
    model = network()
    mean, _, _ = enumerated(model, 0.3)
    found = thinned.predict(model, X, 5000, until=0.05, outputs="logits", batch_size=5)
    assert set(found.passes) <= {32, 64, 128, 256, 512}
    assert len(set(found.passes)) >= 1
    assert np.abs(found.mean - mean).max() < 0.05
    capped = thinned.predict(model, X, 40, until=1e-6, outputs="logits")
    assert set(capped.passes) == {40}


def test_an_interrupt_keeps_what_is_finished():
    model = network()
    calls = []

    def interrupt(module, args):
        calls.append(1)
        if len(calls) == 12:
            raise KeyboardInterrupt

    hook = model[3].register_forward_pre_hook(interrupt)
    with pytest.warns(RuntimeWarning, match="first 10 examples"):
        found = thinned.predict(model, X, 8, batch_size=5)
    assert found.passes.tolist() == [8] * 5 + [3] * 5
    hook.remove()


def shuffled():
    return DataLoader(TensorDataset(X), batch_size=4, shuffle=True)


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = tnn.Dropout(0.5)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        self.count += 1
        return self.drop(x)


@pytest.mark.parametrize(
    ("model", "data", "settings", "message"),
    [
        (lambda: network().train(), X, {}, r"model.eval\(\)"),
        (lambda: nn.Sequential(nn.Linear(4, 3)).eval(), X, {}, "finds no dropout"),
        (lambda: network(p=0.0), X, {}, "its rates are 0"),
        (lambda: Wrapped(network(nn.Dropout, 0.0)).eval(), X, {}, "its rates are 0"),
        (network, X, {"samples": 1}, "samples has to be at least 2"),
        (network, X[:0], {}, "data has no examples"),
        (network, [], {}, "the loader yields no batch"),
        (network, shuffled(), {}, "shuffle=False"),
        (network, torch.full((2, 4), torch.nan), {}, "data holds NaN"),
        (network, [torch.full((2, 4), torch.nan)], {}, "batch 0 holds NaN"),
        (network, torch.full((2, 4), torch.inf), {}, "outputs of the model hold NaN"),
        (lambda: Counts().eval(), X, {}, r"its own buffers \(count\)"),
        (network, X, {"method": "exacty"}, "did you mean 'exact'"),
        (network, X, {"outputs": "probabilities"}, 'outputs="logits"'),
        (network, X, {"outputs": "binary"}, "torch.sigmoid"),
        (network, X, {"outputs": "gaussian"}, "last axis of 2"),
        (network, X, {"outputs": ["logits", "values"]}, "each of the 1 outputs"),
        (network, X, {"method": "geometric"}, "needs probabilities or logits"),
        (network, X, {"until": 0.1, "keep": True}, "leave one of them out"),
        (network, X, {"until": -1.0}, "until has to be above 0"),
        (lambda: network(nn.Dropout), X, {"masks": "shared"}, "thinned.replace"),
        (lambda: network(nn.Dropout), X, {"method": "exact"}, "thinned.replace"),
        (
            lambda: nn.Sequential(tnn.Dropout(0.5)).eval(),
            torch.ones(2, 40),
            {"method": "exact"},
            "at most 16 droppable units",
        ),
        (network, (X, X[:3]), {}, "one row for each example"),
        (network, 3, {}, "but got int"),
        (lambda: nn.Sequential(tnn.Dropout2d(0.5)).eval(), torch.ones(2, 3, 3), {}, "one example"),
    ],
)
def test_bad_input(model, data, settings, message):
    built = model()
    with pytest.raises(thinned.InputError, match=message):
        thinned.predict(built, data, **settings)
    if isinstance(built, Counts):
        assert built.count == 0


def test_inputs_by_name_and_numpy_arrays():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = tnn.Dropout(0.5)

        def forward(self, a, b):
            return self.drop(a) - self.drop(b)

    model = Two().eval()
    x = X.double().numpy()
    named = thinned.predict(model, {"a": x, "b": x}, 16, keep=True)
    placed = thinned.predict(model, (X, X), 16, keep=True)
    np.testing.assert_array_equal(named.samples, placed.samples)
    assert np.abs(placed.samples).max() > 0  # two calls of a layer draw two masks
    loader = DataLoader(TensorDataset(X, X, torch.zeros(20)), batch_size=7)
    np.testing.assert_array_equal(
        thinned.predict(model, loader, 16, keep=True).samples, placed.samples
    )
    swapped = thinned.predict(
        model, loader, 16, keep=True, unpack=lambda batch: {"b": batch[0], "a": batch[1]}
    )
    np.testing.assert_array_equal(swapped.samples, placed.samples)
