"""The search: what it shares with GridSearchCV in random states and in candidates that fail."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip(
    "sklearn", reason="scikit-learn is not installed: pip install 'thinned[sklearn]'"
)

from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV

from thinned.sklearn import DropoutClassifier, DropoutSearchCV

X = np.random.default_rng(0).normal(size=(90, 4))
Y = (X[:, 0] + 0.5 * X[:, 1] > 0).astype(int)
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def net(**settings):
    return DropoutClassifier(8, learning_rate_init=0.02, max_iter=5, tol=0.0, **settings)


def scores(search):
    return np.stack([search.cv_results_[f"split{i}_test_score"] for i in range(3)])


@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_random_state_instance_is_used_as_grid_search_does(early_stopping):
    grid = {"dropout": [0.0, 0.4], "random_state": [np.random.RandomState(5), 3]}
    for base, values in (
        (net(random_state=np.random.RandomState(7), early_stopping=early_stopping), {"alpha": [0]}),
        (net(early_stopping=early_stopping), grid),
    ):
        if base.random_state is not None:
            base.random_state.rand(3)  # not in its first state
        options = {"cv": 3, "scoring": "neg_log_loss"}
        many = DropoutSearchCV(base, values, **options).fit(X, Y)
        one = GridSearchCV(base, values, **options).fit(X, Y)
        np.testing.assert_allclose(scores(many), scores(one), rtol=1e-3)


@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
def test_candidates_that_fail_get_the_error_score():
    grid = [{"alpha": [1e-4]}, {"alpha": [-1.0]}, {"dropout": ["dropblock"]}, {"dropout": [7.0]}]
    for error_score in (np.nan, -3.0):
        found = []
        for search in (DropoutSearchCV, GridSearchCV):
            with pytest.warns(FitFailedWarning, match="9 fits failed out of"):
                found.append(
                    search(net(random_state=0), grid, cv=3, error_score=error_score).fit(X, Y)
                )
        np.testing.assert_allclose(scores(found[0]), scores(found[1]), atol=1e-6)
        assert found[0].best_params_ == found[1].best_params_
    with pytest.raises(ValueError, match="alpha"):
        DropoutSearchCV(net(random_state=0), grid, cv=3, error_score="raise").fit(X, Y)
    with pytest.raises(ValueError, match="fits failed"):
        DropoutSearchCV(net(random_state=0), grid[1:], cv=3).fit(X, Y)
