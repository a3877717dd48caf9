"""Training: a population equals its members alone; torch's optimizers; regularizers by their
formulas; monitors.
"""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch

from thinned import InputError, presets, sampling
from thinned.train import (
    Augment,
    Cnn,
    Custom,
    Mlp,
    Optimizer,
    Recipe,
    Split,
    Task,
    fit,
    fit_population,
    rows,
)
from thinned.train.augment import augment
from thinned.train.data import order
from thinned.train.fit import batches, grouped, losses
from thinned.train.networks import Placed, build
from thinned.train.stack import Stack, _Normalise
from thinned.train.trainee import Solo
from thinned.train.updates import Updates, rate_factor


def blobs(n=203, features=12, classes=3, seed=0, task="classification", image=None):
    """Gaussian blobs that overlap; the validation rows are the last fifth."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, features))
    y = rng.integers(0, classes, n)
    x = centres[y] + 1.2 * rng.normal(size=(n, features))
    kind = Task(task, classes)
    if task == "regression":
        y = np.sin(x[:, 0]) + 0.5 * x[:, 1] + 0.1 * rng.normal(size=n)
        kind = Task(task, 1, scale=float(y.std()))
        y = (y - y.mean()) / y.std()
    cut = n - n // 5
    return Split(
        kind, rows(x[:cut], y[:cut]), rows(x[cut:], y[cut:], np.arange(cut, n)), image=image
    )


SMALL = Mlp((10, 6))
d = presets.dropout
BASE = Recipe(SMALL, optimizer=Optimizer(lr=5e-3), epochs=3, batch_size=20)
VARIANTS = {
    "plain": BASE,
    "dropout": BASE.at(drops=(d(0.2), d(0.5), d(0.3))),
    "hidden-only": BASE.at(drops=(None, d(0.5), d(0.5))),
    "classic": BASE.at(drops=(d(0.1, "classic"), d(0.5, "classic"), None)),
    "gaussian": BASE.at(drops=(None, presets.gaussian_dropout(0.4), presets.gaussian_dropout(0.2))),
    "uniform": BASE.at(drops=(None, presets.uniform_dropout(0.5), presets.uniform_dropout(0.2))),
    "everything": BASE.at(drops=(None, d(1.0), None)),
    "dropconnect": BASE.at(connect=0.4),
    "dropconnect-light": BASE.at(connect=0.1),
    "l1": BASE.at(l1=1e-3),
    "l2": BASE.at(l2=1e-2, l1=1e-4),
    "max-norm": BASE.at(max_norm=0.5),
    "clip": BASE.at(clip=0.05),
    "smoothing": BASE.at(label_smoothing=0.1),
    "slow": BASE.at(optimizer=Optimizer(lr=1e-3, weight_decay=0.1)),
    "layers": BASE.at(optimizer=Optimizer(lr=5e-3, layer_lr=(0.1, 1.0))),
    "patience": BASE.at(patience=1, optimizer=Optimizer(lr=0.1)),
    "other-seed": BASE.at(seed=3, drops=(d(0.2), d(0.5), d(0.3))),
    "noisy": BASE.at(augment=Augment(noise=0.3)),
    "noisy-other-seed": BASE.at(augment=Augment(noise=0.3), seed=3),
    "norm": BASE.at(
        network=Mlp((10, 6), order=("linear", "norm", "act", "drop")), drops=(None, d(0.5), d(0.2))
    ),
    "norm-after": BASE.at(
        network=Mlp((10, 6), order=("linear", "act", "norm", "drop")), drops=(None, d(0.5))
    ),
    "drop-norm": BASE.at(
        network=Mlp((10, 6), order=("linear", "act", "drop", "norm")), drops=(None, d(0.5), d(0.2))
    ),
    "tanh": BASE.at(network=Mlp((7,), activation="tanh"), connect=0.3),
    **{
        f"opt-{n}": BASE.at(optimizer=Optimizer(n))
        for n in ("adamw", "rmsprop", "adadelta", "adagrad", "sgd")
    },
    "nesterov": BASE.at(
        optimizer=Optimizer("sgd", 0.05, momentum=0.9, nesterov=True, warmup=0.2, decay="cosine")
    ),
}


@pytest.fixture(scope="module")
def population():
    recipes = list(VARIANTS.values())
    return dict(zip(VARIANTS, fit_population(blobs(), recipes), strict=True))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_member_equals_the_same_recipe_alone(population, name):
    equal(population[name], fit(blobs(), VARIANTS[name]))


def equal(member, alone):
    """Weights, batches and masks are the same; what is left is the rounding of batched products."""
    for key in alone.history:
        one_row = (
            0.03 if key.endswith("metric") else 0.0
        )  # a row on the boundary may fall either way
        np.testing.assert_allclose(
            member.history[key], alone.history[key], rtol=2e-3, atol=2e-4 + one_row, err_msg=key
        )
    np.testing.assert_allclose(member.gradients, alone.gradients, rtol=2e-2, atol=2e-4)
    assert (member.epochs, member.best, member.stopped) == (alone.epochs, alone.best, alone.stopped)
    assert member.diverged == alone.diverged
    x = blobs().val.x
    torch.testing.assert_close(member.module()(x), alone.module()(x), rtol=2e-3, atol=2e-3)


def test_arms_differ(population):
    """The variants are not the same network under other names."""
    finals = [tuple(np.round(p.history["val_loss"], 7)) for p in population.values()]
    assert len(set(finals)) == len(finals)


def test_groups_hold_everything_once():
    groups = grouped(list(VARIANTS.values()))
    assert sorted(i for g in groups for i in g) == list(range(len(VARIANTS)))
    assert max(map(len, groups)) > 10


def test_stack_evaluates_as_its_modules():
    split = blobs()
    stack = Stack([VARIANTS["dropout"], VARIANTS["classic"]], split)
    both = stack.evaluate(split.val.x)
    for m in range(2):
        torch.testing.assert_close(stack.module(m)(split.val.x), both[m])


def test_normalise_gradient():
    h, gamma, beta = (
        torch.randn(s, dtype=torch.float64, requires_grad=True)
        for s in ((2, 7, 3), (2, 1, 3), (2, 1, 3))
    )
    assert torch.autograd.gradcheck(lambda *a: _Normalise.apply(*a)[0], (h, gamma, beta))
    layer = torch.nn.BatchNorm1d(3).double()
    torch.testing.assert_close(
        _Normalise.apply(h, torch.ones(2, 1, 3), torch.zeros(2, 1, 3))[0][1], layer(h[1])
    )


# --- Optimizers, against torch's own loop
# --------------------------------------------------------------------------


def plain_loop(split, recipe, make, penalty=lambda net: 0.0, after=lambda net: None):
    net = build(recipe, split)
    optimizer = make(net)
    for epoch in range(recipe.epochs):
        seen = split.train.take(order(len(split.train), recipe.shuffle, epoch))
        for start, stop in batches(len(split.train), recipe.batch_size):
            optimizer.zero_grad()
            out = net(seen.x[start:stop])
            loss = torch.nn.functional.cross_entropy(
                out, seen.y[start:stop], label_smoothing=recipe.label_smoothing
            )
            (loss + penalty(net)).backward()
            optimizer.step()
            after(net)
    return net


def same_weights(recipe, make, **more):
    split = blobs()
    expected = plain_loop(split, recipe, make, **more)
    got = fit(split, recipe).module()
    for (name, a), (_, b) in zip(expected.named_parameters(), got.named_parameters(), strict=True):
        torch.testing.assert_close(
            a, b, rtol=1e-4, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}"
        )


TORCH = {
    "sgd": (Optimizer("sgd", 0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": (
        Optimizer("sgd", 0.1, momentum=0.9),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    ),
    "nesterov": (
        Optimizer("sgd", 0.1, 0.9, True),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    ),
    "adam": (Optimizer("adam", 0.01), lambda p: torch.optim.Adam(p, 0.01)),
    "rmsprop": (
        Optimizer("rmsprop", 0.01, 0.5),
        lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.5),
    ),
    "adadelta": (Optimizer("adadelta", 1.0), lambda p: torch.optim.Adadelta(p, 1.0)),
    "adagrad": (Optimizer("adagrad", 0.05), lambda p: torch.optim.Adagrad(p, 0.05)),
}


@pytest.mark.parametrize("name", TORCH)
def test_optimizers_are_torchs(name):
    ours, theirs = TORCH[name]
    same_weights(BASE.at(optimizer=ours), lambda net: theirs(net.parameters()))


def test_adamw_is_torchs_on_weights():
    def make(net):
        weights = [p for p in net.parameters() if p.dim() > 1]
        others = [p for p in net.parameters() if p.dim() == 1]
        groups = [{"params": weights, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=0.01)

    same_weights(BASE.at(optimizer=Optimizer("adamw", 0.01, weight_decay=0.1)), make)
    assert (Optimizer("adamw").shrink, Optimizer("adam").shrink) == (0.01, 0.0)


def test_differential_learning_rates():
    def make(net):
        return torch.optim.SGD(
            [
                {"params": layer.parameters(), "lr": lr}
                for layer, lr in zip(
                    (net.linear1, net.linear2, net.linear3), (0.01, 0.1, 0.1), strict=True
                )
            ]
        )

    same_weights(BASE.at(optimizer=Optimizer("sgd", 0.1, layer_lr=(0.1, 1.0))), make)


def test_schedule():
    opt = Optimizer(warmup=0.1, decay="cosine")
    factors = [rate_factor(opt, s, 100) for s in range(100)]
    assert factors[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert 0 < factors[-1] < 1e-3
    assert {rate_factor(Optimizer(), s, 100) for s in range(100)} == {1.0}
    history = fit(blobs(), BASE.at(optimizer=Optimizer(lr=0.01, decay="cosine"))).history["lr"]
    assert history[0] > history[1] > history[2]


# --- Regularizers, against their formulas
# --------------------------------------------------------------------------


def weights(net):
    return [p for p in net.parameters() if p.dim() > 1]


@pytest.mark.parametrize(("l1", "l2"), [(1e-2, 0.0), (0.0, 1e-2), (3e-3, 5e-3)])
def test_penalties(l1, l2):
    """l1 * sum|W| + l2 * sum W^2 by autograd; both: elastic net."""
    same_weights(
        BASE.at(l1=l1, l2=l2, optimizer=Optimizer("sgd", 0.1)),
        lambda net: torch.optim.SGD(net.parameters(), 0.1),
        penalty=lambda net: sum(l1 * w.abs().sum() + l2 * w.square().sum() for w in weights(net)),
    )


def test_max_norm():
    def project(net):
        with torch.no_grad():
            for layer in (net.linear1, net.linear2):
                layer.weight.copy_(torch.renorm(layer.weight, 2, 0, 0.4))

    same_weights(
        BASE.at(max_norm=0.4, optimizer=Optimizer("sgd", 0.3)),
        lambda net: torch.optim.SGD(net.parameters(), 0.3),
        after=project,
    )
    lengths = (
        fit(blobs(), BASE.at(max_norm=0.4, optimizer=Optimizer("sgd", 0.3)))
        .module()
        .linear1.weight.norm(dim=1)
    )
    assert lengths.max() <= 0.4 + 1e-6
    assert lengths.max() > 0.39


def test_clip():
    def make(net):
        optimizer = torch.optim.SGD(net.parameters(), 1.0)
        step = optimizer.step

        def clipped():
            torch.nn.utils.clip_grad_norm_(net.parameters(), 0.05)
            step()

        optimizer.step = clipped
        return optimizer

    same_weights(BASE.at(clip=0.05, optimizer=Optimizer("sgd", 1.0)), make)


def test_label_smoothing_is_torchs():
    out, y = torch.randn(1, 9, 4), torch.randint(0, 4, (9,))
    expected = torch.nn.functional.cross_entropy(out[0], y, label_smoothing=0.2)
    torch.testing.assert_close(
        losses(out, y, Task("classification", 4), torch.tensor([0.2]))[0], expected
    )


def test_early_stopping_restores_the_best_weights():
    split = blobs(task="classification")
    done = fit(
        split, BASE.at(network=Mlp((64,)), optimizer=Optimizer(lr=0.03), epochs=60, patience=5)
    )
    history = done.history["val_loss"]
    assert done.stopped
    assert done.epochs == done.best + 6 < 60
    assert done.scores["val"].loss == pytest.approx(min(history), rel=1e-5)
    assert history[-1] > min(history)
    # without patience the last weights stay, and they are worse
    whole = fit(split, BASE.at(network=Mlp((64,)), optimizer=Optimizer(lr=0.03), epochs=60))
    assert whole.epochs == 60
    assert whole.scores["val"].loss > done.scores["val"].loss


def test_divergence_is_reported_and_stays_alone():
    wild = BASE.at(optimizer=Optimizer("sgd", 1e8))
    tame = BASE.at(optimizer=Optimizer("sgd", 0.1))
    a, b = fit_population(blobs(), [wild, tame])
    assert a.diverged is not None
    assert a.flags()[0].startswith("diverged in epoch")
    assert not a.stopped
    alone = fit(blobs(), tame)
    np.testing.assert_allclose(b.history["val_loss"], alone.history["val_loss"], rtol=1e-4)
    assert b.diverged is None


def test_a_diverged_member_ends_as_it_would_alone():
    """Weights that decay by a factor of -1.3 a step: the loss passes the bound early, long before
    it stops being a number.
    """
    wild = BASE.at(optimizer=Optimizer("adam", 1e-2, weight_decay=230.0), epochs=7)
    member, alone = fit_population(blobs(), [wild, BASE.at(epochs=7)])[0], fit(blobs(), wild)
    assert member.diverged == alone.diverged < 6
    for (_, a), (_, b) in zip(
        member.module().named_parameters(), alone.module().named_parameters(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=2e-2, atol=1e-3)
    assert member.scores["val"].loss == pytest.approx(alone.scores["val"].loss, rel=2e-2)


def test_divergence_in_the_last_step_is_reported():
    """The minibatch losses are taken before their steps, so that the last step shows in the
    evaluations alone.
    """
    once = BASE.at(optimizer=Optimizer("sgd", 1e30), epochs=1, batch_size=1000)
    for done in (
        fit(blobs(), once),
        fit_population(blobs(), [once, BASE.at(epochs=1, batch_size=1000)])[0],
    ):
        assert math.isfinite(done.history["loss"][0])
        assert done.diverged == 0


def test_patience_that_runs_out_in_the_last_epoch_stops_nothing():
    recipe = BASE.at(network=Mlp((64,)), optimizer=Optimizer(lr=0.03), epochs=60, patience=5)
    early = fit(blobs(), recipe)
    last, before = (fit(blobs(), recipe.at(epochs=early.epochs + more)) for more in (0, 1))
    assert (last.stopped, before.stopped) == (False, True)
    assert last.scores == before.scores == early.scores


class Gated(torch.nn.Module):
    """Two layers, of which ``gate`` acts in the first step alone."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.main, self.gate, self.steps = torch.nn.Linear(12, 3), torch.nn.Linear(12, 3), 0

    def forward(self, x):
        self.steps += self.training
        return self.main(x) + self.gate(x) if self.steps == 1 else self.main(x)


