"""Scorers of scikit-learn on the outputs of networks."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import get_scorer
from sklearn.utils import RegressorTags

from ..train import Task

Array = NDArray[Any]


def score(scorer: str, outputs: Array, y: Array, task: Task) -> float:
    """The value of a scorer for outputs [n, outputs] and targets [n]; NaN where it is undefined."""
    if task.kind == "regression":
        y = y.astype(np.float64) * task.scale + task.center
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metrics that are undefined, which are NaN or 0
        return float(get_scorer(scorer)(FixedOutputs(task).fit(), outputs, y))


class FixedOutputs(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """An estimator of scikit-learn with the outputs of a network as its input."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        if self.task.kind == "regression":
            tags.estimator_type, tags.classifier_tags = "regressor", None
            tags.regressor_tags = RegressorTags()
        return tags

    def fit(self, x: object = None, y: object = None) -> FixedOutputs:
        """Nothing to fit."""
        if self.task.kind == "classification":
            self.classes_ = np.arange(self.task.outputs)
        return self

    def predict(self, x: Array) -> Array:
        """The class of the largest output, or the value in the unit of the target."""
        if self.task.kind == "regression":
            values: Array = x[:, 0] * self.task.scale + self.task.center
            return values
        classes: Array = x.argmax(1)
        return classes

    def predict_proba(self, x: Array) -> Array:
        """The softmax of the outputs."""
        e = np.exp(x - x.max(1, keepdims=True))
        probabilities: Array = e / e.sum(1, keepdims=True)
        return probabilities

    def decision_function(self, x: Array) -> Array:
        """The difference of the two outputs, or all outputs of more classes."""
        return x[:, 1] - x[:, 0] if x.shape[1] == 2 else x
