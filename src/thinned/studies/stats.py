"""Comparisons over folds: paired, corrected for shared training rows and for many methods."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
ROUNDING = 1e-6  # the relative precision of a score; sums of 32-bit floats differ by about 1e-7


@dataclass(frozen=True)
class Difference:
    """A mean paired difference (first minus second) with its 95 % interval and p value.

    Args:
        mean: The mean difference.
        low: The lower end of the 95 % interval; NaN with fewer than two folds.
        high: The upper end.
        p: The two-sided p value of no difference; NaN with fewer than two folds.
        spread: The standard deviation of the differences between folds, not below what rounding
            and single rows can cause.
        count: The number of folds.
        test_share: Test rows divided by training rows of a fold.
    """

    mean: float
    low: float
    high: float
    p: float
    spread: float = math.nan
    count: int = 0
    test_share: float = 0.0

    def direction(self, alpha: float = 1 - LEVEL) -> int:
        """-1 if the first is significantly smaller, 1 if larger, 0 if no difference is shown."""
        return int(math.copysign(1, self.mean)) if self.p < alpha else 0

    @property
    def error(self) -> float:
        """The standard error of the mean difference, corrected for shared training rows."""
        return self.spread * math.sqrt(1 / self.count + self.test_share) if self.count else math.nan

    def at_level(self, level: float) -> tuple[float, float]:
        """The interval of the mean difference at another level, such as 0.99."""
        if math.isnan(self.low):
            return math.nan, math.nan
        half = float(stats.t.ppf((1 + level) / 2, self.count - 1)) * self.error
        return self.mean - half, self.mean + half


def paired(
    first: Sequence[float],
    second: Sequence[float],
    test_share: float,
    row: float = 0.0,
) -> Difference:
    """The corrected resampled t test (Nadeau and Bengio 2003) on scores of the same folds.

    ``test_share``: test rows divided by training rows of a fold, 1 / (k - 1) in k-fold
    cross-validation. The variance of the mean of J differences is taken as (1 / J + test_share)
    times their sample variance, because folds share training rows; the ordinary t test takes 1 / J
    and reports differences that do not exist. J counts the folds of all repetitions.

    ``row``: how much one test row changes a score that counts rows, such as 1 / n for an error
    rate on n rows; 0 for other scores.

    The sample variance has a floor. Scores are rounded, so their differences vary by at least
    ``ROUNDING`` of their size. Of a score that counts rows, a difference of D rows has at least |D|
    rows on which the two disagree, and so a variance of at least |D| rows squared where neither is
    better; the floor is the mean of |D|, and that of a single row over all folds where no row
    differs.
    """
    a, b = np.asarray(first, float), np.asarray(second, float)
    good = np.isfinite(a - b)
    a, b = a[good], b[good]
    d = a - b
    n = len(d)
    if n < 2:
        return Difference(float(d.mean()) if n else math.nan, math.nan, math.nan, math.nan)
    mean, var = float(d.mean()), float(d.var(ddof=1))
    rounding = ROUNDING * max(float(np.abs(a).max()), float(np.abs(b).max()))
    # 1e-300: so that the interval of scores that are all exactly 0 has a width too
    var = max(var, rounding**2, 1e-300)
    if row:
        var = max(var, row**2 * max(float(np.abs(d).sum()) / row, 1.0) / n)
    spread = math.sqrt(var)
    error = math.sqrt(1 / n + test_share) * spread
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, n - 1))
    return Difference(mean, mean - half, mean + half, p, spread, n, test_share)


def pooled(means: Sequence[float], errors: Sequence[float], repeats: int, rows: int) -> Difference:
    """A mean of fold differences, with a standard error from the test rows within the folds.

    ``means`` and ``errors``: the difference in each fold and its standard error over the rows of
    the fold. The networks are taken as they are, so the claim is about them, not about networks
    that are trained on other rows; in return it needs no number of folds. Folds of one repetition
    have different test rows, so their variances add up. Repetitions have the same rows, so they do
    not reduce the variance. ``rows``: the number of test rows of one repetition.
    """
    n = len(means)
    mean = float(np.mean(means))
    error = math.sqrt(repeats * float(np.square(errors).sum())) / n
    degrees = max(rows - n // repeats, 1)
    half = float(stats.t.ppf((1 + LEVEL) / 2, degrees)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, degrees))
    return Difference(mean, mean - half, mean + half, p)


def interval(values: Sequence[float], test_share: float, row: float = 0.0) -> Difference:
    """The mean of fold scores with the interval of the same corrected variance."""
    return paired(values, [0.0] * len(values), test_share, row)


def repeats_to_decide(d: Difference, folds: int, most: int = 100) -> int | None:
    """How many repetitions of ``folds`` folds would show the difference ``d``.

    The mean and the spread are taken to remain as they are. None where more than ``most`` would be
    needed, or no number suffices: the folds share their rows, and repeating them does not reduce
    the share of the variance that comes from those rows.
    """
    if math.isnan(d.low) or d.mean == 0:
        return None
    for repeats in range(1, most + 1):
        n = repeats * folds
        error = d.spread * math.sqrt(1 / n + d.test_share)
        if abs(d.mean) > float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * error:
            return repeats
    return None


def rows_to_decide(d: Difference) -> float:
    """The factor by which the rows would have to grow for the difference ``d`` to be shown.

    The mean is taken to remain as it is, and the variance to be inversely proportional to the
    number of rows.
    """
    if math.isnan(d.low) or d.mean == 0:
        return math.inf
    half = (d.high - d.low) / 2
    return (half / d.mean) ** 2


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p values for many comparisons; NaN remains NaN."""
    order = sorted((i for i, p in enumerate(ps) if not math.isnan(p)), key=lambda i: ps[i])
    out, worst = [math.nan] * len(ps), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - rank) * ps[i]))
        out[i] = worst
    return out


def holm_levels(ps: Sequence[float]) -> list[float]:
    """For each comparison, the level of the interval that agrees with Holm's correction.

    It leaves out 0 exactly where the corrected p value is below 0.05: the k-th smallest of m p
    values is compared with 0.05 / (m - k + 1), and all after the first that is not below it with
    the same number as that one.
    """
    alpha = 1 - LEVEL
    order = sorted((i for i, p in enumerate(ps) if not math.isnan(p)), key=lambda i: ps[i])
    out, stopped = [LEVEL] * len(ps), math.nan
    for rank, i in enumerate(order):
        level = alpha / (len(order) - rank)
        if math.isnan(stopped) and not ps[i] < level:
            stopped = level
        out[i] = 1 - (level if math.isnan(stopped) else stopped)
    return out