def test_a_parameter_without_a_gradient_rests():
    recipe = BASE.at(optimizer=Optimizer("adamw", 0.01, weight_decay=0.1))
    net, first = Gated(), Gated()
    fit(blobs(), recipe.at(epochs=1, batch_size=1000), first)
    fit(blobs(), recipe.at(epochs=2, batch_size=1000), net)
    assert torch.equal(net.gate.weight, first.gate.weight)
    assert not torch.equal(net.main.weight, first.main.weight)


def test_a_members_clip_and_smoothing_leave_its_neighbours_alone():
    """Gradients whose norm is inf are not clipped to NaN, and losses of inf not smoothed to NaN,
    where nobody asked.
    """
    stack = Stack([BASE, BASE.at(clip=1.0)], blobs())
    updates = Updates(stack, 1)
    for part in stack.parts:
        part.tensor.grad = torch.full_like(part.tensor, 1e30)
    updates._clip(updates.clip)
    assert all(
        torch.equal(part.tensor.grad[0], torch.full_like(part.tensor[0], 1e30))
        for part in stack.parts
    )
    out = torch.tensor([3e38, -3e38]).expand(2, 1, 2)
    loss = losses(out, torch.tensor([0]), Task("classification", 2), torch.tensor([0.0, 0.1]))
    assert loss.tolist() == [0.0, math.inf]


