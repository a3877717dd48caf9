"""``DropoutRegressor``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler
from sklearn.utils import column_or_1d

from .._errors import InputError
from .base import MONTE_CARLO, DropoutEstimator
from .types import Noise, Rows, Seed, Units, Weight


class DropoutRegressor(RegressorMixin, DropoutEstimator):
    """A multilayer perceptron with dropout: ``sklearn.neural_network.MLPRegressor`` and more.

    Rules and methods are those of :class:`DropoutClassifier`; the loss is the squared error. As in
    scikit-learn the target is not scaled: where its unit is not near 1, use
    ``target_scaling=True``. ``y`` may have several columns.

    Args:
        hidden_layer_sizes: The number of units of each hidden layer, or one number for one layer.
        dropout: What is dropped behind each hidden layer: a rate in [0, 1], a schedule of it
            (:mod:`thinned.algebra`), the name of a method of the catalog, a dict of a name and
            settings such as ``{"method": "shakeout", "c": 0.2}``, or a :class:`thinned.Drop`. A
            list has one of these for each hidden layer; None drops nothing.
        input_dropout: The same for the inputs.
        activation: "relu", "tanh", "logistic", "identity" or "selu".
        solver: "adam" or "sgd"; learning rates are constant.
        alpha: The strength of the L2 penalty, at least 0, as in scikit-learn.
        l1: The strength of the L1 penalty, at least 0: the loss gains l1 * sum|W|, divided by the
            rows of the batch as the term of ``alpha`` is.
        max_norm: The largest length of the vector of incoming weights of a hidden unit, above 0;
            None sets no limit.
        batch_size: Rows in a batch; "auto" is min(200, rows).
        learning_rate_init: The learning rate, above 0.
        max_iter: The largest number of epochs.
        shuffle: Whether the rows of each epoch are shuffled.
        random_state: The seed of weights, batches and masks, as elsewhere in scikit-learn.
        tol: The improvement of the loss (or validation score) that counts as progress.
        verbose: Whether the loss of each epoch is printed.
        warm_start: Whether ``fit`` continues from the fitted weights.
        momentum: Of "sgd", in [0, 1].
        nesterovs_momentum: Whether "sgd" uses Nesterov's momentum.
        early_stopping: Whether some rows are held out to stop by their score.
        validation_fraction: The share of rows to hold out, in [0, 1).
        beta_1: The decay of Adam's first moment, in [0, 1).
        beta_2: The decay of Adam's second moment, in [0, 1).
        epsilon: The constant that keeps Adam's division stable, above 0.
        n_iter_no_change: The number of epochs without progress that ends training.
        samples: The number of thinned networks that predictions are the mean of; 0 predicts by one
            network without noise.
        divergence: The weight, or its schedule, of the KL term that learned methods add to the
            loss.
        target_scaling: Whether the network learns the target with mean 0 and variance 1, by the
            (weighted) training rows of the first ``fit`` or ``partial_fit``. Predictions, their
            deviations and ``predict_samples`` are in the unit of the target; ``loss_curve_`` is in
            that of the network.

    Raises:
        InputError: In ``fit``, where ``dropout`` names no method for rows, or a setting is wrong.

    Example:
        >>> import numpy as np
        >>> X = np.random.default_rng(0).normal(size=(200, 3))
        >>> net = DropoutRegressor(
        ...     64, dropout=0.1, learning_rate_init=0.01, max_iter=100, tol=0.01, random_state=0
        ... )
        >>> mean, std = net.fit(X, X[:, 0]).predict(X[:2], return_std=True)
        >>> mean.shape, bool((std > 0).all())
        ((2,), True)

    Reference:
        Srivastava et al. 2014; Gal and Ghahramani 2016, "Dropout as a Bayesian approximation", for
        ``return_std``.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **DropoutEstimator._parameter_constraints,
        "target_scaling": ["boolean"],
    }

    def __init__(
        self,
        hidden_layer_sizes: Units = (256, 256),
        *,
        dropout: Noise | Sequence[Noise] = 0.5,
        input_dropout: Noise = 0.0,
        activation: str = "relu",
        solver: str = "adam",
        alpha: float = 0.0001,
        l1: float = 0.0,
        max_norm: float | None = None,
        batch_size: int | str = "auto",
        learning_rate_init: float = 0.001,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Seed = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        samples: int = 0,
        divergence: Weight = 1.0,
        target_scaling: bool = False,
    ) -> None:
        super().__init__(
            hidden_layer_sizes,
            dropout=dropout,
            input_dropout=input_dropout,
            activation=activation,
            solver=solver,
            alpha=alpha,
            l1=l1,
            max_norm=max_norm,
            batch_size=batch_size,
            learning_rate_init=learning_rate_init,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            samples=samples,
            divergence=divergence,
        )
        self.target_scaling = target_scaling

    def fit(
        self, X: Rows, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> DropoutRegressor:
        """Train the network.

        Args:
            X: Rows: an array, a data frame or a sparse matrix [rows, features].
            y: Numbers [rows] or [rows, outputs].
            sample_weight: One weight for each row, at least 0.

        Returns:
            The estimator.
        """
        return self._fit(X, y, sample_weight, incremental=False)

    def partial_fit(
        self, X: Rows, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> DropoutRegressor:
        """Train for one epoch on these rows."""
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Rows, return_std: bool = False) -> Any:
        """Return the predicted values.

        Args:
            X: Rows [rows, features].
            return_std: Whether to return a standard deviation too.

        Returns:
            Values [rows] or [rows, outputs]; with ``return_std`` a pair of them and of their
            standard deviation over thinned networks (``samples`` of them, or 100 where that is 0).
            The deviation is the uncertainty of the model alone (Gal and Ghahramani 2016), without
            the noise of the target.
        """
        X = self._rows(X)
        if not return_std:
            return self._flat(self._outputs(X))
        mean, std = self._moments(X, self.samples or MONTE_CARLO)
        return self._flat(mean), self._flat(std)

    def _flat(self, outputs: Any) -> Any:
        return outputs[:, 0] if self.n_outputs_ == 1 else outputs

    def _encode(
        self, y: Any, fresh: bool, incremental: bool = False, sample_weight: Any = None
    ) -> Any:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if fresh:
            self._target_scaler = None
            if self.target_scaling:
                columns = np.asarray(y, np.float64).reshape(len(y), -1)
                self._target_scaler = StandardScaler().fit(columns, sample_weight=sample_weight)
        elif self.target_scaling != (self._target_scaler is not None):
            raise InputError(
                f"target_scaling={self.target_scaling} cannot change after the first fit, since "
                "the weights were learned for the other scale; fit with warm_start=False"
            )
        if self._target_scaler is not None:  # in double precision, before float32
            y = self._target_scaler.transform(np.asarray(y, np.float64).reshape(len(y), -1))
        with np.errstate(over="ignore"):
            return np.array(y.reshape(len(y), -1), np.float32)

    def _decode(self, outputs: Any) -> Any:
        if self._target_scaler is None:
            return outputs
        return outputs * self._target_scaler.scale_ + self._target_scaler.mean_

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
