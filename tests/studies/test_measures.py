"""The measures against scikit-learn and torch, and comparisons with the constant prediction."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from sklearn import metrics
from thinned import InputError
from thinned.studies.measures import against_constant, constant_outputs, constant_scores, resolve
from thinned.train import Rows, Split, Task
from thinned.train.fit import mean_losses

CLASSES = Task("classification", 3)
TWO = Task("classification", 2)
VALUES = Task("regression", 1, 2.5, 7.0)


def made(task, n=90, seed=0, weights=None):
    """A split with random targets, and outputs that know something of the test targets."""
    g = torch.Generator().manual_seed(seed)

    def part(rows):
        if task.kind == "regression":
            y = torch.randn(rows, generator=g)
        else:
            y = torch.randint(0, task.outputs, (rows,), generator=g)
        return Rows(torch.zeros(rows, 1), y, torch.arange(rows))

    if weights:
        task = Task(task.kind, task.outputs, task.scale, task.center, weights)
    split = Split(task, part(2 * n), part(n), test=part(n))
    y = split.test.y
    outputs = torch.randn(n, task.outputs, generator=g) * 0.5
    outputs += y[:, None] if task.kind == "regression" else F.one_hot(y, task.outputs)
    return split, outputs


def probabilities(outputs):
    return outputs.double().softmax(1).numpy()


@pytest.mark.parametrize(
    ("name", "task", "theirs"),
    [
        (
            "balanced-accuracy",
            CLASSES,
            lambda y, o: metrics.balanced_accuracy_score(y, o.argmax(1)),
        ),
        ("roc-auc", TWO, lambda y, o: metrics.roc_auc_score(y, probabilities(o)[:, 1])),
        (
            "roc-auc",
            CLASSES,
            lambda y, o: metrics.roc_auc_score(y, probabilities(o), multi_class="ovr"),
        ),
        ("f1", TWO, lambda y, o: metrics.f1_score(y, o.argmax(1))),
        ("f1", CLASSES, lambda y, o: metrics.f1_score(y, o.argmax(1), average="macro")),
        (
            "matthews_corrcoef",
            CLASSES,
            lambda y, o: metrics.matthews_corrcoef(y, o.argmax(1)),
        ),
        ("mae", VALUES, lambda y, o: metrics.mean_absolute_error(unscaled(y), unscaled(o[:, 0]))),
        ("r2", VALUES, lambda y, o: metrics.r2_score(unscaled(y), unscaled(o[:, 0]))),
    ],
)
def test_measures_are_those_of_scikit_learn(name, task, theirs):
    split, outputs = made(task)
    measure = resolve(name, task.kind, task.outputs)
    assert measure(outputs, split.test.y, task) == pytest.approx(theirs(split.test.y, outputs))


def unscaled(values):
    return values.double().numpy() * VALUES.scale + VALUES.center


def test_a_measure_of_outputs_that_are_not_finite_is_nan():
    split, outputs = made(TWO)
    outputs[0, 0] = math.inf
    assert math.isnan(resolve("f1", "classification", 2)(outputs, split.test.y, TWO))


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("rmse", "classification", "--metric rmse is for regression, .*use log-loss"),
        ("f1", "regression", "--metric f1 is for classification, .*use rmse"),
        ("roc_aucc", "classification", "or the name of a scorer of scikit-learn"),
    ],
)
def test_measures_that_do_not_exist_or_fit(name, kind, message):
    with pytest.raises(InputError, match=message):
        resolve(name, kind, 2)


def test_class_weights_are_those_of_torch():
    """The loss is the sum of weighted losses, which torch divides by the weights, over n."""
    weights = (0.5, 2.0, 1.25)
    split, outputs = made(CLASSES, weights=weights)
    y = split.test.y
    total = F.cross_entropy(outputs, y, weight=torch.tensor(weights), reduction="sum")
    ours = mean_losses(outputs[None], y, split.task)
    assert ours.item() == pytest.approx(total.item() / len(y), rel=1e-6)


@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.25)])
def test_the_constant_prediction_has_the_lowest_training_loss(weights):
    """Against a minimizer that knows nothing of frequencies."""
    split, _ = made(CLASSES, weights=weights)
    out = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    steps = torch.optim.LBFGS([out], max_iter=200, tolerance_grad=1e-10)
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)

    def closure():
        steps.zero_grad()
        y = split.train.y
        loss = F.cross_entropy(out.expand(len(y), -1), y, weight=weight)
        loss.backward()
        return loss

    steps.step(closure)
    best = out.detach().softmax(0)
    torch.testing.assert_close(constant_outputs(split).softmax(0).double(), best, atol=1e-5, rtol=0)


def test_constant_scores_by_hand():
    split, _ = made(VALUES)
    mean = split.train.y.double().mean()
    loss, rmse = constant_scores(split, resolve(None, "regression", 0), 0)["test"]
    squared = (split.test.y.double() - mean).square().mean().item()
    assert loss == pytest.approx(squared)
    assert rmse == pytest.approx(2.5 * math.sqrt(squared))


@pytest.mark.parametrize("task", [TWO, CLASSES, VALUES])
def test_losses_against_the_constant_prediction_are_a_paired_t_test(task):
    split, outputs = made(task)
    y = split.test.y
    constant = constant_outputs(split).expand(len(y), -1)
    if task.kind == "regression":
        a, b = ((o[:, 0] - y).square() for o in (outputs, constant))
    else:
        a, b = (F.cross_entropy(o, y, reduction="none") for o in (outputs, constant))
    theirs = stats.ttest_rel(a.double(), b.double())
    (mean, error), (change, change_error) = against_constant(
        outputs, split, resolve(None, task.kind, task.outputs)
    )
    assert mean == pytest.approx(float((a - b).mean()), rel=1e-5)
    assert mean / error == pytest.approx(float(theirs.statistic), rel=1e-5)
    if task.kind == "regression":
        assert change == pytest.approx(2.5 * float(a.mean().sqrt() - b.mean().sqrt()), rel=1e-5)
        assert change / change_error == pytest.approx(float(theirs.statistic), rel=1e-5)
    else:
        wrong = [(o.argmax(1) != y).double() for o in (outputs, constant)]
        theirs = stats.ttest_rel(*wrong)
        assert change == pytest.approx(float((wrong[0] - wrong[1]).mean()))
        assert change / change_error == pytest.approx(float(theirs.statistic), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "task"),
    [("roc-auc", TWO), ("f1", CLASSES), ("balanced-accuracy", CLASSES), ("mae", VALUES)],
)
def test_errors_of_scorers_are_those_of_a_bootstrap(name, task):
    """100 resamples of 300 rows within classes; the errors agree to a factor of 0.6 to 1.6."""
    split, outputs = made(task, 300)
    measure = resolve(name, task.kind, task.outputs)
    y = split.test.y
    constant = constant_outputs(split).expand(len(y), -1)
    rng = np.random.default_rng(0)
    strata = [np.arange(300)] if task is VALUES else [np.flatnonzero(y == c) for c in y.unique()]
    drawn = []
    for _ in range(100):
        rows = np.concatenate([rng.choice(s, len(s)) for s in strata])
        drawn.append(measure(outputs[rows], y[rows], task) - measure(constant[rows], y[rows], task))
    _, (mean, error) = against_constant(outputs, split, measure)
    sign = -1 if measure.lower else 1
    assert sign * mean > 0
    assert mean == pytest.approx(measure(outputs, y, task) - measure(constant, y, task), rel=1e-6)
    assert 0.6 < error / np.std(drawn) < 1.6


def test_scorers_without_a_class_have_no_error():
    split, outputs = made(CLASSES)
    split.test.y[:] = 0
    split.test.y[:2] = torch.tensor([1, 2])  # without its only row, ROC AUC is not defined
    _, (_, error) = against_constant(outputs, split, resolve("roc-auc", "classification", 3))
    assert math.isnan(error)


def test_equal_predictions_are_no_difference():
    split, _ = made(CLASSES)
    outputs = constant_outputs(split).expand(90, -1)
    for mean, error in against_constant(outputs, split, resolve("error", "classification", 3)):
        assert mean == 0
        assert error > 0