def test_a_trained_module_has_no_key():
    """More training and Monte Carlo dropout need no step from its new owner, whoever trained it."""
    split, recipe = blobs(), VARIANTS["dropout"]
    for done in (fit(split, recipe), fit_population(split, [recipe])[0]):
        net = done.module()
        with sampling(net):
            assert not torch.equal(net(split.val.x), net(split.val.x))
        assert net.train()(split.val.x[:3]).isfinite().all()


def test_networks_of_any_layers():
    """Without a weight layer; with a frozen first layer, whose missing gradients are not called
    vanishing; with nothing.
    """
    norm = torch.nn.BatchNorm1d(12)
    assert len(fit(blobs(), BASE, torch.nn.Sequential(norm, torch.nn.Flatten())).gradients[0]) == 1
    frozen = torch.nn.Sequential(
        torch.nn.Linear(12, 8).requires_grad_(False), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    )
    done = fit(blobs(), BASE, frozen)
    assert done.flags() == []
    assert len(done.gradients[0]) == 1
    with pytest.raises(InputError, match="no parameter to train"):
        fit(blobs(), BASE, torch.nn.Identity())


@pytest.mark.parametrize("groups", [1, 2])
def test_max_norm_of_transposed_convolutions(groups):
    """An output's response to unit inputs, one at a time, is its incoming weights: their length is
    the limit's.
    """
    torch.manual_seed(0)
    layer = torch.nn.ConvTranspose1d(4, 6, 3, groups=groups, bias=False)
    net = torch.nn.Sequential(
        torch.nn.Unflatten(1, (4, 3)), layer, torch.nn.Flatten(), torch.nn.Linear(30, 3)
    )
    fit(blobs(), BASE.at(max_norm=0.2, optimizer=Optimizer("sgd", 0.1)), net)
    with torch.no_grad():
        lengths = layer(torch.eye(4)[:, :, None]).square().sum((0, 2)).sqrt()  # [out]
    torch.testing.assert_close(lengths, torch.full((6,), 0.2))


