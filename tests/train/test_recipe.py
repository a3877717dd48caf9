"""Recipes: normalized values, and an error for each invalid one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from thinned import InputError
from thinned.train import (
    Augment,
    Cnn,
    Custom,
    Mlp,
    Optimizer,
    Recipe,
    Split,
    fit,
    fit_population,
    rows,
)

from .common import BASE, SMALL, VARIANTS, blobs

TRAIN = (lambda recipe: fit(blobs(), recipe), lambda recipe: fit_population(blobs(), [recipe]))


def test_lists_are_tuples():
    recipe = Recipe(
        Mlp([10, 6]), drops=[None], optimizer=Optimizer(layer_lr=[0.1, 1.0]), seed=np.int64(3)
    )
    assert recipe == Recipe(SMALL, (None,), optimizer=Optimizer(layer_lr=(0.1, 1.0)), seed=3)
    assert hash(recipe) == hash(recipe.at())
    assert Cnn([4], 8) == Cnn((4,), 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Optimizer("adm"), "unknown optimizer 'adm'; did you mean 'adam'"),
        (lambda: Optimizer(lr=-1), "lr has to be at least 0, but got -1"),
        (lambda: Optimizer(lr=math.nan), "lr has to be a finite number"),
        (lambda: Optimizer(nesterov=True), "nesterov needs a momentum above 0"),
        (lambda: Optimizer(decay="linear"), "unknown decay 'linear'"),
        (lambda: Optimizer(warmup=1.5), "warmup is a fraction"),
        (lambda: Mlp(()), "hidden has to be one or more widths"),
        (lambda: Mlp((8,), "rellu"), "unknown activation 'rellu'; did you mean 'relu'"),
        (lambda: Mlp((8,), order=("act", "linear")), "order has to start with 'linear'"),
        (
            lambda: Recipe(SMALL, drops=(None,) * 4),
            "drops has 4 specs, but the network has only the input and 2 hidden layers",
        ),
        (lambda: Recipe(max_norm=0), "max_norm has to be above 0"),
        (lambda: Recipe(label_smoothing=1.0), "label_smoothing has to be below 1"),
        (lambda: Recipe(epochs=0), "epochs has to be at least 1"),
        (lambda: Recipe(epochs=1.5), "epochs has to be a whole number, but got 1.5"),
        (lambda: Recipe(batch_size=20.0), "batch_size has to be a whole number"),
        (lambda: Recipe(patience=1.5), "patience has to be a whole number"),
        (lambda: Recipe(seed=1.5), "seed has to be a whole number"),
        (lambda: Recipe(shuffle=-1), "shuffle has to be at least 0, but got -1"),
        (lambda: Recipe(drops=(0.5,)), "drops has to hold dropout specs .* or None, but got 0.5"),
        (
            lambda: Recipe(Custom("a:b"), drop_connect=0.5),
            "drop_connect needs the activation .* of a built-in network",
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
            lambda: BASE.at(drop_connect=0.5, network=Mlp((8,), order=("linear", "norm", "act"))),
            "drop_connect needs the activation",
        ),
    ],
)
def test_invalid_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
