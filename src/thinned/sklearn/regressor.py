"""``DropoutRegressor``."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import column_or_1d

from .base import MONTE_CARLO, DropoutEstimator


class DropoutRegressor(RegressorMixin, DropoutEstimator):
    """A multilayer perceptron with dropout, as ``sklearn.neural_network.MLPRegressor`` but for what
    that lacks.

    Parameters and rules are those of :class:`DropoutClassifier`, without ``class_weight``; the loss
    is the squared error. As in scikit-learn the target is not scaled: put
    ``TransformedTargetRegressor`` around it where its unit is not near 1. ``y`` may have several
    columns.

    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> net = DropoutRegressor(64, dropout=0.1, learning_rate_init=0.01, max_iter=100, tol=0.01, random_state=0)
    >>> mean, std = net.fit(X, X[:, 0]).predict(X[:2], return_std=True)
    >>> mean.shape, bool((std > 0).all())
    ((2,), True)
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> DropoutRegressor:
        """Train on rows ``X`` (array, data frame or sparse matrix) and numbers ``y``, one or
        several a row.
        """
        return self._fit(X, y, sample_weight, incremental=False)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> DropoutRegressor:
        """Train for one epoch on these rows."""
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Values (n_rows,) or (n_rows, n_outputs); with ``return_std`` also their standard
        deviation over thinned networks.

        The deviation is the network's own doubt (Gal and Ghahramani 2016), without the noise of the
        target. Both are over ``mc_samples`` networks, or 100 where that is 0.
        """
        X = self._rows(X)
        if not return_std:
            return self._flat(self._outputs(X))
        mean, std = self._moments(X, self.mc_samples or MONTE_CARLO)
        return self._flat(mean), self._flat(std)

    def _flat(self, outputs: Any) -> Any:
        return outputs[:, 0] if self.n_outputs_ == 1 else outputs

    def _encode(self, y: Any, fresh: bool, incremental: bool = False) -> Any:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        with np.errstate(over="ignore"):
            return np.array(y.reshape(len(y), -1), np.float32)

    def _head(self) -> str:
        return "identity"

    def _scorer(self, y: Any, weight: Any) -> Any:
        return lambda outputs: (
            float(r2_score(y, outputs, sample_weight=weight))
            if np.isfinite(outputs).all()
            else np.nan
        )

    def _weights(self, y: Any, weight: Any) -> Any:
        return weight
