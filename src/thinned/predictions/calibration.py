"""How good predicted probabilities and spreads are: calibration, selection, conformal prediction.

Everything takes and returns NumPy arrays, whatever framework predicted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._errors import InputError, probability, whole
from .._optional import missing

Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Confidence and accuracy by bins of confidence, as :func:`reliability` returns them.

    Args:
        confidence: The mean confidence in each bin that is not empty.
        accuracy: The share of right predictions in it.
        count: The number of predictions in it.

    Example:
        >>> bins = reliability([[0.9, 0.1], [0.7, 0.3]], [0, 1], bins=2)
        >>> bins.accuracy.tolist(), bins.count.tolist()
        ([0.5], [2])
    """

    confidence: Array
    accuracy: Array
    count: NDArray[np.int64]

    @property
    def error(self) -> float:
        """The expected calibration error: the mean of |accuracy - confidence|, by counts."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.average(gaps, weights=self.count))


@dataclass(frozen=True, kw_only=True)
class RiskCoverage:
    """The mean loss of the most certain share of the predictions, for every share.

    Args:
        coverage: The shares of the predictions that are kept, ascending to 1.
        risk: The mean loss of those that are kept.

    Example:
        >>> curve = risk_coverage([0.1, 0.9], [0, 1])
        >>> curve.risk.tolist(), curve.area
        ([0.0, 0.5], 0.25)
    """

    coverage: Array
    risk: Array

    @property
    def area(self) -> float:
        """The mean risk over all shares: small where uncertainty orders the predictions well."""
        return float(self.risk.mean())


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """The share of the rows with the truth inside their set or interval, and its own interval.

    Args:
        rate: The share.
        low: The lower end of its exact binomial interval.
        high: The upper end.
        count: The number of rows.

    Example:
        >>> coverage([True] * 9 + [False]).rate
        0.9
    """

    rate: float
    low: float
    high: float
    count: int


def reliability(
    probabilities: ArrayLike, labels: ArrayLike, *, bins: int = 15, adaptive: bool = False
) -> Reliability:
    """Return confidence and accuracy by bins, as a reliability diagram shows them.

    Args:
        probabilities: [n, classes].
        labels: The classes [n], whole numbers from 0.
        bins: The number of bins, at least 1.
        adaptive: Whether all bins hold equally many predictions; otherwise they have equal widths
            in (0, 1].

    Returns:
        The bins that are not empty. Its ``error`` is the expected calibration error, with
        ``adaptive`` the adaptive one.

    Raises:
        InputError: Where shapes do not fit, or rows are no probabilities.

    Example:
        >>> reliability([[0.9, 0.1], [0.7, 0.3]], [0, 1], bins=2).confidence.tolist()
        [0.8]

    Reference:
        Guo, Pleiss, Sun, Weinberger 2017, "On calibration of modern neural networks", equation 3;
        Nixon et al. 2019, "Measuring calibration in deep learning", for equal counts.
    """
    p, y = _classified(probabilities, labels)
    whole(bins, "bins", 1)
    confidence, right = p.max(-1), p.argmax(-1) == y
    if adaptive:
        order = np.argsort(confidence, kind="stable")
        parts = [part for part in np.array_split(order, bins) if len(part)]
    else:
        number = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
        parts = [part for i in range(bins) if len(part := np.flatnonzero(number == i))]
    return Reliability(
        confidence=np.array([confidence[part].mean() for part in parts]),
        accuracy=np.array([right[part].mean() for part in parts]),
        count=np.array([len(part) for part in parts]),
    )


def brier_score(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean over rows of the sum of (probability - truth)^2 over the classes.

    Args:
        probabilities: [n, classes].
        labels: The classes [n], whole numbers from 0.

    Returns:
        The score, in [0, 2]; small is good.

    Raises:
        InputError: Where shapes do not fit, or rows are no probabilities.

    Example:
        >>> round(brier_score([[0.9, 0.1]], [0]), 3)
        0.02

    Reference:
        Brier 1950, "Verification of forecasts expressed in terms of probability".
    """
    p, y = _classified(probabilities, labels)
    truth = np.zeros_like(p)
    truth[np.arange(len(y)), y] = 1.0
    return float(((p - truth) ** 2).sum(-1).mean())


