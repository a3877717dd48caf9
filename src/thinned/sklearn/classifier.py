"""``DropoutClassifier``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import column_or_1d, compute_sample_weight
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target, unique_labels

from .base import DropoutEstimator
from .types import Noise, Rows, Seed, Units, Weight


class DropoutClassifier(ClassifierMixin, DropoutEstimator):
    """A multilayer perceptron with dropout: ``sklearn.neural_network.MLPClassifier`` and more.

    With ``dropout=0`` it is trained as ``MLPClassifier`` is, from the same weights in the same
    order, in float32; parameters of the same name mean the same.

    Methods that drop units: dropout, gaussian_dropout, uniform_dropout, alpha_dropout,
    feature_alpha_dropout, batchwise_dropout, spatial_dropout, drop_path, stochastic_depth, jumpout,
    thinned, concrete_dropout, variational_dropout. On the weights of the next layer, which takes
    these units: drop_connect, mixout, shakeout, targeted_dropout, sparse_variational_dropout,
    fast_dropout. On the hidden layer itself: standout, targeted_unit_dropout, information_dropout.
    The other methods do not apply to tabular data; requesting one raises
    :class:`thinned.InputError` with the list of the valid ones.

    A mask is a function of ``random_state``, the layer, the number of the batch and the row, so a
    fit is the same with any number of threads up to rounding. The global generator of torch is not
    used. Sparse rows become dense batch by batch.

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
        class_weight: The weights of the classes: a dict, "balanced" or None, as elsewhere in
            scikit-learn.

    Attributes:
        classes_, coefs_, intercepts_, loss_curve_, best_loss_, validation_scores_, n_iter_: and
            the others of ``MLPClassifier``.
        dropout_state_: What methods learn besides weights and biases: a dict of arrays, such as
            ``"drop1.logit"`` of concrete dropout; empty for specs.

    Raises:
        InputError: In ``fit``, where ``dropout`` names no method for rows, or a setting is wrong.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> net = DropoutClassifier(
        ...     64, dropout=0.2, learning_rate_init=0.01, tol=0.05, random_state=0
        ... )
        >>> net.fit(X, y).score(X, y) > 0.9
        True

    Reference:
        Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014, "Dropout: a simple way to
        prevent neural networks from overfitting", JMLR 15.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **DropoutEstimator._parameter_constraints,
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
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
        class_weight: Mapping[Any, float] | str | None = None,
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
        self.class_weight = class_weight

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(
        self, X: Rows, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> DropoutClassifier:
        """Train the network.

        Warns as ``MLPClassifier`` does (``ConvergenceWarning``) where ``max_iter`` ends training.
        After an interrupt by the user the weights learned so far remain.

        Args:
            X: Rows: an array, a data frame or a sparse matrix [rows, features].
            y: Classes [rows], or 0 and 1 [rows, labels] for several labels.
            sample_weight: One weight for each row, at least 0.

        Returns:
            The estimator.
        """
        return self._fit(X, y, sample_weight, incremental=False)

    def partial_fit(
        self,
        X: Rows,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> DropoutClassifier:
        """Train for one epoch on these rows.

        Args:
            X: Rows [rows, features].
            y: Classes [rows].
            classes: All classes that there will ever be; needed in the first call.
            sample_weight: One weight for each row, at least 0.

        Returns:
            The estimator.
        """
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight 'balanced' needs all the rows, which partial_fit does not see; "
                "pass class_weight as a dict"
            )
        if _check_partial_fit_first_call(self, classes):
            self._binarizer = LabelBinarizer().fit(
                y if type_of_target(y).startswith("multilabel") else classes
            )
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Rows) -> Any:
        """Return the most likely class of each row, or its labels as a row of 0 and 1."""
        outputs = self._outputs(self._rows(X))
        return self._binarizer.inverse_transform(outputs[:, 0] if self.n_outputs_ == 1 else outputs)

    def predict_proba(self, X: Rows) -> Any:
        """Return the probabilities of the classes.

        Args:
            X: Rows [rows, features].

        Returns:
            An array [rows, classes] in the order of ``classes_``; with ``samples``, the mean over
            so many thinned networks.
        """
        outputs = self._outputs(self._rows(X))
        return np.hstack([1.0 - outputs, outputs]) if self.n_outputs_ == 1 else outputs

    def predict_log_proba(self, X: Rows) -> Any:
        """Return the logarithms of :meth:`predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def _encode(
        self, y: Any, fresh: bool, incremental: bool = False, sample_weight: Any = None
    ) -> Any:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if fresh and not incremental:
            self._binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._binarizer.classes_
        else:
            found = unique_labels(y)
            if self.warm_start and set(found) != set(self.classes_):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the "
                    "previous call to fit. Previously "
                    f"got {self.classes_}, `y` has {found}"
                )
            if len(np.setdiff1d(found, self.classes_, assume_unique=True)):
                raise ValueError(
                    f"`y` has classes not in `self.classes_`. `self.classes_` has "
                    f"{self.classes_}. 'y' has {found}."
                )
        return np.ascontiguousarray(self._binarizer.transform(y), np.float32)

    def _head(self) -> str:
        kind = getattr(getattr(self, "_binarizer", None), "y_type_", "multiclass")
        return "softmax" if kind == "multiclass" else "logistic"

    def _strata(self, y: Any) -> Any:
        return y[:, 0] if y.shape[1] == 1 else None

    def _scorer(self, y: Any, weight: Any) -> Any:
        multiclass = self._head() == "softmax"
        true = y.argmax(1) if multiclass else y > 0.5

        def score(outputs: Any) -> float:
            right = outputs.argmax(1) == true if multiclass else ((outputs > 0.5) == true).all(1)
            return float(np.average(right, weights=weight))

        return score

    def _weights(self, y: Any, weight: Any) -> Any:
        if self.class_weight is None:
            return weight
        each = compute_sample_weight(self.class_weight, y)
        return each if weight is None else each * weight