# --- The user's own networks
# ---------------------------------------------------------------------------------------


class Attentive(torch.nn.Module):
    """Attention, recurrence, and a layer that is called by keyword."""

    def __init__(self):
        super().__init__()
        self.attention = torch.nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True)
        self.recurrent = torch.nn.LSTM(4, 5, 2, dropout=0.5, batch_first=True)
        self.last = torch.nn.Linear(5, 3)

    def forward(self, x):
        x = x.unflatten(1, (3, 4))
        x = self.attention(x, x, x)[0]
        return self.last(input=self.recurrent(x)[0][:, -1])


def test_placed_governs_all_dropout():
    x = blobs().val.x
    quiet = Placed(Attentive(), BASE, None).train()
    assert torch.equal(quiet(x), quiet(x))
    loud = Placed(Attentive(), BASE.at(drops=(d(0.5),)), None).train()
    assert len(loud.drops) == 1
    assert not torch.equal(loud(x), loud(x))


def test_copies_of_placed_have_their_own_hosts():
    x = blobs().val.x
    placed = Placed(Attentive(), BASE.at(drops=(d(0.5),)), None).train()
    for twin in (copy.deepcopy(placed), pickle.loads(pickle.dumps(placed))):  # noqa: S301
        twin.drops[0].p = 0.0
        assert torch.equal(twin(x), twin(x))
        assert not torch.equal(placed(x), placed(x))


