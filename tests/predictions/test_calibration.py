"""Calibration measures, against scikit-learn, SciPy and sums by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, special, stats

from sklearn import metrics
from thinned import InputError
from thinned.predictions import calibration


def made(n=400, classes=4, seed=0):
    """Probabilities, and labels that are drawn from sharper ones: overconfident by half."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)) * 2
    p = special.softmax(logits, -1)
    true = special.softmax(logits / 2, -1)
    labels = np.array([rng.choice(classes, p=row) for row in true])
    return logits, p, labels


def test_scores_are_those_of_scikit_learn():
    _, p, y = made()
    assert calibration.log_likelihood(p, y) == pytest.approx(-metrics.log_loss(y, p))
    one_hot = np.eye(4)[y]
    assert calibration.brier_score(p, y) == pytest.approx(((p - one_hot) ** 2).sum() / len(y))
    two = p[:, :2] / p[:, :2].sum(-1, keepdims=True)
    label = (y % 2).astype(int)
    assert calibration.brier_score(two, label) == pytest.approx(
        2 * metrics.brier_score_loss(label, two[:, 1])
    )
    inside, outside = np.round(p[:200, 0], 1), np.round(p[200:, 0] + 0.1, 1)
    truth = np.r_[np.zeros(200), np.ones(200)]
    assert calibration.detection_auroc(inside, outside) == pytest.approx(
        metrics.roc_auc_score(truth, np.r_[inside, outside])
    )
    m, s = p[:, 0], p[:, 1] + 0.1
    assert calibration.gaussian_log_likelihood(m, s, p[:, 2]) == pytest.approx(
        stats.norm(m, s).logpdf(p[:, 2]).mean()
    )


def test_calibration_errors_by_hand():
    p = np.array([[0.95, 0.05], [0.85, 0.15], [0.2, 0.8], [0.45, 0.55]])
    labels = [0, 1, 1, 0]
    # widths of 1/2: one bin, confidence 0.7875, accuracy 0.5; tenths: 4 bins
    assert calibration.reliability(p, labels, bins=2).error == pytest.approx(0.2875)
    by_tenths = (abs(1 - 0.95) + abs(0 - 0.85) + abs(1 - 0.8) + abs(0 - 0.55)) / 4
    assert calibration.reliability(p, labels, bins=10).error == pytest.approx(by_tenths)
    # equal counts: (0.55, 0.8) with accuracy 1/2, (0.85, 0.95) with accuracy 1/2
    adaptive = calibration.reliability(p, labels, bins=2, adaptive=True)
    assert adaptive.count.tolist() == [2, 2]
    assert adaptive.error == pytest.approx((abs(0.5 - 0.675) + abs(0.5 - 0.9)) / 2)


def test_a_calibrated_forecast_has_a_small_error_and_an_overconfident_one_a_large():
    """5,000 rows drawn from their own probabilities; the error of 15 bins is below 0.03 there with
    a probability above 0.999 (it is 0.012 on average), and the overconfident one has 0.1 and more.
    """
    logits, p, y = made(5000, seed=1)
    assert calibration.reliability(special.softmax(logits / 2, -1), y).error < 0.03
    assert calibration.reliability(p, y).error > 0.1


def test_the_temperature_is_the_minimum_that_scipy_finds():
    for seed in range(5):
        logits, _, y = made(seed=seed)
        for scale in (0.01, 1.0, 100.0):
            z = logits * scale

            def loss(log_t, z=z, y=y):
                return metrics.log_loss(y, special.softmax(z / np.exp(log_t), -1))

            want = optimize.minimize_scalar(
                loss, (np.log(scale), np.log(scale) + 1), options={"xtol": 1e-12}
            )
            assert calibration.temperature(z, y) == pytest.approx(np.exp(want.x), rel=1e-5)


def test_no_best_temperature():
    with pytest.raises(InputError, match="grows for ever"):
        calibration.temperature([[2.0, 1.0], [0.0, 3.0]], [0, 1])
    with pytest.raises(InputError, match="predict nothing"):
        calibration.temperature([[2.0, 1.0], [0.0, 3.0]], [1, 0])


