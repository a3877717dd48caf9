"""What a study trains: equal budgets, nothing twice, arms that do what their name says."""

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
    chosen_lr,
    chunks,
    context,
    epochs_for,
    network,
    pilots,
    usable,
)
from thinned.studies.folds import splits
from thinned.studies.methods import ARMS, DEFAULT_ARMS, EXTRA_ARMS, pick
from thinned.train import Cnn, Custom, Mlp

REQUIRED = [
    "none",
    "dropout",
    "classic",
    "gaussian",
    "input",
    "layers",
    "dropconnect",
    "l1",
    "l2",
    "elastic",
    "max-norm",
    "bn",
    "bn-dropout",
    "dropout-bn",
    "early-stopping",
    "augment",
    "dropout+max-norm",
    "dropout+l2",
    "dropout+early-stopping",
    "dropout+augment",
]


@pytest.fixture(scope="module")
def folds():
    return splits(load(None), 5, 1, 0)


def test_arms_are_all_there():
    assert sorted(DEFAULT_ARMS) == sorted(REQUIRED)
    assert set(ARMS) == {*REQUIRED, *EXTRA_ARMS}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_every_arm_has_the_same_budget(folds, count):
    c = replace(context(Settings(), folds[0], 0, 2e-3), count=count)
    for arm in ARMS.values():
        found = arm.candidates(c)
        assert len(found) == count
        assert len({x.label for x in found}) == len({x.recipe for x in found}) == count


def test_the_default_study_trains_at_least_300_networks(folds):
    planned = chunks(LEVELS["default"], folds, 2e-3)
    jobs = [(c.fold, c.size, j.recipe) for c in planned for j in c.jobs]
    assert len(jobs) >= 300
    assert len(set(jobs)) == len(jobs)
    tags = Counter(
        (t["experiment"], t.get("arm"), c.fold) for c in planned for j in c.jobs for t in j.tags
    )
    assert {tags["arms", arm, fold] for arm in DEFAULT_ARMS for fold in range(5)} == {4}
    assert {e for e, *_ in tags} == {"arms", "rate", "layers", "batch", "optimizer", "size"}


def test_arms_say_what_they_do(folds):
    c = context(Settings(), folds[0], 0, 2e-3)
    plain = c.base
    recipes = {name: arm.candidates(c)[1].recipe for name, arm in ARMS.items()}
    assert recipes["dropout"].drops[0] is None
    assert recipes["dropout"].drops[1].rate == recipes["dropout"].drops[2].rate > 0
    assert recipes["classic"].drops[1].scale != recipes["dropout"].drops[1].scale
    assert recipes["input"].drops[0].rate > 0
    assert len(recipes["input"].drops) == 1
    assert recipes["dropconnect"].connect > 0
    assert (recipes["elastic"].l1 > 0, recipes["elastic"].l2 > 0, recipes["l1"].l2) == (
        True,
        True,
        0,
    )
    assert recipes["bn-dropout"].network.order == ("linear", "norm", "act", "drop")
    assert recipes["dropout-bn"].network.order == ("linear", "act", "drop", "norm")
    assert recipes["augment"].augment.moves
    assert (recipes["dropout+l2"].l2 > 0, recipes["dropout+max-norm"].max_norm > 0) == (True, True)
    for name, recipe in recipes.items():
        same = (recipe.seed, recipe.shuffle, recipe.epochs, recipe.batch_size)
        assert same == (plain.seed, plain.shuffle, plain.epochs, plain.batch_size), name
        assert name == "none" or recipe != plain


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
        chosen_lr(Settings(), records) == 2e-3
    )  # sqrt(0.1 * 0.7) < sqrt(0.2 * 0.4); a diverged pilot loses
    assert chosen_lr(Settings(lr=0.5), []) == 0.5
    assert pilots(Settings(lr=0.5), folds) == []


def test_tables_are_augmented_by_noise():
    rng = np.random.default_rng(0)
    split = splits(from_arrays(rng.random((100, 5)), np.arange(100) % 2, None), 2, 1, 0)[0]
    found = ARMS["augment"].candidates(context(Settings(), split, 0, 2e-3))
    assert all(x.recipe.augment.noise > 0 and not x.recipe.augment.moves for x in found)


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


def test_arms_that_cannot_run_say_why(folds):
    names, skipped = usable(Settings(model="my:net"), folds[0])
    assert set(skipped) == {"bn", "bn-dropout", "dropout-bn", "dropconnect"}
    assert not set(names) & set(skipped)
    assert usable(Settings(arms=("l2",)), folds[0])[0] == ["none", "l2"]
    rng = np.random.default_rng(0)
    table = splits(from_arrays(rng.random((100, 5)), rng.random(100), None), 2, 1, 0)[0]
    assert "label-smoothing" in usable(LEVELS["full"], table)[1]


@pytest.mark.parametrize("model", ["wide", "deep", "cnn"])
def test_other_models_are_planned(folds, model):
    planned = chunks(replace(LEVELS["quick"], model=model), folds[:1], 2e-3)
    assert sum(len(c.jobs) for c in planned) > 30


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ("dropot",)}, "unknown arm 'dropot'; did you mean"),
        ({"folds": 1}, "--folds has to be at least 2, but got 1"),
        ({"seed": -1}, "--seed has to be at least 0"),
        ({"lr": 0.0}, "--lr has to be above 0"),
    ],
)
def test_refused(changes, message):
    with pytest.raises(InputError, match=message):
        Settings(**changes)