def test_vanishing_gradients_are_seen():
    deep = Recipe(Mlp((12,) * 8, activation="sigmoid"), epochs=3, batch_size=20)
    assert any("vanishing" in f for f in fit(blobs(), deep).flags())
    assert not fit(blobs(), BASE).flags()


def test_exploding_gradients_are_seen():
    steep = BASE.at(optimizer=Optimizer("sgd", 30.0), epochs=2)
    flags = fit(blobs(task="regression"), steep).flags()
    assert any("exploding" in f or "diverged" in f for f in flags)


def test_dead_units_are_seen():
    """Biases far below zero kill 3 of 10 and 2 of 6 units, in a network alone and in a population."""
    split, recipe = blobs(), BASE.at(drops=(None, d(0.5)))
    alone, stack = Solo(recipe, split), Stack([BASE, recipe], split)
    with torch.no_grad():
        alone.net.linear1.bias[:3] = -1e3
        alone.net.linear2.bias[:2] = -1e3
        stack.biases[0][1, 0, :3] = -1e3
        stack.biases[1][1, 0, :2] = -1e3
        few = BASE.at(network=Mlp((10, 6), "tanh"))
        living = Solo(BASE, split).dead(split.val.x)[0]
        assert alone.dead(split.val.x)[0] == pytest.approx(5 / 16, abs=living + 1e-6)
        assert stack.dead(split.val.x) == pytest.approx([living, alone.dead(split.val.x)[0]])
        assert math.isnan(Stack([few], split).dead(split.val.x)[0])
        assert math.isnan(Solo(few, split).dead(split.val.x)[0])


