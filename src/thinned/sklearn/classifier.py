"""``DropoutClassifier``."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import column_or_1d, compute_sample_weight
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target, unique_labels

from .base import DropoutEstimator


class DropoutClassifier(ClassifierMixin, DropoutEstimator):
    """A multilayer perceptron with dropout, as ``sklearn.neural_network.MLPClassifier`` but for
    what that lacks.

    With ``dropout=0`` it is trained as ``MLPClassifier`` is, from the same weights in the same
    order, in float32; the parameters of one name mean the same. New are:

    ``dropout``: what falls behind each hidden layer: a rate, a schedule of :mod:`thinned.algebra`,
    the name of a method of the catalogue, a dict of its name and settings such as ``{"method":
    "shakeout", "c": 0.2}``, or a point of :mod:`thinned.presets`; or a list of these, one for each
    hidden layer. ``input_dropout``: one of these for the inputs. On units: dropout, gaussian, uout,
    alpha, feature-alpha, batchwise, spatial, drop-path, stochastic-depth, jumpout, thinned,
    concrete, variational. On the next layer's weights, which take these units: dropconnect, mixout,
    shakeout, targeted, sparse-variational, fast. On the hidden layer itself: standout,
    targeted-unit, information. Others make no sense of rows and raise :class:`thinned.InputError`.
    ``divergence``: the weight, or its schedule, of what learned methods add to the loss. ``l1``:
    the loss gains l1 * sum|W|, divided by the batch's rows as ``alpha``'s term is. ``max_norm``:
    the longest vector of a hidden unit's incoming weights. ``class_weight``: as elsewhere in
    scikit-learn. ``mc_samples``: predict by the mean of so many thinned networks; 0: by one network
    without noise. ``activation`` may also be ``"selu"``. ``solver`` is ``"adam"`` or ``"sgd"``, and
    learning rates are constant.

    Masks belong to ``random_state``, the layer, the batch's number and the row, so a fit is the
    same with any number of threads but for rounding. torch's global generator is left alone. Sparse
    rows become dense batch by batch.

    Fitted attributes are those of ``MLPClassifier``: ``classes_``, ``coefs_``, ``intercepts_``,
    ``loss_curve_``, ``best_loss_``, ``validation_scores_``, ``n_iter_`` and so on.
    ``dropout_state_``: what methods hold beside these, a dict of arrays, such as concrete dropout's
    ``"drop1.logit"``; empty for points.

    Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting",
    JMLR 15.

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> net = DropoutClassifier(64, dropout=0.2, learning_rate_init=0.01, tol=0.05, random_state=0)
    >>> net.fit(X, y).score(X, y) > 0.9
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **DropoutEstimator._parameter_constraints,
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
        hidden_layer_sizes: Any = (256, 256),
        *,
        dropout: Any = 0.5,
        input_dropout: Any = 0.0,
        activation: str = "relu",
        solver: str = "adam",
        alpha: float = 0.0001,
        l1: float = 0.0,
        max_norm: float | None = None,
        batch_size: int | str = "auto",
        learning_rate_init: float = 0.001,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        mc_samples: int = 0,
        divergence: Any = 1.0,
        class_weight: Any = None,
    ) -> None:
        super().__init__(
            hidden_layer_sizes, dropout=dropout, input_dropout=input_dropout, activation=activation, solver=solver,
            alpha=alpha, l1=l1, max_norm=max_norm, batch_size=batch_size, learning_rate_init=learning_rate_init,
            max_iter=max_iter, shuffle=shuffle, random_state=random_state, tol=tol, verbose=verbose, warm_start=warm_start,
            momentum=momentum, nesterovs_momentum=nesterovs_momentum, early_stopping=early_stopping,
            validation_fraction=validation_fraction, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon,
            n_iter_no_change=n_iter_no_change, mc_samples=mc_samples, divergence=divergence,
        )  # fmt: skip
        self.class_weight = class_weight

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> DropoutClassifier:
        """Train on rows ``X`` (array, data frame or sparse matrix) and classes ``y``, or 0-1 rows
        for many labels.

        ``sample_weight``: one number a row. Warns as ``MLPClassifier`` does where ``max_iter``
        ended it (``ConvergenceWarning``), or the user did, whose interrupt leaves what was learned.
        """
        return self._fit(X, y, sample_weight, incremental=False)

    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> DropoutClassifier:
        """Train for one epoch on these rows. ``classes``: all there will ever be; needed in the
        first call.
        """
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight 'balanced' needs all the rows, which partial_fit does not see; pass class_weight as a dict"
            )
        if _check_partial_fit_first_call(self, classes):
            self._binarizer = LabelBinarizer().fit(
                y if type_of_target(y).startswith("multilabel") else classes
            )
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any) -> Any:
        """The most likely class of each row, or its labels as a row of 0 and 1."""
        outputs = self._outputs(self._rows(X))
        return self._binarizer.inverse_transform(outputs[:, 0] if self.n_outputs_ == 1 else outputs)

    def predict_proba(self, X: Any) -> Any:
        """Probabilities (n_rows, n_classes), in the order of ``classes_``; with ``mc_samples``, a
        mean over networks.
        """
        outputs = self._outputs(self._rows(X))
        return np.hstack([1.0 - outputs, outputs]) if self.n_outputs_ == 1 else outputs

    def predict_log_proba(self, X: Any) -> Any:
        """The logarithms of :meth:`predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def _encode(self, y: Any, fresh: bool, incremental: bool = False) -> Any:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if fresh and not incremental:
            self._binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._binarizer.classes_
        else:
            found = unique_labels(y)
            if self.warm_start and set(found) != set(self.classes_):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous call to fit. Previously "
                    f"got {self.classes_}, `y` has {found}"
                )
            if len(np.setdiff1d(found, self.classes_, assume_unique=True)):
                raise ValueError(
                    f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. 'y' has {found}."
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
