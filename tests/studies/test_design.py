"""What a study trains: equal budgets, no duplicates, methods that do what their name says."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from thinned import InputError
from thinned.studies.data import from_arrays, load
from thinned.studies.design import (
    LEVELS,
    Settings,
    choose_lr,
    chunks,
    context,
    epochs_for,
    network,
    pilots,
    usable_methods,
)
from thinned.studies.folds import splits
from thinned.studies.methods import DEFAULT_METHODS, EXTRA_METHODS, STUDY_METHODS, pick
from thinned.train import Cnn, Custom, Mlp

REQUIRED = [
    "none",
    "dropout",
    "classic_dropout",
    "gaussian_dropout",
    "input_dropout",
    "layerwise_dropout",
    "drop_connect",
    "l1",
    "l2",
    "elastic_net",
    "max_norm",
    "batch_norm",
    "batch_norm_dropout",
    "dropout_batch_norm",
    "early_stopping",
    "augmentation",
    "dropout_max_norm",
    "dropout_l2",
    "dropout_early_stopping",
    "dropout_augmentation",
]


@pytest.fixture(scope="module")
def folds():
    return splits(load(None), 5, 1, 0)


def test_all_methods_are_present():
    assert sorted(DEFAULT_METHODS) == sorted(REQUIRED)
    assert set(STUDY_METHODS) == {*REQUIRED, *EXTRA_METHODS}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_every_method_has_the_same_budget(folds, count):
    c = replace(context(Settings(), folds[0], 0, 2e-3), count=count)
    for method in STUDY_METHODS.values():
        found = method.candidates(c)
        assert len(found) == count
        assert len({x.label for x in found}) == len({x.recipe for x in found}) == count


def test_the_default_study_trains_at_least_300_networks(folds):
    planned = chunks(LEVELS["default"], folds, 2e-3)
    jobs = [(c.fold, c.size, j.recipe) for c in planned for j in c.jobs]
    assert len(jobs) >= 300
    assert len(set(jobs)) == len(jobs)
    tags = Counter(
        (t["experiment"], t.get("method"), c.fold) for c in planned for j in c.jobs for t in j.tags
    )
    assert {tags["methods", method, fold] for method in DEFAULT_METHODS for fold in range(5)} == {4}
    assert {e for e, *_ in tags} == {"methods", "rate", "layers", "batch", "optimizer", "size"}


def test_methods_do_what_their_name_says(folds):
    c = context(Settings(), folds[0], 0, 2e-3)
    base = c.base
    recipes = {name: method.candidates(c)[1].recipe for name, method in STUDY_METHODS.items()}
    assert recipes["dropout"].drops[0] is None
    assert recipes["dropout"].drops[1].rate == recipes["dropout"].drops[2].rate > 0
    assert recipes["classic_dropout"].drops[1].scale != recipes["dropout"].drops[1].scale
    assert recipes["input_dropout"].drops[0].rate > 0
    assert len(recipes["input_dropout"].drops) == 1
    assert recipes["drop_connect"].drop_connect > 0
    assert (recipes["elastic_net"].l1 > 0, recipes["elastic_net"].l2 > 0, recipes["l1"].l2) == (
        True,
        True,
        0,
    )
    assert recipes["batch_norm_dropout"].network.order == ("linear", "norm", "act", "drop")
    assert recipes["dropout_batch_norm"].network.order == ("linear", "act", "drop", "norm")
    assert recipes["augmentation"].augment.moves_images
    assert (recipes["dropout_l2"].l2 > 0, recipes["dropout_max_norm"].max_norm > 0) == (True, True)
    for name, recipe in recipes.items():
        same = (recipe.seed, recipe.shuffle, recipe.epochs, recipe.batch_size)
        assert same == (base.seed, base.shuffle, base.epochs, base.batch_size), name
        assert name == "none" or recipe != base


def test_the_learning_rate_is_the_pilots_best(folds):
    planned = pilots(LEVELS["default"], folds)
    assert len(planned) == 5
    assert all(len(c.jobs) == 16 for c in planned)
    assert not {c.name for c in planned} & {c.name for c in chunks(LEVELS["default"], folds, 2e-3)}
    loss = {1e-3: (0.2, 0.4), 2e-3: (0.1, 0.7), 4e-3: (0.3, 0.3), 8e-3: (math.nan, 0.01)}
    records = [
        {"experiment": "pilot", "lr": lr, "scores": {"val": (v, v)}}
        for lr, values in loss.items()
        for v in values
    ]
    assert (
        choose_lr(Settings(), records) == 2e-3
    )  # sqrt(0.1 * 0.7) < sqrt(0.2 * 0.4); a diverged pilot loses
    assert choose_lr(Settings(lr=0.5), []) == 0.5
    assert pilots(Settings(lr=0.5), folds) == []


def test_tables_are_augmented_by_noise():
    rng = np.random.default_rng(0)
    split = splits(from_arrays(rng.random((100, 5)), np.arange(100) % 2, None), 2, 1, 0)[0]
    found = STUDY_METHODS["augmentation"].candidates(context(Settings(), split, 0, 2e-3))
    assert all(x.recipe.augment.noise > 0 and not x.recipe.augment.moves_images for x in found)


def test_epochs_follow_the_rows():
    assert epochs_for(Settings(), 1149) == 45
    assert epochs_for(Settings(), 100) == 200
    assert epochs_for(Settings(), 100_000) == 20
    assert epochs_for(Settings(epochs=7), 100) == 7


def test_pick():
    assert pick((1, 2, 3, 4, 5, 6), 3) == [1, 3, 6]
    assert pick((1, 2, 3), 9) == [1, 2, 3]
    assert pick((1, 2, 3), 1) == [2]


def test_models():
    assert network("mlp") == Mlp((128, 128))
    assert isinstance(network("cnn"), Cnn)
    assert network("a:b") == Custom("a:b")
    with pytest.raises(
        InputError, match=r"unknown model 'mpl'; did you mean 'mlp'.*module:function"
    ):
        network("mpl")


def test_methods_that_cannot_run_have_a_reason(folds):
    names, skipped = usable_methods(Settings(model="my:net"), folds[0])
    with_norm = {"batch_norm", "batch_norm_dropout", "dropout_batch_norm"}
    assert set(skipped) == {*with_norm, "drop_connect"}
    assert not set(names) & set(skipped)
    assert usable_methods(Settings(methods=("l2",)), folds[0])[0] == ["none", "l2"]
    rng = np.random.default_rng(0)
    table = splits(from_arrays(rng.random((100, 5)), rng.random(100), None), 2, 1, 0)[0]
    assert "label_smoothing" in usable_methods(LEVELS["full"], table)[1]


@pytest.mark.parametrize("model", ["wide", "deep", "cnn"])
def test_other_models_are_planned(folds, model):
    planned = chunks(replace(LEVELS["quick"], model=model), folds[:1], 2e-3)
    assert sum(len(c.jobs) for c in planned) > 30


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("dropot",)}, "unknown method 'dropot'; did you mean"),
        ({"folds": 1}, "--folds has to be at least 2, but got 1"),
        ({"seed": -1}, "--seed has to be at least 0"),
        ({"lr": 0.0}, "--lr has to be above 0"),
    ],
)
def test_refused(changes, message):
    with pytest.raises(InputError, match=message):
        Settings(**changes)
