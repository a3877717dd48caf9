"""The statistics against scipy, hand calculation, and a simulation in which the truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from thinned.studies.stats import holm, interval, paired


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