def test_regression_is_scored_in_its_own_unit():
    split = blobs(task="regression")
    done = fit(split, BASE.at(network=Mlp((40,)), epochs=30))
    y = done.module()(split.val.x)[:, 0]
    expected = (y - split.val.y).square().mean().sqrt().item() * split.task.scale
    assert done.scores["val"].metric == pytest.approx(expected, rel=1e-5)
    assert done.scores["val"].loss == pytest.approx((expected / split.task.scale) ** 2, rel=1e-5)
    assert done.scores["val"].metric < 0.7 * split.task.scale


def test_training_learns():
    split = blobs(n=600)
    done = fit(split, BASE.at(network=Mlp((32,)), epochs=20))
    majority = 1 - split.val.y.bincount().max().item() / len(split.val)
    assert done.scores["val"].metric < 0.5 * majority
    assert done.gap == done.history["val_loss"][-1] - done.history["train_loss"][-1]


def test_rows_know_their_masks():
    """A row's masks go with its id: the order of rows in the file does not matter when batches are
    the whole set.
    """
    split = blobs(n=50)
    turned = torch.arange(len(split.train) - 1, -1, -1)
    other = Split(split.task, split.train.take(turned), split.val)
    recipe = BASE.at(drops=(d(0.2), d(0.5), d(0.5)), batch_size=100)
    a, b = fit(split, recipe), fit(other, recipe)
    np.testing.assert_allclose(a.history["loss"], b.history["loss"], rtol=1e-5)


def test_cnn_and_population_fall_back_to_one_by_one():
    split = blobs(features=64, image=(1, 8, 8))
    orders = (("linear", "act", "drop"), ("linear", "norm", "act", "drop"))
    recipes = [
        Recipe(Cnn((4, 6), 16, o), (d(0.1), d(0.2), d(0.2), d(0.5)), epochs=2, connect=c)
        for o in orders
        for c in (0.0,)
    ]
    results = fit_population(split, [*recipes, Recipe(Cnn((4,), 8), connect=0.4, epochs=2)])
    assert all(np.isfinite(r.history["val_loss"]).all() for r in results)
    assert results[0].module()(split.val.x).shape == (len(split.val), 3)


# --- Augmentation
# --------------------------------------------------------------------------------------------------


def test_augment_zero_is_identity_and_draws_belong_to_rows():
    x, ids = torch.randn(6, 64), torch.arange(6)
    same = augment(x, [Augment(), Augment(noise=0.5)], (1, 8, 8), 0, 3, ids)
    assert torch.equal(same[0], x)
    assert not torch.equal(same[1], x)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    moved = [Augment(shift=2, rotate=20, noise=0.1)]
    torch.testing.assert_close(
        augment(x[order], moved, (1, 8, 8), 0, 3, ids[order]),
        augment(x, moved, (1, 8, 8), 0, 3, ids)[:, order],
    )
    assert not torch.equal(
        augment(x, moved, (1, 8, 8), 0, 4, ids), augment(x, moved, (1, 8, 8), 0, 3, ids)
    )


def test_augment_moves_pixels_as_told(monkeypatch):
    """With the draw fixed at 1: a shift of 2 pixels moves the picture by 2, a rotation of 90
    degrees turns it.
    """
    from thinned.train import augment as module

    picture = torch.arange(30.0).view(1, 30)
    shape = (1, 5, 6)
    image = picture.view(5, 6)
    monkeypatch.setattr("thinned.train.augment.uniform", lambda w: torch.tensor([[1.0, 0.0, 0.0]]))
    out = module.augment(picture, [Augment(shift=2)], shape, 0, 0, torch.arange(1)).view(5, 6)
    torch.testing.assert_close(out[:, :4], image[:, 2:])
    monkeypatch.setattr("thinned.train.augment.uniform", lambda w: torch.tensor([[0.0, 1.0, 0.0]]))
    out = module.augment(picture, [Augment(shift=1)], shape, 0, 0, torch.arange(1)).view(5, 6)
    torch.testing.assert_close(out[:4], image[1:])
    square = torch.arange(25.0).view(1, 25)
    monkeypatch.setattr("thinned.train.augment.uniform", lambda w: torch.tensor([[0.0, 0.0, 1.0]]))
    out = module.augment(square, [Augment(rotate=90)], (1, 5, 5), 0, 0, torch.arange(1)).view(5, 5)
    turned = [torch.rot90(square.view(5, 5), k) for k in (1, -1)]
    assert any(torch.allclose(out, t, atol=1e-4) for t in turned)


