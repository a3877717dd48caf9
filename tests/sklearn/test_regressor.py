"""The regressor: targets that are scaled inside, and estimators that use its deviations."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip(
    "sklearn", reason="scikit-learn is not installed: pip install 'thinned[sklearn]'"
)

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from thinned import InputError
from thinned.sklearn import DropoutRegressor, DropoutSearchCV

random = np.random.default_rng(0)
X = random.normal(size=(120, 3))
Z = X @ [1.0, -2.0, 0.5] + 0.1 * random.normal(size=120)
NET = DropoutRegressor(
    8, dropout=0.2, learning_rate_init=0.01, max_iter=20, tol=0.0, random_state=0, samples=7
)
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_scaled_target_is_the_network_of_the_standardized_target(columns, weighted):
    """Everything that is predicted is in the unit of the target."""
    weight = random.integers(1, 4, 120).astype(float) if weighted else None
    y = np.stack([1.7e9 + 50 * Z, 3 - 0.01 * Z**2], 1)[:, :columns].squeeze()
    mean = np.average(y, axis=0, weights=weight)
    scale = np.sqrt(np.average((y - mean) ** 2, axis=0, weights=weight))
    scaled = clone(NET).set_params(target_scaling=True).fit(X, y, weight)
    by_hand = clone(NET).fit(X, (y - mean) / scale, weight)
    want, deviation = by_hand.predict(X, return_std=True)
    got, std = scaled.predict(X, return_std=True)
    np.testing.assert_allclose((got - mean) / scale, want, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(std / scale, deviation, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(scaled.predict(X), got, rtol=1e-6)
    samples = scaled.predict_samples(X[:5], 3).reshape(3, 5, -1).squeeze(-1 if columns == 1 else ())
    wanted = by_hand.predict_samples(X[:5], 3).reshape(samples.shape)
    np.testing.assert_allclose((samples - mean) / scale, wanted, rtol=1e-4, atol=1e-4)
    assert scaled.score(X, y, weight) == pytest.approx(
        by_hand.score(X, (y - mean) / scale, weight), abs=1e-4
    )


def test_partial_fit_keeps_the_first_scale():
    net = clone(NET).set_params(target_scaling=True)
    net.partial_fit(X[:60], 100 + 10 * Z[:60])
    scale = net._target_scaler.scale_.copy()
    net.partial_fit(X[60:], 900 + 70 * Z[60:])
    np.testing.assert_array_equal(net._target_scaler.scale_, scale)
    with pytest.raises(InputError, match=r"target_scaling=False cannot change.*warm_start=False"):
        net.set_params(target_scaling=False).partial_fit(X, Z)
    constant = clone(NET).set_params(target_scaling=True).fit(X, np.full(120, 7.0))
    assert np.isfinite(constant.predict(X)).all()


def test_a_search_compares_scaled_and_other_targets():
    y, grid = 100 + 30 * Z, {"target_scaling": [False, True], "dropout": [0.0, 0.2]}
    many = DropoutSearchCV(NET, grid, cv=2).fit(X, y)
    one = GridSearchCV(NET, grid, cv=2).fit(X, y)
    for name in ("split0_test_score", "split1_test_score"):
        np.testing.assert_allclose(
            many.cv_results_[name], one.cv_results_[name], rtol=1e-3, atol=1e-3
        )
    assert many.best_params_["target_scaling"] is True


@pytest.mark.parametrize("value", [0, -1, 2.5, "9", True])
def test_a_number_of_samples_that_is_none_is_refused(value):
    net = clone(NET).fit(X, Z)
    with pytest.raises(InputError, match="samples must be a whole number of at least 1, but is"):
        net.predict_samples(X, value)


def test_weights_that_cannot_be_used_are_named():
    with pytest.raises(InputError, match="at least 0 for every row, but row 3 has -2"):
        clone(NET).fit(X, Z, np.where(np.arange(120) == 3, -2.0, 1.0))
    with pytest.raises(InputError, match="at least 0 for every row, but row 3 has -2"):
        DropoutSearchCV(NET, {"dropout": [0.1]}, cv=2).fit(
            X, Z, sample_weight=np.where(np.arange(120) == 3, -2.0, 1.0)
        )
    stopping, seen = clone(NET).set_params(early_stopping=True), set()
    for row in range(40):  # one row with a weight is on one side of the split
        with pytest.raises(
            InputError, match=r"all (12|108) .* weight 0; .*early_stopping"
        ) as error:
            stopping.fit(X, Z, np.eye(120)[row])
        seen.add(str(error.value).split()[2])
    assert seen == {"training", "validation"}


def test_the_difficulty_of_crepes():
    """Its intervals are as wide as the deviations say, and cover as they promise."""
    crepes = pytest.importorskip("crepes", reason="crepes is not installed: pip install crepes")
    y = 1000 + 100 * Z
    net = clone(NET).set_params(hidden_layer_sizes=32, samples=50, target_scaling=True, max_iter=60)
    net.fit(X[:60], y[:60])
    deviation = net.predict(X, return_std=True)[1]
    model = crepes.ConformalRegressor()
    model.fit(y[60:90] - net.predict(X[60:90]), sigmas=deviation[60:90])
    low, high = model.predict_int(net.predict(X[90:]), sigmas=deviation[90:], confidence=0.8).T
    widths = (high - low) / deviation[90:]
    np.testing.assert_allclose(widths, widths[0], rtol=1e-6)
    assert ((y[90:] >= low) & (y[90:] <= high)).mean() > 0.5


def test_the_estimator_in_mapie():
    """Its intervals are of the target's unit and cover as they promise."""
    regression = pytest.importorskip(
        "mapie.regression", reason="MAPIE is not installed: pip install mapie"
    )
    y = 1000 + 100 * Z
    net = clone(NET).set_params(target_scaling=True, max_iter=60).fit(X[:60], y[:60])
    model = regression.SplitConformalRegressor(net, confidence_level=0.8, prefit=True)
    _, intervals = model.conformalize(X[60:90], y[60:90]).predict_interval(X[90:])
    low, high = intervals[:, 0, 0], intervals[:, 1, 0]
    assert ((y[90:] >= low) & (y[90:] <= high)).mean() > 0.5