def test_risk_coverage_by_hand_and_with_ties():
    curve = calibration.risk_coverage([3.0, 1.0, 2.0, 1.0], [1.0, 0.0, 0.0, 1.0])
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert curve.risk.tolist() == [0.5, 0.5, pytest.approx(1 / 3), 0.5]


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5])
def test_conformal_sets_and_intervals_keep_their_promise(alpha):
    """Over 300 draws of 99 calibration and 50 new rows: the mean coverage lies in [1 - alpha, 1 -
    alpha + 1/100] (exact for continuous scores), within 5 standard errors.
    """
    rng = np.random.default_rng(3)
    sets, intervals = [], []
    for _ in range(300):
        scale = rng.uniform(0.5, 2, size=149)
        y = rng.normal(size=149) * scale
        std = scale * rng.uniform(0.5, 2, size=149)
        low, high = calibration.conformal_intervals(
            np.zeros(99), y[:99], np.zeros(50), std=std[:99], new_std=std[99:], alpha=alpha
        )
        intervals.append(((low <= y[99:]) & (y[99:] <= high)).mean())
        p = rng.dirichlet(np.ones(5), size=149)
        labels = rng.integers(5, size=149)
        found = calibration.conformal_sets(p[:99], labels[:99], p[99:], alpha=alpha)
        sets.append(found[np.arange(50), labels[99:]].mean())
    for covered in (sets, intervals):
        error = np.std(covered) / np.sqrt(len(covered))
        assert 1 - alpha - 5 * error < np.mean(covered) < 1 - alpha + 0.01 + 5 * error


def test_groups_have_limits_of_their_own():
    mean, targets = np.zeros(18), np.r_[np.arange(9), 10 * np.arange(9)].astype(float)
    groups = ["a"] * 9 + ["b"] * 9
    low, high = calibration.conformal_intervals(
        mean, targets, [0.0, 0.0], alpha=0.2, groups=groups, new_groups=["b", "a"]
    )
    assert high.tolist() == [70.0, 7.0]
    assert low.tolist() == [-70.0, -7.0]
    with pytest.raises(InputError, match="new_groups has 'c'"):
        calibration.conformal_intervals(
            mean, targets, [0.0], alpha=0.2, groups=groups, new_groups=["c"]
        )


def test_too_few_calibration_rows_give_everything():
    low, high = calibration.conformal_intervals([0.0] * 8, [1.0] * 8, [0.0], alpha=0.1)
    assert (low[0], high[0]) == (-np.inf, np.inf)
    assert calibration.conformal_sets([[0.9, 0.1]] * 8, [0] * 8, [[0.5, 0.5]], alpha=0.1).all()


def test_the_interval_of_the_coverage_is_that_of_scipy():
    for hits, n in ((0, 10), (10, 10), (37, 50)):
        found = calibration.coverage([True] * hits + [False] * (n - hits))
        want = stats.binomtest(hits, n).proportion_ci(0.95, "exact")
        assert (found.low, found.high) == pytest.approx((want.low, want.high))
        assert found.rate == hits / n


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda c: c.brier_score([0.5, 0.5], [0, 1]), "two columns"),
        (lambda c: c.brier_score([[2.0, -1.0]], [0]), "softmax"),
        (lambda c: c.brier_score([[0.5, 0.5]], [2]), "from 0 to 1"),
        (lambda c: c.brier_score([[0.5, 0.5]], [0.0]), "whole numbers"),
        (lambda c: c.brier_score([[0.5, 0.5]], [0, 1]), "one class for each row"),
        (lambda c: c.reliability([[0.5, 0.5]], [0], bins=0), "bins"),
        (lambda c: c.gaussian_log_likelihood([0.0], [0.0], [0.0]), "std has to be above 0"),
        (lambda c: c.conformal_intervals([0.0], [0.0], [0.0], alpha=0.0), "alpha"),
        (lambda c: c.conformal_intervals([0.0], [0.0], [0.0], std=[1.0]), "go together"),
        (lambda c: c.risk_coverage([0.1], [0.1, 0.2]), "of one shape"),
        (lambda c: c.detection_auroc([], [1.0]), "inside"),
        (lambda c: c.coverage([1, 0]), "bool"),
    ],
)
def test_bad_input(run, message):
    with pytest.raises(InputError, match=message):
        run(calibration)
