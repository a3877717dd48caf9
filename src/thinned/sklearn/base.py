"""What the two estimators share: parameters, rows, jobs, fitted attributes, outputs."""

from __future__ import annotations

import copy
import itertools
import warnings
from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor

from .._errors import InputError
from ..algebra.drop import Drop
from ..algebra.schedule import SCHEDULES
from . import modular, stacked
from .methods import ACTIVATIONS, modules
from .network import head
from .records import FeatureRows, FitJob, FitPlan, Setting, Track
from .specs import Points, specs
from .training import threads, train
from .types import Noise, Rows, Seed, Units, Weight

_ROWS = 1 << 21  # numbers in one piece of a prediction
MONTE_CARLO = 100  # networks where a spread is asked for and samples is 0


class DropoutEstimator(BaseEstimator, metaclass=ABCMeta):
    """Abstract: a perceptron with dropout that follows scikit-learn's conventions."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "dropout": [
            Interval(Real, 0, 1, closed="both"),
            str,
            Drop,
            dict,
            *SCHEDULES,
            "array-like",
            None,
        ],
        "input_dropout": [Interval(Real, 0, 1, closed="both"), str, Drop, dict, *SCHEDULES, None],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "solver": [StrOptions({"adam", "sgd"})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "l1": [Interval(Real, 0, None, closed="left")],
        "max_norm": [Interval(Real, 0, None, closed="neither"), None],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
        "samples": [Interval(Integral, 0, None, closed="left")],
        "divergence": [Interval(Real, 0, None, closed="left"), *SCHEDULES],
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
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.dropout = dropout
        self.input_dropout = input_dropout
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.l1 = l1
        self.max_norm = max_norm
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.samples = samples
        self.divergence = divergence

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    @abstractmethod
    def _encode(
        self, y: Any, fresh: bool, incremental: bool = False, sample_weight: Any = None
    ) -> Any:
        """Targets as float32 [n, outputs]; sets what the kind of estimator knows about them, anew
        if ``fresh``.
        """

    def _decode(self, outputs: Any) -> Any:
        """Outputs of the network in the unit of the target."""
        return outputs

    @abstractmethod
    def _head(self) -> str:
        """The activation of the outputs, by scikit-learn's name."""

    @abstractmethod
    def _scorer(self, y: Any, weight: Any) -> Any:
        """The score of outputs [n, outputs] on encoded targets, for early stopping."""

    @abstractmethod
    def _weights(self, y: Any, weight: Any) -> Any:
        """The weights of rows, or None."""

    def _fit(self, X: Any, y: Any, sample_weight: Any, incremental: bool) -> Any:
        self._validate_params()
        if incremental and self.early_stopping:
            raise ValueError(
                "partial_fit does not support early_stopping=True, for it sees no epoch end"
            )
        fresh = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        widths(self.hidden_layer_sizes)
        X, y = self._validate(X, y, fresh)
        if sample_weight is not None:
            sample_weight = checked_weights(sample_weight, X)
        encoded = self._encode(y, fresh, incremental, sample_weight)
        weight = self._weights(y, sample_weight)
        job = self._job(
            FeatureRows(X), torch.from_numpy(encoded), weight, fresh=fresh, incremental=incremental
        )
        try:
            train([job], verbose=bool(self.verbose))
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=3)
            job.stopped = True
        self._collect(job, incremental)
        if not job.stopped and not incremental:
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the "
                f"optimization hasn't converged"
                " yet.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return self

    def _validate(self, X: Any, y: Any, reset: bool) -> tuple[Any, Any]:
        return validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            multi_output=True,
            dtype=(np.float64, np.float32),
            reset=reset,
            y_numeric=self._head() == "identity",
        )

    def _job(
        self,
        rows: FeatureRows,
        y: Tensor,
        weight: Any,
        *,
        fresh: bool = True,
        incremental: bool = False,
        index: Any = None,
        labels: Any = None,
    ) -> FitJob:
        """What is to be trained: a network, new or as it stands, on ``index`` of the rows (default:
        all).
        """
        random = check_random_state(self.random_state)
        if fresh or not hasattr(self, "_seed"):
            self._seed = int(copy.deepcopy(random).randint(np.iinfo(np.int32).max))
        units = (rows.x.shape[1], *widths(self.hidden_layer_sizes), y.shape[1])
        coefs, intercepts = self._start(units, random) if fresh else (self.coefs_, self.intercepts_)
        if (*tuple(len(w) for w in coefs), coefs[-1].shape[1]) != units:
            raise ValueError(
                f"the fitted network has layers of {[len(w) for w in coefs]} units, but "
                f"hidden_layer_sizes and the data now "
                f"make {list(units[:-1])}; fit with warm_start=False"
            )
        index = np.arange(rows.n) if index is None else index
        held = scorer = None
        if self.early_stopping:
            index, held = self._split(index, y, random)
            if weight is not None:
                _check_shares(weight[index], weight[held])
            scorer = self._scorer(y[held].numpy(), None if weight is None else weight[held])
        n = len(index)
        size = min(200, n) if self.batch_size == "auto" else int(self.batch_size)
        if size > n:
            warnings.warn(
                f"batch_size {size} is more than the {n} rows there are to train on; it is clipped",
                stacklevel=4,
            )
            size = n
        each = self._points()
        by_modules = modules(each)
        if by_modules:
            modular.check(units, self.activation, each)
        plan = FitPlan(
            units=units,
            activation=self.activation,
            head=self._head(),
            solver=self.solver,
            batch_size=size,
            epochs=1 if incremental else self.max_iter,
            shuffle=bool(self.shuffle),
            early_stopping=bool(self.early_stopping),
            tol=float(self.tol),
            patience=float(self.n_iter_no_change),
            momentum=float(self.momentum) if self.solver == "sgd" else 0.0,
            nesterov=bool(self.nesterovs_momentum),
            beta_1=float(self.beta_1),
            beta_2=float(self.beta_2),
            epsilon=float(self.epsilon),
            rows=n,
            validation=0 if held is None else len(held),
            weighted=weight is not None,
            modules=by_modules,
            divergence=self.divergence,
        )
        setting = Setting(
            specs=each,
            lr=float(self.learning_rate_init),
            alpha=float(self.alpha),
            l1=float(self.l1),
            max_norm=None if self.max_norm is None else float(self.max_norm),
            seed=self._seed,
        )
        track = Track(
            rows=rows,
            y=y,
            index=torch.from_numpy(index),
            random=random,
            weight=None if weight is None else torch.from_numpy(np.asarray(weight, np.float32)),
            held=None if held is None else torch.from_numpy(held),
            scorer=scorer,
        )
        job = FitJob(plan, setting, track, list(coefs), list(intercepts))
        if not fresh:
            job.state, job.anchored = self.dropout_state_, incremental
            job.memory = (
                self._memory if incremental and self._memory_solver == self.solver else None
            )
            job.step, job.loss_curve, job.waited = (
                self._step,
                self.loss_curve_,
                self._no_improvement,
            )
            job.best_loss = np.inf if self.best_loss_ is None else self.best_loss_
            if self.early_stopping and self.best_validation_score_ is not None:
                job.validation_scores, job.best_score = (
                    self.validation_scores_ or [],
                    self.best_validation_score_,
                )
                job.best = (list(coefs), list(intercepts), self.dropout_state_)
        return job

    def _points(self) -> Points:
        return specs(self.dropout, self.input_dropout, len(widths(self.hidden_layer_sizes)))

    def _start(
        self, units: tuple[int, ...], random: np.random.RandomState
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """New weights: those that ``MLPClassifier`` would draw (Glorot and Bengio 2010)."""
        coefs, intercepts = [], []
        for wide, narrow in itertools.pairwise(units):
            bound = np.sqrt((2.0 if self.activation == "logistic" else 6.0) / (wide + narrow))
            coefs.append(random.uniform(-bound, bound, (wide, narrow)).astype(np.float32))
            intercepts.append(random.uniform(-bound, bound, narrow).astype(np.float32))
        return coefs, intercepts

    def _split(self, index: Any, y: Tensor, random: np.random.RandomState) -> tuple[Any, Any]:
        """Rows to train on and rows to validate on, as scikit-learn's perceptrons split them."""
        stratify = self._strata(y[index].numpy())
        training, held = train_test_split(
            index, random_state=random, test_size=self.validation_fraction, stratify=stratify
        )
        if len(held) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of "
                "your dataset."
            )
        return training, held

    def _strata(self, y: Any) -> Any:
        return None

    def _collect(self, job: FitJob, incremental: bool = False) -> None:
        """What a job learned, as fitted attributes."""
        best = (
            job.best
            if job.best is not None and self.early_stopping
            else (job.coefs, job.intercepts, job.state)
        )
        self.coefs_, self.intercepts_, self.dropout_state_ = best
        if not all(
            np.isfinite(w).all()
            for w in (*self.coefs_, *self.intercepts_, *self.dropout_state_.values())
        ):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large "
                "values and need to be"
                " preprocessed."
            )
        self.n_iter_ = job.epochs
        self.n_layers_ = len(job.plan.units)
        self.n_outputs_ = job.plan.units[-1]
        self.out_activation_ = job.plan.head
        self.loss_curve_ = job.loss_curve
        self.loss_ = job.loss_curve[-1] if job.loss_curve else np.inf
        self.best_loss_ = None if self.early_stopping else job.best_loss
        self.validation_scores_ = job.validation_scores if self.early_stopping else None
        self.best_validation_score_ = job.best_score if self.early_stopping else None
        self.t_ = (
            getattr(self, "t_", 0)
            if job.step > job.epochs * -(-job.plan.rows // job.plan.batch_size)
            else 0
        )
        self.t_ += job.epochs * job.plan.rows
        self._memory, self._memory_solver = job.memory, job.plan.solver
        self._step, self._no_improvement = job.step, job.waited

    def _rows(self, X: Any) -> Any:
        check_is_fitted(self)
        return validate_data(
            self, X, accept_sparse="csr", dtype=(np.float64, np.float32), reset=False
        )

    def _outputs(self, X: Any) -> Any:
        """The outputs for checked rows [n, outputs]: without noise, or the mean of ``samples``
        thinned networks.
        """
        if self.samples:
            return self._moments(X, self.samples)[0]
        return self._pass(X, None)[0]

    def _moments(self, X: Any, samples: int) -> tuple[Any, Any]:
        """Mean and standard deviation of the outputs over thinned networks."""
        mean = square = None
        for number, outputs in enumerate(self._samples(X, samples), 1):
            if mean is None:
                mean, square = outputs.copy(), np.zeros_like(outputs)
            else:  # Welford's way, which does not cancel
                step = outputs - mean
                mean += step / number
                square += step * (outputs - mean)
        assert square is not None
        return mean, np.sqrt(square / samples)

    def _samples(self, X: Any, samples: int) -> Any:
        size = max(1, _ROWS // (X.shape[0] * self._widest()))
        for start in range(0, samples, size):
            yield from self._pass(X, torch.arange(start, min(start + size, samples)))

    def _pass(self, X: Any, samples: Tensor | None) -> Any:
        """Return the outputs [networks, rows, outputs] of thinned networks, or of the one without
        noise.
        """
        many = 1 if samples is None else len(samples)
        with threads(many * X.shape[0] * sum(w.size for w in self.coefs_)):
            outputs = [head(z, self.out_activation_).numpy() for z in self._pieces(X, samples)]
        return self._decode(np.concatenate(outputs, 1))

    def _widest(self) -> int:
        return max(max(w.shape) for w in self.coefs_)

    def predict_samples(self, X: Rows, samples: int | None = None) -> Any:
        """Return the outputs of thinned networks, one for each draw of the masks.

        A mask is a function of the fitted network, of the position of the row in ``X`` and of the
        number of the draw, so the same call gives the same numbers (Gal and Ghahramani 2016).

        Args:
            X: Rows [rows, features].
            samples: The number of networks, at least 1; None takes the parameter ``samples``, or
                100 where that is 0.

        Returns:
            An array [samples, rows, outputs]: class probabilities (one column where there are two
            classes), or values.

        Raises:
            InputError: Where ``samples`` is no whole number of at least 1.
        """
        if samples is None:
            samples = self.samples or MONTE_CARLO
        elif isinstance(samples, bool) or not isinstance(samples, Integral) or samples < 1:
            raise InputError(
                f"samples must be a whole number of at least 1, but is {samples!r}; use predict "
                "for the network without noise"
            )
        X = self._rows(X)
        return np.stack(list(self._samples(X, int(samples))))

    def _pieces(self, X: Any, samples: Tensor | None) -> Any:
        """The last sums of rows [networks, b, outputs], piece by piece; ``samples``: which thinned
        networks, or None.
        """
        each = self._points()
        network = (self.coefs_, self.intercepts_, self.activation)
        fitted = (
            modular.Fitted(
                *network,
                self.out_activation_,
                each,
                self.dropout_state_,
                self._seed,
                max(self._step - 1, 0),
                X.dtype,
            )
            if modules(each)
            else stacked.Fitted(*network, each, self._seed, X.dtype)
        )
        widest = (
            fitted.cells
            if samples is not None and isinstance(fitted, modular.Fitted)
            else self._widest()
        )
        size = max(1, _ROWS // widest)
        with torch.no_grad():
            for start in range(0, max(X.shape[0], 1), size):
                some = X[start : start + size]
                x = torch.from_numpy(
                    np.array(some, order="C") if isinstance(some, np.ndarray) else some.toarray()
                )
                yield fitted.sums(x, start, samples)


def checked_weights(sample_weight: Any, X: Any) -> Any:
    """One weight of at least 0 for each row."""
    weight = _check_sample_weight(sample_weight, X)
    if (weight < 0).any():
        row = int(np.argmax(weight < 0))
        raise InputError(
            f"sample_weight must be at least 0 for every row, but row {row} has {weight[row]:g}; "
            "leave out the rows that are not to count, or give them the weight 0"
        )
    return weight


def _check_shares(training: Any, held: Any) -> None:
    for name, weight in (("training", training), ("validation", held)):
        if not np.asarray(weight).any():
            raise InputError(
                f"all {len(weight)} {name} rows that early_stopping=True splits off have weight "
                "0; change validation_fraction or random_state, leave out rows of weight 0, or "
                "set early_stopping=False"
            )


def widths(sizes: Any) -> list[int]:
    """``hidden_layer_sizes`` as a list."""
    each = [int(w) for w in sizes] if hasattr(sizes, "__iter__") else [int(sizes)]
    if any(w <= 0 for w in each):
        raise ValueError(f"hidden_layer_sizes must be > 0, got {each}.")
    return each
