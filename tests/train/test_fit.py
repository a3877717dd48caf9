"""The training loop: early stopping, divergence, problems that it reports, and scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from thinned import InputError, sampling
from thinned.train import (
    Mlp,
    Optimizer,
    Recipe,
    Split,
    Task,
    fit,
    fit_population,
)
from thinned.train.fit import mean_losses

from .common import BASE, VARIANTS, blobs, d


def test_label_smoothing_is_torchs():
    out, y = torch.randn(1, 9, 4), torch.randint(0, 4, (9,))
    expected = torch.nn.functional.cross_entropy(out[0], y, label_smoothing=0.2)
    torch.testing.assert_close(
        mean_losses(out, y, Task("classification", 4), torch.tensor([0.2]))[0], expected
    )


def test_early_stopping_restores_the_best_weights():
    split = blobs(task="classification")
    done = fit(
        split, BASE.at(network=Mlp((64,)), optimizer=Optimizer(lr=0.03), epochs=60, patience=5)
    )
    history = done.history["val_loss"]
    assert done.stopped_early
    assert done.epochs == done.best_epoch + 6 < 60
    assert done.scores["val"].loss == pytest.approx(min(history), rel=1e-5)
    assert history[-1] > min(history)
    # without patience the last weights are kept, and they are worse
    whole = fit(split, BASE.at(network=Mlp((64,)), optimizer=Optimizer(lr=0.03), epochs=60))
    assert whole.epochs == 60
    assert whole.scores["val"].loss > done.scores["val"].loss


def test_divergence_is_reported_and_leaves_others_alone():
    wild = BASE.at(optimizer=Optimizer("sgd", 1e8))
    tame = BASE.at(optimizer=Optimizer("sgd", 0.1))
    a, b = fit_population(blobs(), [wild, tame])
    assert a.diverged is not None
    assert a.flags()[0].startswith("diverged in epoch")
    assert not a.stopped_early
    alone = fit(blobs(), tame)
    np.testing.assert_allclose(b.history["val_loss"], alone.history["val_loss"], rtol=1e-4)
    assert b.diverged is None


def test_divergence_in_the_last_step_is_reported():
    """The minibatch losses are taken before their steps, so that only the evaluations show the last
    step.
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
    assert (last.stopped_early, before.stopped_early) == (False, True)
    assert last.scores == before.scores == early.scores


def test_a_trained_module_has_no_key():
    """More training and Monte Carlo dropout need no step, whether it was trained alone or not."""
    split, recipe = blobs(), VARIANTS["dropout"]
    for done in (fit(split, recipe), fit_population(split, [recipe])[0]):
        net = done.module()
        with sampling(net):
            assert not torch.equal(net(split.val.x), net(split.val.x))
        assert net.train()(split.val.x[:3]).isfinite().all()


def test_networks_of_any_layers():
    """Without a weight layer; with a frozen first layer, where missing gradients do not count as
    vanishing; without any parameter.
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


def test_vanishing_gradients_are_seen():
    deep = Recipe(Mlp((12,) * 8, activation="sigmoid"), epochs=3, batch_size=20)
    assert any("vanishing" in f for f in fit(blobs(), deep).flags())
    assert not fit(blobs(), BASE).flags()


def test_exploding_gradients_are_seen():
    steep = BASE.at(optimizer=Optimizer("sgd", 30.0), epochs=2)
    flags = fit(blobs(task="regression"), steep).flags()
    assert any("exploding" in f or "diverged" in f for f in flags)


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


def test_masks_are_keyed_by_sample_ids():
    """The masks of a row are a function of its id: where a batch is the whole set, the order of the
    rows does not matter.
    """
    split = blobs(n=50)
    turned = torch.arange(len(split.train) - 1, -1, -1)
    other = Split(split.task, split.train.take(turned), split.val)
    recipe = BASE.at(drops=(d(0.2), d(0.5), d(0.5)), batch_size=100)
    a, b = fit(split, recipe), fit(other, recipe)
    np.testing.assert_allclose(a.history["loss"], b.history["loss"], rtol=1e-5)
