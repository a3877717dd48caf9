"""The scikit-learn API, held to scikit-learn's own checks and compared with its perceptrons."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from thinned import InputError, presets
from thinned.sklearn import DropoutClassifier, DropoutRegressor, DropoutSearchCV

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

QUICK = {"dropout": 0.1, "learning_rate_init": 0.05, "random_state": 0}
NETS = [DropoutClassifier(16, max_iter=20, **QUICK), DropoutRegressor(16, max_iter=20, **QUICK)]
SEARCHES = [DropoutSearchCV(net, {"dropout": [0.0, 0.1]}, cv=2) for net in NETS]
# scikit-learn expects the same of its own SGDClassifier and forests: a repeated row has draws of
# its own, a weight has not
RANDOM = {
    f"check_sample_weight_equivalence_on_{kind}_data": "sample_weight is not equivalent to "
    "removing/repeating samples."
    for kind in ("dense", "sparse")
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
@parametrize_with_checks(NETS, expected_failed_checks=lambda net: RANDOM)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings(
    "ignore:invalid value encountered in cast:RuntimeWarning"
)  # of scikit-learn's check_cv
@parametrize_with_checks(SEARCHES)
def test_scikit_learns_checks_of_a_search(estimator, check):
    check(estimator)


RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 4))
Y = np.argmax(X[:, :3], 1)
T = X[:, 0] - X[:, 1]
SMALL = {"hidden_layer_sizes": 12, "max_iter": 12, "learning_rate_init": 0.03, "random_state": 0}


def test_inside_scikit_learns_tools():
    pipe = make_pipeline(StandardScaler(), DropoutClassifier(dropout=0.2, **SMALL))
    assert cross_val_score(pipe, X, Y, cv=3).mean() > 0.7
    grid = {
        "dropoutclassifier__dropout": [0.0, [0.3], "gaussian_dropout", presets.uniform_dropout(0.2)]
    }
    search = GridSearchCV(pipe, grid, cv=2).fit(X, Y)
    assert search.score(X, Y) > 0.8
    assert search.best_params_["dropoutclassifier__dropout"] in grid["dropoutclassifier__dropout"]
    halving = HalvingGridSearchCV(
        DropoutRegressor(dropout=0.1, **SMALL),
        {"alpha": [1e-4, 1.0, 30.0]},
        resource="max_iter",
        max_resources=27,
        min_resources=3,
        random_state=0,
        cv=2,
    )
    assert halving.fit(X, T).n_resources_ == [3, 9]
    assert halving.best_params_["alpha"] < 30


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("kind", [DropoutClassifier, DropoutRegressor])
def test_a_search_is_as_separate_fits(kind, early):
    y, scoring = (Y, "neg_log_loss") if kind is DropoutClassifier else (T, "r2")
    net = kind(early_stopping=early, batch_size=16, n_iter_no_change=4, **SMALL)
    grid = [
        {"dropout": [0.0, 0.5, "gaussian_dropout", "batchwise_dropout"]},
        {"alpha": [1e-4, 1.0], "learning_rate_init": [0.01, 0.05], "max_norm": [None, 0.9]},
    ]
    many, one = (
        search(net, grid, scoring=scoring, cv=2, refit=True)
        for search in (DropoutSearchCV, GridSearchCV)
    )
    many.fit(X, y)
    one.fit(X, y)
    assert many.n_passes_ == 1
    assert many.cv_results_["params"] == one.cv_results_["params"]
    for name in ("split0_test_score", "split1_test_score", "mean_test_score"):
        np.testing.assert_allclose(
            many.cv_results_[name], one.cv_results_[name], rtol=5e-3, atol=1e-3
        )
    assert set(many.cv_results_) == set(one.cv_results_)
    assert many.best_params_ == one.best_params_
    np.testing.assert_allclose(many.predict(X), one.predict(X), rtol=1e-5)


def test_a_search_over_shapes_weights_and_scores():
    grid = [
        {"hidden_layer_sizes": [4, (5, 3)], "dropout": [0.0, 0.3]},
        {"class_weight": ["balanced"], "dropout": [0.2]},
    ]
    options = {
        "cv": 3,
        "scoring": ["accuracy", "f1_macro"],
        "refit": "accuracy",
        "return_train_score": True,
    }
    net, weight = DropoutClassifier(**SMALL), RNG.uniform(0.5, 2, 80)
    many = DropoutSearchCV(net, grid, **options).fit(X, Y, sample_weight=weight)
    one = GridSearchCV(net, grid, **options).fit(X, Y, sample_weight=weight)
    assert many.n_passes_ == 3 * 2  # folds of 26 and of 27 rows make batches of two sizes
    for name in ("mean_test_accuracy", "mean_test_f1_macro", "mean_train_accuracy"):
        np.testing.assert_allclose(many.cv_results_[name], one.cv_results_[name], atol=0.03)
    with pytest.raises(TypeError, match=r"use sklearn\.model_selection\.GridSearchCV for it"):
        DropoutSearchCV(make_pipeline(net), {}).fit(X, Y)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames(library):
    frames = pytest.importorskip(library)
    table = frames.DataFrame({name: X[:, i] for i, name in enumerate("abcd")})
    names = np.array(["cat", "dog", "owl"])[Y]
    net = DropoutClassifier(dropout=0.2, **SMALL).fit(table, frames.Series(names))
    assert list(net.feature_names_in_) == list("abcd")
    assert list(net.classes_) == ["cat", "dog", "owl"]
    plain = DropoutClassifier(dropout=0.2, **SMALL).fit(X, names)
    np.testing.assert_array_equal(net.predict_proba(table), plain.predict_proba(X))
    assert set(net.predict(table)) <= set(names)
    with pytest.raises(ValueError, match="feature names should match"):
        net.predict(table[["b", "a", "c", "d"]])
    pipe = make_pipeline(StandardScaler(), net).set_output(transform=library).fit(table, names)
    assert list(pipe[-1].feature_names_in_) == list("abcd")


def test_sparse_rows_are_dense_ones():
    x = X * (RNG.random(X.shape) < 0.4)
    for make in (sparse.csr_matrix, sparse.csc_array, sparse.coo_array):
        net = DropoutClassifier(dropout=0.3, batch_size=16, **SMALL).fit(make(x), Y)
        same = DropoutClassifier(dropout=0.3, batch_size=16, **SMALL).fit(x, Y)
        np.testing.assert_allclose(net.predict_proba(make(x)), same.predict_proba(x), rtol=1e-5)


def test_many_labels_and_many_targets():
    labels = (X[:, :3] > 0).astype(int)
    net = DropoutClassifier(dropout=0.1, **{**SMALL, "max_iter": 60}).fit(X, labels)
    assert net.predict_proba(X).shape == net.predict(X).shape == (80, 3)
    assert (net.predict(X) == labels).mean() > 0.85
    mean, std = DropoutRegressor(dropout=0.1, **SMALL).fit(X, X[:, :2]).predict(X, return_std=True)
    assert mean.shape == std.shape == (80, 2)


@pytest.mark.parametrize("kind", [DropoutClassifier, DropoutRegressor])
def test_pickles_predict_and_go_on(kind):
    net = kind(dropout=[presets.gaussian_dropout(0.3)], samples=5, **SMALL).fit(X, Y)
    back = pickle.loads(pickle.dumps(net))  # noqa: S301
    np.testing.assert_array_equal(net.predict(X), back.predict(X))
    np.testing.assert_array_equal(net.predict_samples(X), back.predict_samples(X))
    for each in (net, back):
        each.partial_fit(X, Y)
    np.testing.assert_array_equal(net.coefs_[0], back.coefs_[0])
    assert clone(net).dropout == net.dropout


BAD = [
    ({"dropout": 1.5}, ValueError, r"The 'dropout' parameter of Dropout\w+ must be a float in "
                                   r"the range \[0.0, 1.0\]"),
    ({"dropout": [0.1, 0.2]}, InputError, "one for each of the 1 hidden layers, but got 2 values"),
    ({"dropout": [1.5]}, ValueError, "dropout probability has to be between 0 and 1, but got 1.5"),
    ({"dropout": "dropuot"}, InputError, "dropuot"),
    (
        {"dropout": "attention_dropout"},
        InputError,
        "'attention_dropout' is a method for another place",
    ),
    ({"dropout": presets.drop_block()}, InputError, "those for rows are 'dropout', "
                                                    "'gaussian_dropout'"),
    ({"input_dropout": -0.1}, ValueError, "The 'input_dropout' parameter"),
    ({"hidden_layer_sizes": (4, 0)}, ValueError, "hidden_layer_sizes must be > 0"),
    ({"activation": "gelu"}, ValueError, "The 'activation' parameter"),
    ({"max_norm": 0}, ValueError, "The 'max_norm' parameter"),
    ({"solver": "lbfgs"}, ValueError, "The 'solver' parameter"),
    ({"divergence": -1.0}, ValueError, "The 'divergence' parameter"),
    ({"samples": -1}, ValueError, "The 'samples' parameter"),
    ({"early_stopping": True, "validation_fraction": 0.01}, ValueError, "validation"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "kind", "text"), BAD)
def test_bad_parameters(change, kind, text):
    for net, y in (
        (DropoutClassifier(**{**SMALL, **change}), Y),
        (DropoutRegressor(**{**SMALL, **change}), T),
    ):
        with pytest.raises(kind, match=text):
            net.fit(X, y)


def test_bad_calls():
    for name in ("predict", "predict_proba", "predict_samples"):
        with pytest.raises(
            NotFittedError, match="This DropoutClassifier instance is not fitted yet"
        ):
            getattr(DropoutClassifier(), name)(X)
    with pytest.raises(ValueError, match="Input X contains NaN"):
        DropoutRegressor(**SMALL).fit(X * np.nan, T)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        DropoutRegressor(**SMALL).fit(X, T[1:])
    net = DropoutClassifier(warm_start=True, **SMALL).fit(X, Y)
    with pytest.raises(ValueError, match="has 3 features, but DropoutClassifier is expecting 4"):
        net.predict(X[:, 1:])
    with pytest.raises(ValueError, match="fit with warm_start=False"):
        clone(net).fit(X, Y).set_params(hidden_layer_sizes=7).fit(X, Y)
    with pytest.raises(ValueError, match="same classes as in the previous call"):
        net.fit(X, Y + 1)
    with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
        DropoutClassifier(**SMALL).partial_fit(X, Y)
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        DropoutRegressor(early_stopping=True, **SMALL).partial_fit(X, T)
    with pytest.raises(ValueError, match="pass class_weight as a dict"):
        DropoutClassifier(class_weight="balanced").partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="non-finite"):
        DropoutRegressor(**SMALL).fit(X * 1e30, T)


def test_warnings_are_scikit_learns():
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(12\) reached"):
        DropoutClassifier(**SMALL).fit(X, Y)
    with pytest.warns(UserWarning, match="it is clipped"):
        DropoutClassifier(batch_size=500, **SMALL).fit(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DropoutClassifier(**{**SMALL, "max_iter": 300, "tol": 0.1}).fit(X, Y)


@pytest.mark.parametrize("package", ["sklearn", "torch"])
def test_a_missing_extra_is_one_line(package):
    code = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Finder())
try:
    import thinned.sklearn
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, package],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert (
        done.stdout == f"{package} is not installed; install what this needs with: pip install "
        f"'thinned[sklearn]'\n"
    )


def test_the_page_runs():
    page = (Path(__file__).parents[2] / "docs" / "sklearn.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) == 4
    names = {}
    for block in blocks:
        exec(compile(block, "docs/sklearn.md", "exec"), names)
    assert names["search"].n_passes_ <= 2
    assert names["search"].best_score_ > 0.85
