"""Comparisons over folds: paired, corrected for shared training rows and for many methods."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """A mean paired difference (first minus second) with its 95 % interval and p value.

    Args:
        mean: The mean difference.
        low: The lower end of the 95 % interval; NaN with fewer than two folds.
        high: The upper end.
        p: The two-sided p value of no difference; NaN with fewer than two folds.
    """

    mean: float
    low: float
    high: float
    p: float

    def direction(self, alpha: float = 1 - LEVEL) -> int:
        """-1 if the first is significantly smaller, 1 if larger, 0 if no difference is shown."""
        return int(math.copysign(1, self.mean)) if self.p < alpha else 0


def paired(first: Sequence[float], second: Sequence[float], test_share: float) -> Difference:
    """The corrected resampled t test (Nadeau and Bengio 2003) on scores of the same folds.

    ``test_share``: test rows divided by training rows of a fold, 1 / (k - 1) in k-fold
    cross-validation. The variance of the mean of J differences is taken as (1 / J + test_share)
    times their sample variance, because folds share training rows; the ordinary t test takes 1 / J
    and reports differences that do not exist.
    """
    d = np.asarray(first, float) - np.asarray(second, float)
    d = d[np.isfinite(d)]
    n = len(d)
    if n < 2:
        return Difference(float(d.mean()) if n else math.nan, math.nan, math.nan, math.nan)
    mean, var = float(d.mean()), float(d.var(ddof=1))
    error = math.sqrt((1 / n + test_share) * var)
    if error == 0:  # equal differences in all folds give no estimate of their variance
        return Difference(mean, mean, mean, 1.0 if mean == 0 else math.nan)
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * error
    return Difference(
        mean, mean - half, mean + half, float(2 * stats.t.sf(abs(mean) / error, n - 1))
    )


def interval(values: Sequence[float], test_share: float) -> Difference:
    """The mean of fold scores with the interval of the same corrected variance."""
    return paired(values, [0.0] * len(values), test_share)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p values for many comparisons; NaN remains NaN."""
    order = sorted((i for i, p in enumerate(ps) if not math.isnan(p)), key=lambda i: ps[i])
    out, worst = [math.nan] * len(ps), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - rank) * ps[i]))
        out[i] = worst
    return out