def log_likelihood(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean of the log-probabilities of the true classes, in nats.

    Args:
        probabilities: [n, classes].
        labels: The classes [n], whole numbers from 0.

    Returns:
        The mean; -inf where a true class has probability 0.

    Raises:
        InputError: Where shapes do not fit, or rows are no probabilities.

    Example:
        >>> round(log_likelihood([[0.5, 0.5]], [0]), 3)
        -0.693
    """
    p, y = _classified(probabilities, labels)
    with np.errstate(divide="ignore"):
        return float(np.log(p[np.arange(len(y)), y]).mean())


def gaussian_log_likelihood(mean: ArrayLike, std: ArrayLike, targets: ArrayLike) -> float:
    """Return the mean log-density of ``targets`` under normal distributions, in nats.

    Args:
        mean: The means, of any shape.
        std: The standard deviations, above 0, of the same shape.
        targets: The true values, of the same shape.

    Returns:
        The mean log-density.

    Raises:
        InputError: Where shapes differ, or a deviation is not above 0.

    Example:
        >>> round(gaussian_log_likelihood([0.0], [1.0], [0.0]), 3)
        -0.919
    """
    m, s, y = _same_shape(mean=mean, std=std, targets=targets)
    _positive(s)
    z = (y - m) / s
    return float((-0.5 * z * z - np.log(s) - 0.5 * np.log(2 * np.pi)).mean())


def risk_coverage(uncertainty: ArrayLike, losses: ArrayLike) -> RiskCoverage:
    """Return the mean loss of the most certain predictions, for every number of them.

    Args:
        uncertainty: [n], such as the entropy or the standard deviation.
        losses: [n], such as whether a prediction is wrong, or its squared error. Of equally
            uncertain predictions each counts their mean loss.

    Returns:
        The curve.

    Raises:
        InputError: Where shapes differ, or there are no rows.

    Example:
        >>> risk_coverage([0.1, 0.9, 0.5], [0, 1, 0]).risk.tolist()
        [0.0, 0.0, 0.3333333333333333]

    Reference:
        El-Yaniv and Wiener 2010, "On the foundations of noise-free selective classification".
    """
    u, losses_ = _same_shape(uncertainty=uncertainty, losses=losses)
    _, group = np.unique(u, return_inverse=True)
    means = np.bincount(group, losses_) / np.bincount(group)
    ordered = means[np.sort(group)]
    counts = np.arange(1, len(u) + 1)
    return RiskCoverage(coverage=counts / len(u), risk=np.cumsum(ordered) / counts)


def detection_auroc(inside: ArrayLike, outside: ArrayLike) -> float:
    """Return how well a score tells examples of another kind apart: the area under the ROC curve.

    Args:
        inside: The scores [n] of examples as in training.
        outside: The scores [m] of others, which should be higher.

    Returns:
        The probability that one of ``outside`` is above one of ``inside``; equal ones count half.

    Raises:
        InputError: Where a side is empty.

    Example:
        >>> detection_auroc([0.1, 0.2], [0.2, 0.3])
        0.875
    """
    low, high = _rows(inside, "inside"), _rows(outside, "outside")
    ordered = np.sort(low)
    below = np.searchsorted(ordered, high, "left")
    ties = np.searchsorted(ordered, high, "right") - below
    return float((below + 0.5 * ties).mean() / len(low))


def temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the temperature at which softmax(logits / temperature) has the highest likelihood.

    Choose it on rows that are neither for training nor for the final measure. It changes no
    decision, only the confidence.

    Args:
        logits: [n, classes]; the logarithms of averaged probabilities serve too.
        labels: The classes [n], whole numbers from 0.

    Returns:
        The temperature, above 0.

    Raises:
        InputError: Where shapes do not fit, or there is no best temperature: every row is right
            (confidence may grow for ever), or logits do not tell the classes apart.

    Example:
        >>> round(temperature([[4.0, 0.0]] * 4, [0, 0, 0, 1]), 3)
        3.641

    Reference:
        Guo, Pleiss, Sun, Weinberger 2017, "On calibration of modern neural networks", section 4.2.
    """
    z = np.asarray(logits, dtype=np.float64)
    y = _labels(labels, z, "logits")
    rows = np.arange(len(y))
    if (z[rows, y] == z.max(-1)).all():
        raise InputError(
            "labels: the largest logit of every row is that of its label, so the likelihood grows "
            "for ever the lower the temperature is; choose the temperature on rows with errors"
        )
    if z[rows, y].mean() <= z.mean():
        raise InputError(
            "logits: labels have no larger logits than other classes on average, so the best "
            "temperature is infinite; these logits predict nothing"
        )
    # The negative log-likelihood is convex in b = 1 / temperature: Newton's method, kept above 0.
    b = 1.0
    for _ in range(200):
        scaled = b * (z - z.max(-1, keepdims=True))
        p = np.exp(scaled)
        p /= p.sum(-1, keepdims=True)
        expected = (p * z).sum(-1)
        slope = (expected - z[rows, y]).mean()
        curvature = (p * (z - expected[:, None]) ** 2).sum(-1).mean()
        change = slope / max(curvature, 1e-300)
        change = min(max(change, -2.0 * b), 0.5 * b)
        b -= change
        if abs(change) <= 1e-13 * b:
            break
    return float(1.0 / b)


def conformal_sets(
    probabilities: ArrayLike,
    labels: ArrayLike,
    new: ArrayLike,
    *,
    alpha: float = 0.1,
    groups: ArrayLike | None = None,
    new_groups: ArrayLike | None = None,
) -> NDArray[np.bool_]:
    """Return sets of classes that hold the truth with probability 1 - alpha or more.

    A class is in the set of a row where its probability is at least a limit, which is chosen on
    calibration rows. The promise holds on average over rows that are exchangeable with these, for
    any model; with groups it holds within each.

    Args:
        probabilities: Those of the calibration rows [n, classes], which the model has not seen.
        labels: Their classes [n], whole numbers from 0.
        new: The probabilities of the rows to predict, [m, classes].
        alpha: The share of rows that may be missed, in (0, 1).
        groups: The groups of the calibration rows [n], or None.
        new_groups: Those of the new rows [m]; every one has to be among ``groups``.

    Returns:
        Which classes are in the sets, [m, classes]. All are where there are too few calibration
        rows for ``alpha``.

    Raises:
        InputError: Where shapes or groups do not fit, or ``alpha`` is not in (0, 1).

    Example:
        >>> calibration = [[0.9, 0.1]] * 9
        >>> conformal_sets(calibration, [0] * 9, [[0.95, 0.05], [0.5, 0.5]], alpha=0.1).tolist()
        [[True, False], [False, False]]

    Reference:
        Sadinle, Lei, Wasserman 2019, "Least ambiguous set-valued classifiers with bounded error
        levels"; Vovk 2012 for groups.
    """
    p, y = _classified(probabilities, labels)
    q = _probabilities(new, "new")
    if q.shape[-1] != p.shape[-1]:
        raise InputError(
            f"new has to have the {p.shape[-1]} classes of probabilities, but got {q.shape[-1]}"
        )
    scores = 1.0 - p[np.arange(len(y)), y]
    limits = _limits(scores, len(q), alpha, groups, new_groups)
    # exact for a score that equals the limit: both are differences from 1
    contained: NDArray[np.bool_] = (1.0 - q) <= limits[:, None]
    return contained


def conformal_intervals(
    mean: ArrayLike,
    targets: ArrayLike,
    new_mean: ArrayLike,
    *,
    std: ArrayLike | None = None,
    new_std: ArrayLike | None = None,
    alpha: float = 0.1,
    groups: ArrayLike | None = None,
    new_groups: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Return intervals that hold the true value with probability 1 - alpha or more.

    They are new_mean +- limit * new_std, with a limit that is chosen on calibration rows; without
    deviations all have one width. The promise holds on average over rows that are exchangeable with
    the calibration rows; with groups it holds within each.

    Args:
        mean: The predictions of the calibration rows [n], which the model has not seen.
        targets: Their true values [n].
        new_mean: The predictions of the rows to predict, [m].
        std: The deviations of the calibration rows [n], above 0, or None.
        new_std: Those of the new rows [m]; given exactly where ``std`` is.
        alpha: The share of rows that may be missed, in (0, 1).
        groups: The groups of the calibration rows [n], or None.
        new_groups: Those of the new rows [m]; every one has to be among ``groups``.

    Returns:
        The lower and the upper ends [m]; infinite where there are too few calibration rows for
        ``alpha``.

    Raises:
        InputError: Where shapes or groups do not fit, a deviation is not above 0, or ``alpha`` is
            not in (0, 1).

    Example:
        >>> low, high = conformal_intervals([0.0] * 9, list(range(9)), [10.0], alpha=0.2)
        >>> low.tolist(), high.tolist()
        ([3.0], [17.0])

    Reference:
        Lei, G'Sell, Rinaldo, Tibshirani, Wasserman 2018, "Distribution-free predictive inference
        for regression", sections 2.2 and 5.2.
    """
    m, y = _same_shape(mean=mean, targets=targets)
    new_m = _rows(new_mean, "new_mean")
    if (std is None) != (new_std is None):
        raise InputError("std and new_std go together; pass both, or none for one width")
    s, new_s = np.ones_like(m), np.ones_like(new_m)
    if std is not None and new_std is not None:
        _, s = _same_shape(mean=m, std=std)
        _, new_s = _same_shape(new_mean=new_m, new_std=new_std)
        _positive(s)
        _positive(new_s, "new_std")
    limits = _limits(np.abs(y - m) / s, len(new_m), alpha, groups, new_groups)
    return new_m - limits * new_s, new_m + limits * new_s


def coverage(contained: ArrayLike, *, level: float = 0.95) -> Coverage:
    """Return the share of rows with the truth inside, and the exact binomial interval of it.

    Args:
        contained: Whether the truth is inside, bool [n].
        level: The level of the interval, in (0, 1).

    Returns:
        The share and its interval.

    Raises:
        InputError: Where there are no rows, or they are not bool.
        ImportError: Where SciPy is not installed.

    Example:
        >>> found = coverage([True] * 18 + [False] * 2)
        >>> round(found.low, 3), round(found.high, 3)
        (0.683, 0.988)

    Reference:
        Clopper and Pearson 1934.
    """
    try:
        from scipy.stats import beta
    except ImportError as e:
        raise ImportError(missing(e, "study")) from e
    inside = np.asarray(contained)
    if inside.dtype != np.bool_ or inside.ndim != 1 or not len(inside):
        raise InputError(
            f"contained has to be bool of shape [n], but got {inside.dtype} {list(inside.shape)}"
        )
    tail = (1.0 - _open_probability(level, "level")) / 2
    n, hits = len(inside), int(inside.sum())
    return Coverage(
        rate=hits / n,
        low=0.0 if hits == 0 else float(beta.ppf(tail, hits, n - hits + 1)),
        high=1.0 if hits == n else float(beta.ppf(1 - tail, hits + 1, n - hits)),
        count=n,
    )


def _limits(scores: Array, count: int, alpha: float, groups: Any, new_groups: Any) -> Array:
    """The limit of the scores for each of ``count`` new rows."""
    _open_probability(alpha, "alpha")
    if (groups is None) != (new_groups is None):
        raise InputError("groups and new_groups go together; pass both or none")
    if groups is None:
        return np.full(count, _limit(scores, alpha))
    own, new = np.asarray(groups), np.asarray(new_groups)
    if own.shape != scores.shape or new.shape != (count,):
        raise InputError(
            f"groups and new_groups have to be of shape [{len(scores)}] and [{count}], but got "
            f"{list(own.shape)} and {list(new.shape)}"
        )
    unknown = sorted(set(new.tolist()) - set(own.tolist()), key=str)
    if unknown:
        raise InputError(
            f"new_groups has {unknown[0]!r}, which no calibration row is of; calibrate with rows "
            "of every group"
        )
    limits = np.empty(count)
    for group in np.unique(new):
        limits[new == group] = _limit(scores[own == group], alpha)
    return limits


def _limit(scores: Array, alpha: float) -> float:
    """The ceil((n + 1)(1 - alpha))-th smallest score; infinite where there are fewer."""
    n = len(scores)
    # rounded first, so that 10 * 0.9 is 9
    rank = int(np.ceil(np.round((n + 1) * (1.0 - alpha), 9)))
    return float(np.sort(scores)[rank - 1]) if rank <= n else float("inf")


def _open_probability(value: float, name: str) -> float:
    number = probability(value, name)
    if number in (0.0, 1.0):
        raise InputError(f"{name} has to be above 0 and below 1, but got {value}")
    return number


def _probabilities(values: ArrayLike, name: str) -> Array:
    p = np.asarray(values, dtype=np.float64)
    if p.ndim != 2 or not p.shape[0] or p.shape[1] < 2:
        raise InputError(
            f"{name} has to be of shape [n, classes] with at least one row and two classes, but "
            f"got {list(p.shape)}; write two columns for two classes"
        )
    if not (np.isfinite(p).all() and (p >= 0).all() and np.allclose(p.sum(-1), 1.0, atol=1e-3)):
        raise InputError(
            f"{name} has to hold probabilities: no negative numbers, and rows that sum to 1; apply "
            "a softmax to logits first"
        )
    return p


def _classified(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Array, NDArray[np.int64]]:
    p = _probabilities(probabilities, "probabilities")
    return p, _labels(labels, p, "probabilities")


def _labels(labels: ArrayLike, scores: Array, name: str) -> NDArray[np.int64]:
    y = np.asarray(labels)
    if scores.ndim != 2 or y.shape != scores.shape[:1] or not len(y):
        raise InputError(
            f"labels has to have one class for each row of {name} [n, classes], but got "
            f"{list(y.shape)} for {list(scores.shape)}"
        )
    if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= scores.shape[1]:
        raise InputError(
            f"labels has to hold whole numbers from 0 to {scores.shape[1] - 1}, the columns of "
            f"{name}"
        )
    return y.astype(np.int64)


def _rows(values: ArrayLike, name: str) -> Array:
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 1 or not len(rows) or not np.isfinite(rows).all():
        raise InputError(f"{name} has to be finite numbers [n], but got {list(rows.shape)}")
    return rows


def _same_shape(**values: ArrayLike) -> Iterator[Array]:
    arrays = {name: np.asarray(value, dtype=np.float64) for name, value in values.items()}
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) > 1 or not all(a.size and np.isfinite(a).all() for a in arrays.values()):
        found = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise InputError(
            f"{' and '.join(arrays)} have to be finite numbers of one shape, but got {found}"
        )
    return iter(arrays.values())


def _positive(std: Array, name: str = "std") -> None:
    if not (std > 0).all():
        raise InputError(
            f"{name} has to be above 0 everywhere, but the least is {std.min():g}; add the noise "
            "of the targets, or leave deviations out"
        )
