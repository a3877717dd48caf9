"""``DropoutSearchCV``: a grid search that trains its networks together."""

from __future__ import annotations

import pickle
import time
import warnings
from collections.abc import Sequence
from copy import deepcopy
from itertools import product
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import clone, is_classifier
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.model_selection import ParameterGrid, check_cv
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils import _safe_indexing, check_random_state, indexable
from sklearn.utils.validation import _check_method_params

from .base import DropoutEstimator, checked_weights
from .records import FeatureRows, FitJob
from .training import train
from .types import Rows


class DropoutSearchCV(BaseSearchCV):
    """A cross-validated grid search that trains all its networks in few passes.

    The estimator is a :class:`DropoutClassifier` or :class:`DropoutRegressor`.

    The networks of all candidates and folds that share a shape, a solver and batches of one size
    are trained in one batched pass, each as if it were alone. They may differ in ``dropout``,
    ``input_dropout``, ``alpha``, ``l1``, ``max_norm``, ``learning_rate_init``, ``class_weight`` and
    ``random_state``; candidates that differ in another parameter are trained in passes of their
    own, and so is each network with a schedule or a method that no spec expresses. Results are
    those of ``GridSearchCV`` with the same estimator up to rounding, except where ``random_state``
    is None: then one seed is drawn for the whole search, so that candidates are compared on the
    same weights, batches and masks.

    Parameters and attributes are those of ``GridSearchCV``, without ``n_jobs``. ``mean_fit_time``
    is the share of a network in its pass.

    Args:
        estimator: A ``DropoutClassifier`` or ``DropoutRegressor``.
        param_grid: The values to try for each parameter: a dict of lists, or a list of such dicts.
        scoring: As in ``GridSearchCV``.
        refit: Whether the best candidate is trained on all rows at the end.
        cv: The number of folds, or a splitter.
        verbose: Whether the number of fits is printed.
        error_score: The score of a fit that failed, or "raise".
        return_train_score: Whether training scores are computed too.

    Attributes:
        cv_results_, best_params_, best_score_, best_estimator_: and the others of
            ``GridSearchCV``.
        n_passes_: The number of batched passes.

    Raises:
        TypeError: In ``fit``, for another estimator: the steps of a pipeline would have to be
            fitted fold by fold, as ``GridSearchCV`` does.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from thinned.sklearn import DropoutClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> net = DropoutClassifier(32, learning_rate_init=0.01, tol=0.05, random_state=0)
        >>> grid = {"dropout": [0.0, 0.5], "alpha": [1e-4, 1e-2]}
        >>> search = DropoutSearchCV(net, grid, cv=3).fit(X, y)
        >>> len(search.cv_results_["params"]), search.n_passes_
        (4, 1)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseSearchCV._parameter_constraints,
        "param_grid": [dict, list],
    }

    def __init__(
        self,
        estimator: Any,
        param_grid: Any,
        *,
        scoring: Any = None,
        refit: Any = True,
        cv: Any = None,
        verbose: int = 0,
        error_score: Any = np.nan,
        return_train_score: bool = False,
    ) -> None:
        super().__init__(
            estimator,
            scoring=scoring,
            refit=refit,
            cv=cv,
            verbose=verbose,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.param_grid = param_grid

    def fit(self, X: Rows, y: ArrayLike | None = None, **params: Any) -> DropoutSearchCV:
        """Train every candidate on every fold, score it on the rest, and train the best one on all
        rows.
        """
        self._validate_params()
        if not isinstance(self.estimator, DropoutEstimator):
            raise TypeError(
                "DropoutSearchCV trains DropoutClassifier and DropoutRegressor together, but got "
                f"{type(self.estimator).__name__}; use sklearn.model_selection.GridSearchCV for it"
            )
        scorers, metric = self._get_scorers()
        X, y = indexable(X, y)
        params = _check_method_params(X, params=params)
        routed = self._get_routed_params_for_fit(params)
        splitter = check_cv(self.cv, y, classifier=is_classifier(self.estimator))
        splits = list(splitter.split(X, y, **routed.splitter.split))
        self.n_splits_ = len(splits)
        candidates = list(ParameterGrid(self.param_grid))
        if self.verbose:
            print(f"Fitting {len(splits)} folds for each of {len(candidates)} candidates")
        nets, jobs, errors = self._jobs(X, y, candidates, splits, **routed.estimator.fit)
        self.n_passes_ = train([job for job in jobs if job is not None])
        self._warn(jobs)
        out = [
            self._scored(net, job, X, y, split, scorers, routed.scorer.score)
            if job is not None
            else {"fit_time": 0.0, "score_time": 0.0, "fit_error": error}
            for net, job, error, (_, split) in zip(
                nets, jobs, errors, product(candidates, splits), strict=True
            )
        ]
        _insert(out, self.error_score)
        results = self._format_results(candidates, len(splits), out)
        self._choose(results, out[0]["test_scores"], metric)
        if self.refit:
            began = time.time()
            self.best_estimator_ = clone(self.estimator).set_params(
                **clone(self.best_params_, safe=False)
            )
            self.best_estimator_.fit(X, y, **routed.estimator.fit)
            self.refit_time_ = time.time() - began
            if hasattr(self.best_estimator_, "feature_names_in_"):
                self.feature_names_in_ = self.best_estimator_.feature_names_in_
        self.scorer_ = getattr(scorers, "_scorers", scorers)
        self.cv_results_ = results
        return self

    def _jobs(
        self,
        X: Any,
        y: Any,
        candidates: Sequence[dict[str, Any]],
        splits: Sequence[Any],
        sample_weight: Any = None,
    ) -> tuple[list[DropoutEstimator], list[FitJob | None], list[str | None]]:
        """An estimator and its job, or the error that it has none for, for each candidate and fold,
        candidate by candidate.
        """
        first = clone(self.estimator)
        checked, labels = first._validate(X, y, True)
        if sample_weight is not None:
            sample_weight = checked_weights(sample_weight, checked)
        rows, n = FeatureRows(checked), checked.shape[0]
        known = {
            name: getattr(first, name)
            for name in ("n_features_in_", "feature_names_in_")
            if hasattr(first, name)
        }
        targets: dict[tuple[int, bool], torch.Tensor] = {}
        common = int(
            deepcopy(check_random_state(first.random_state)).randint(np.iinfo(np.int32).max)
        )
        nets: list[DropoutEstimator] = []
        jobs: list[FitJob | None] = []
        errors: list[str | None] = []
        for candidate, (fold, (train_rows, _)) in product(candidates, enumerate(splits)):
            net = clone(self.estimator).set_params(**clone(candidate, safe=False))
            for name, value in known.items():
                setattr(net, name, value)
            index = np.arange(n)[train_rows]
            job = error = None
            try:
                job = self._job(net, rows, labels, index, sample_weight, fold, targets, common)
            except Exception as failure:
                if self.error_score == "raise":
                    raise
                error = f"{type(failure).__name__}: {failure}"
            nets.append(net)
            jobs.append(job)
            errors.append(error)
        return nets, jobs, errors

    def _job(
        self,
        net: DropoutEstimator,
        rows: FeatureRows,
        labels: Any,
        index: Any,
        sample_weight: Any,
        fold: int,
        targets: dict[tuple[int, bool], torch.Tensor],
        common: int,
    ) -> FitJob:
        """The job of one candidate on the rows ``index`` of a fold."""
        net._validate_params()
        if net.random_state is None:
            net.random_state = common
        part = None if sample_weight is None else sample_weight[index]
        encoded = net._encode(labels[index], True, sample_weight=part)
        scaled = bool(getattr(net, "target_scaling", False))
        if (fold, scaled) not in targets:
            full = torch.zeros(rows.n, encoded.shape[1])
            full[index] = torch.from_numpy(encoded)
            targets[fold, scaled] = full
        weight = net._weights(labels[index], part)
        if weight is not None:
            weight = _spread(weight, index, rows.n)
        seed = net.random_state
        if isinstance(seed, np.random.RandomState):
            # its own copy, in the state that a fit alone would begin with
            start: object = pickle.dumps(seed.get_state(legacy=False))
        else:
            start = int(seed)
        heavy = repr(getattr(net, "class_weight", None))
        job = net._job(rows, targets[fold, scaled], weight, index=index)
        job.track.name = (fold, scaled, start, heavy, net.validation_fraction)
        return job

    def _warn(self, jobs: Sequence[FitJob | None]) -> None:
        longest = sum(job is not None and not job.stopped for job in jobs)
        if longest:
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations reached by {longest} of {len(jobs)} "
                f"networks, which haven't "
                "converged yet.",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _scored(
        self,
        net: DropoutEstimator,
        job: FitJob,
        X: Any,
        y: Any,
        split: Any,
        scorers: Any,
        params: dict[str, Any],
    ) -> dict[str, Any]:
        """What ``_format_results`` wants to know of one network."""
        out: dict[str, Any] = {"fit_time": job.seconds, "score_time": 0.0, "fit_error": None}
        began = time.time()
        parts = (
            (("train_scores", split[0]), ("test_scores", split[1]))
            if self.return_train_score
            else (("test_scores", split[1]),)
        )
        try:
            net._collect(job)
            for name, index in parts:
                began = time.time()
                some = _check_method_params(X, params=params, indices=index)
                out[name] = scorers(net, _safe_indexing(X, index), _safe_indexing(y, index), **some)
        except Exception as error:  # as GridSearchCV does
            if self.error_score == "raise":
                raise
            out["fit_error"] = f"{type(error).__name__}: {error}"
        out["score_time"] = time.time() - began
        return out

    def _choose(self, results: dict[str, Any], scores: Any, metric: Any) -> None:
        self.multimetric_ = isinstance(scores, dict)
        if callable(self.scoring) and self.multimetric_:
            self._check_refit_for_multimetric(scores)
            metric = self.refit
        if self.refit or not self.multimetric_:
            self.best_index_ = self._select_best_index(self.refit, metric, results)
            if not callable(self.refit):
                self.best_score_ = results[f"mean_test_{metric}"][self.best_index_]
            self.best_params_ = results["params"][self.best_index_]


def _spread(weight: Any, index: Any, n: int) -> Any:
    """The weights of some rows, among all."""
    full = np.zeros(n)
    full[index] = weight
    return full


def _insert(out: list[dict[str, Any]], error_score: Any) -> None:
    """Scores for what failed; ValueError where everything did."""
    failed = [each for each in out if each["fit_error"]]
    if len(failed) == len(out):
        raise ValueError(f"All the {len(out)} fits failed. The first error: {out[0]['fit_error']}")
    if not failed:
        return
    warnings.warn(
        f"{len(failed)} fits failed out of {len(out)}. The first: {failed[0]['fit_error']}",
        FitFailedWarning,
        stacklevel=3,
    )
    good = next(each for each in out if not each["fit_error"])
    for each in failed:
        for name in ("test_scores", "train_scores"):
            if name in good:
                scores = good[name]
                each[name] = (
                    dict.fromkeys(scores, error_score) if isinstance(scores, dict) else error_score
                )
