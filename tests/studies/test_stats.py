"""The statistics against scipy, hand calculation, and a simulation in which the truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from thinned.studies.stats import (
    holm,
    holm_levels,
    interval,
    paired,
    pooled,
    repeats_to_decide,
    rows_to_decide,
)


def test_without_correction_it_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=8), rng.normal(0.3, 1, size=8)
    ours, theirs = paired(a, b, 0.0), stats.ttest_rel(a, b)
    low, high = theirs.confidence_interval(0.95)
    np.testing.assert_allclose(
        (ours.mean, ours.low, ours.high, ours.p), ((a - b).mean(), low, high, theirs.pvalue)
    )


def test_correction_by_hand():
    """Differences 1, 2, 3 in three folds, test share 1/2: error sqrt((1/3 + 1/2) * 1), t = 2 /
    0.9129 with 2 degrees.
    """
    d = paired([1, 2, 3], [0, 0, 0], 0.5)
    error = math.sqrt(5 / 6)
    assert d.mean == 2
    assert d.p == pytest.approx(2 * stats.t.sf(2 / error, 2))
    assert d.high - d.mean == pytest.approx(4.302653 * error, rel=1e-6)


@pytest.mark.parametrize("folds", [5, 10])
def test_level_is_kept_where_folds_share_rows(folds):
    """Normal differences with the correlation that the correction supposes, no true difference: 5 %
    are found.

    20,000 studies; a binomial z test at alpha 1e-6. Uncorrected, far more are found.
    """
    share = 1 / (folds - 1)
    correlation = share / (1 + share)
    rng = np.random.default_rng(folds)
    common = rng.normal(size=(20_000, 1)) * math.sqrt(correlation)
    d = common + rng.normal(size=(20_000, folds)) * math.sqrt(1 - correlation)
    found = [
        np.mean([paired(row, np.zeros(folds), s).p < 0.05 for row in d[:4000] if s == 0] or [0])
        for s in (0.0,)
    ]
    corrected = np.mean([paired(row, np.zeros(folds), share).p < 0.05 for row in d])
    assert abs(corrected - 0.05) < 4.9 * math.sqrt(0.05 * 0.95 / 20_000)
    assert found[0] > 0.12


def test_few_and_equal_folds():
    one = paired([0.3], [0.1], 0.25)
    assert one.mean == pytest.approx(0.2)
    assert math.isnan(one.p)
    assert one.direction() == 0
    same = paired([0.1, 0.2], [0.1, 0.2], 0.25)
    assert (same.mean, same.p, same.direction()) == (0.0, 1.0, 0)
    assert math.isnan(paired([math.nan], [1.0], 0.25).mean)
    assert paired([1.0, 2.0, math.nan], [0.0, 0.0, 0.0], 0.25).mean == 1.5


def test_direction():
    assert paired([1, 1.1, 0.9, 1, 1.05], [2, 2, 2, 2, 2], 0.25).direction() == -1
    assert paired([2, 2, 2, 2, 2], [1, 1.1, 0.9, 1, 1.05], 0.25).direction() == 1
    assert interval([0.1, 0.2, 0.3], 0.5).mean == pytest.approx(0.2)


def test_holm_by_hand():
    """Holm 1979: sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, never decreasing."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    corrected = holm([math.nan, 0.01])
    assert math.isnan(corrected[0])
    assert corrected[1] == 0.01
    assert holm([]) == []


def test_pooled_folds_by_hand():
    """Two folds with errors 0.3 and 0.4: the mean has error 0.5 / 2. Repetitions of the same rows
    leave it.
    """
    one = pooled([1.0, 2.0], [0.3, 0.4], 1, 52)
    assert one.mean == 1.5
    assert one.high - one.mean == pytest.approx(stats.t.ppf(0.975, 50) * 0.25)
    assert one.p == pytest.approx(2 * stats.t.sf(6, 50))
    twice = pooled([1.0, 2.0] * 2, [0.3, 0.4] * 2, 2, 52)
    assert (twice.mean, twice.high, twice.p) == pytest.approx((one.mean, one.high, one.p))


def test_level_of_pooled_folds():
    """3,000 studies of three folds without a difference, rows that are far from normal: a binomial
    z test at alpha 1e-6 for 5 %, which heavy tails change a little.
    """
    rng = np.random.default_rng(0)
    d = rng.exponential(size=(3000, 3, 100)) - rng.exponential(size=(3000, 3, 100))
    means, errors = d.mean(2), d.std(2, ddof=1) / 10
    found = np.mean([pooled(m, e, 1, 300).p < 0.05 for m, e in zip(means, errors, strict=True)])
    assert abs(found - 0.05) < 4.9 * math.sqrt(0.05 * 0.95 / 3000)


def test_scores_that_differ_by_rounding_are_no_difference():
    """Errors of 32-bit sums: the differences are 1e-9, so all intervals contain 0."""
    d = paired([0.5 + 2e-9, 0.5 + 2.0001e-9], [0.5, 0.5], 1.0)
    assert d.direction() == 0
    assert d.low < 0 < d.high


def test_floor_of_scores_that_count_rows():
    """One row of 100 more in each of two folds has no sample variance; p is not 0."""
    d = paired([0.11, 0.11], [0.10, 0.10], 1.0, row=0.01)
    assert d.p > 0.05
    # the mean of |D| is one row, so the variance is one row squared
    assert d.spread == pytest.approx(0.01)
    assert paired([0.1, 0.1], [0.1, 0.1], 1.0, row=0.01).high > 0


def test_holm_levels_agree_with_holm():
    """The interval of each level leaves out 0 exactly where the corrected p is below 0.05."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        scores = rng.normal(rng.choice([0.0, 1.0, 2.0], 6)[:, None], 1, (6, 8))
        ds = [paired(row, np.zeros(8), 1 / 7) for row in scores]
        ps = [d.p for d in ds]
        for d, p, level in zip(ds, holm(ps), holm_levels(ps), strict=True):
            low, high = d.at_level(level)
            assert (low > 0 or high < 0) == (p < 0.05)


def test_repeats_and_rows_to_decide():
    d = paired([1.5, 2.0, 0.6, 1.8, 0.1], [0.0] * 5, 0.25)
    assert d.direction() == 0
    repeats = repeats_to_decide(d, 5)
    assert repeats is not None
    shown = [
        abs(d.mean) / (d.spread * math.sqrt(1 / (5 * r) + 0.25)) > stats.t.ppf(0.975, 5 * r - 1)
        for r in (repeats - 1, repeats)
    ]
    assert shown == [False, True]
    assert repeats_to_decide(paired([1, -1, 0.1], [0, 0, 0], 0.5), 3) is None
    assert rows_to_decide(d) == pytest.approx(((d.high - d.mean) / d.mean) ** 2)
