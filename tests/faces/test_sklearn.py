"""The scikit-learn face, held to scikit-learn's own checks and to its perceptrons."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, cross_val_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from thinned import InputError, presets
from thinned.sklearn import DropoutClassifier, DropoutRegressor, DropoutSearchCV

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

QUICK = {"dropout": 0.1, "learning_rate_init": 0.03, "random_state": 0}
NETS = [DropoutClassifier(16, max_iter=30, **QUICK), DropoutRegressor(16, max_iter=40, **QUICK)]
SEARCHES = [DropoutSearchCV(net, {"dropout": [0.0, 0.2]}, cv=2) for net in NETS]
# scikit-learn expects the same of its own SGDClassifier and forests: a repeated row has draws of its own, a weight has not
RANDOM = {
    f"check_sample_weight_equivalence_on_{kind}_data": "sample_weight is not equivalent to removing/repeating samples."
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
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")  # of scikit-learn's check_cv
@parametrize_with_checks(SEARCHES)
def test_scikit_learns_checks_of_a_search(estimator, check):
    check(estimator)