# --- Bad input
# -----------------------------------------------------------------------------------------------------

TRAIN = (lambda recipe: fit(blobs(), recipe), lambda recipe: fit_population(blobs(), [recipe]))


def test_lists_are_tuples():
    recipe = Recipe(
        Mlp([10, 6]), drops=[None], optimizer=Optimizer(layer_lr=[0.1, 1.0]), seed=np.int64(3)
    )
    assert recipe == Recipe(SMALL, (None,), optimizer=Optimizer(layer_lr=(0.1, 1.0)), seed=3)
    assert hash(recipe) == hash(recipe.at())
    assert Cnn([4], 8) == Cnn((4,), 8)


@pytest.mark.parametrize(
    ("build_it", "message"),
    [
        (lambda: Optimizer("adm"), "unknown optimizer 'adm'; did you mean 'adam'"),
        (lambda: Optimizer(lr=-1), "lr has to be at least 0, but got -1"),
        (lambda: Optimizer(lr=math.nan), "lr has to be a finite number"),
        (lambda: Optimizer(nesterov=True), "nesterov needs a momentum above 0"),
        (lambda: Optimizer(decay="linear"), "unknown decay 'linear'"),
        (lambda: Optimizer(warmup=1.5), "warmup is a share"),
        (lambda: Mlp(()), "hidden has to be one or more widths"),
        (lambda: Mlp((8,), "rellu"), "unknown activation 'rellu'; did you mean 'relu'"),
        (lambda: Mlp((8,), order=("act", "linear")), "order has to start with 'linear'"),
        (
            lambda: Recipe(SMALL, drops=(None,) * 4),
            "drops has 4 places, but there are the input and 2 hidden layers",
        ),
        (lambda: Recipe(max_norm=0), "max_norm has to be above 0"),
        (lambda: Recipe(label_smoothing=1.0), "label_smoothing has to be below 1"),
        (lambda: Recipe(epochs=0), "epochs has to be at least 1"),
        (lambda: Recipe(epochs=1.5), "epochs has to be a whole number, but got 1.5"),
        (lambda: Recipe(batch_size=20.0), "batch_size has to be a whole number"),
        (lambda: Recipe(patience=1.5), "patience has to be a whole number"),
        (lambda: Recipe(seed=1.5), "seed has to be a whole number"),
        (lambda: Recipe(shuffle=-1), "shuffle has to be at least 0, but got -1"),
        (lambda: Recipe(drops=(0.5,)), "drops has to hold points or None, but got 0.5"),
        (
            lambda: Recipe(Custom("a:b"), connect=0.5),
            "connect needs the activation .* of a built-in network",
        ),
        (lambda: Mlp(8), "hidden has to be a tuple, but got 8"),
        (lambda: Mlp((8.5,)), "a hidden width has to be a whole number"),
        (lambda: Optimizer(layer_lr=(1.0, -0.1)), "a factor of layer_lr has to be at least 0"),
        (
            lambda: rows(np.ones((2, 2)), np.array([1, np.nan])),
            "y holds values that are not finite",
        ),
        (lambda: rows(np.ones((2, 2)), np.ones((2, 1))), r"y has to be 1-d, .* got shape \[2, 1\]"),
        *(
            (
                lambda train=train: train(VARIANTS["norm"].at(batch_size=1)),
                "batches of at least 2 rows",
            )
            for train in TRAIN
        ),
        (lambda: Augment(shift=-1), "shift has to be at least 0"),
        (lambda: rows(np.ones((3, 2)), np.ones(2)), "x has 3 rows, but y has 2"),
        (lambda: rows(np.array([[np.nan]]), np.ones(1)), "x holds values that are not finite"),
        (
            lambda: fit(blobs(task="regression"), BASE.at(label_smoothing=0.1)),
            "label_smoothing is for classification",
        ),
        (lambda: fit(blobs(), BASE.at(augment=Augment(shift=1))), "are for images"),
        (lambda: fit(blobs(), BASE.at(network=Cnn())), "model 'cnn' needs images"),
        (
            lambda: fit(Split(blobs().task, blobs().train, blobs().val.take(slice(0))), BASE),
            "rows to train on and to validate on",
        ),
        (
            lambda: BASE.at(connect=0.5, network=Mlp((8,), order=("linear", "norm", "act"))),
            "connect needs the activation",
        ),
    ],
)
def test_refused(build_it, message):
    with pytest.raises(InputError, match=message):
        build_it()
