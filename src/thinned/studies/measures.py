"""The measures of a study: what validation chooses by, and what the verdict is about.

A study has one primary measure. Validation chooses by it, and the verdict tests it; other measures
are described. Every record has a loss, and one metric next to it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from .._errors import InputError, unknown
from ..train import Rows, Split, Task
from ..train.fit import mean_losses

LOSS_NAMES = {"classification": "log-loss", "regression": "squared error"}
ROUNDING = 1e-6  # as in stats, which would load SciPy in every worker
GROUPS = 20  # of rows, in the jackknife of a score that is not a mean over rows
# name -> (kind, scorer of scikit-learn for two classes, for more classes)
NAMES = {
    "log-loss": ("classification", None, None),
    "error": ("classification", None, None),
    "balanced-accuracy": ("classification", "balanced_accuracy", "balanced_accuracy"),
    "roc-auc": ("classification", "roc_auc", "roc_auc_ovr"),
    "f1": ("classification", "f1", "f1_macro"),
    "rmse": ("regression", None, None),
    "mae": ("regression", "neg_mean_absolute_error", "neg_mean_absolute_error"),
    "r2": ("regression", "r2", "r2"),
}
TITLES = {
    "balanced-accuracy": "balanced accuracy",
    "roc-auc": "ROC AUC",
    "f1": "F1",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R2",
}
# scores that change with every row by an amount of their own; others count rows
CONTINUOUS = ("log_loss", "brier")


@dataclass(frozen=True)
class Measure:
    """The measure of a study.

    Args:
        name: Its name in ``--metric``.
        title: The name in reports of the metric, which each record has next to the loss.
        scorer: The scorer of scikit-learn that computes the metric. None: the built-in error rate
            or RMSE.
        on_loss: Whether the loss is the primary measure, and the metric is described.
        lower: Whether lower values of the metric are better.
        percent: Whether the metric is a share of rows, printed in percent.
        by_rows: Whether the metric counts rows, so that a single row changes it by 1 / n.
    """

    name: str
    title: str
    scorer: str | None = None
    on_loss: bool = False
    lower: bool = True
    percent: bool = False
    by_rows: bool = False

    @property
    def column(self) -> str:
        """The name of the metric in tables and records."""
        return "error" if self.on_loss else self.name.removeprefix("neg_").replace("-", "_")

    def to_json(self) -> dict[str, Any]:
        """A JSON-serializable dict, for the header of the records."""
        return asdict(self)

    def __call__(self, outputs: Tensor, y: Tensor, task: Task) -> float:
        """The metric of outputs [n, outputs] for targets [n]; NaN where it is not defined."""
        assert self.scorer is not None
        if not outputs.isfinite().all():
            return math.nan
        from .scorers import score  # a worker needs scikit-learn only for these measures

        value = score(self.scorer, outputs.double().numpy(), y.numpy(), task)
        return -value if self.lower else value


def resolve(
    name: str | None, kind: Literal["classification", "regression"], classes: int
) -> Measure:
    """The measure called ``name``; None: the log-loss or the RMSE.

    Raises :class:`thinned.InputError` where there is no such measure, or it is for another task.
    """
    from sklearn.metrics import get_scorer_names

    default = "log-loss" if kind == "classification" else "rmse"
    key = default if name is None else name
    if key in NAMES:
        task_kind, two, more = NAMES[key]
        if task_kind != kind:
            fitting = ", ".join(n for n, (k, *_) in NAMES.items() if k == kind)
            raise InputError(
                f"--metric {key} is for {task_kind}, but this is {kind}; use {fitting}, or a "
                "scorer of scikit-learn"
            )
        if key in ("log-loss", "error"):
            return Measure(key, "error", on_loss=key == "log-loss", percent=True, by_rows=True)
        if key == "rmse":
            return Measure(key, "RMSE")
        scorer = two if classes == 2 else more
        assert scorer is not None
        title = "mean F1" if key == "f1" and classes > 2 else TITLES[key]
    elif key in get_scorer_names():
        scorer, title = key, key.removeprefix("neg_").replace("_", " ")
    else:
        raise InputError(
            f"{unknown('metric', key, NAMES)}, or the name of a scorer of scikit-learn, such as "
            "matthews_corrcoef"
        )
    return Measure(
        key,
        title,
        scorer,
        lower=scorer.startswith("neg_"),
        by_rows=kind == "classification" and not any(c in scorer for c in CONTINUOUS),
    )


def constant_outputs(split: Split) -> Tensor:
    """The outputs of the constant prediction: the class frequencies or mean of the training rows.

    Of the constant predictions, this has the lowest loss on the training rows. Where a class has no
    training row, one row is added to every class, so that no probability is 0.
    """
    if split.task.kind == "regression":
        return split.train.y.double().mean().float().view(1)
    counts = torch.bincount(split.train.y, minlength=split.task.outputs).double()
    counts = counts + 1 if (counts == 0).any() else counts
    if split.task.class_weights is not None:
        counts = counts * torch.tensor(split.task.class_weights)
    return (counts / counts.sum()).log().float()


def constant_scores(split: Split, measure: Measure, fold: int) -> dict[str, tuple[float, float]]:
    """The (loss, metric) of the constant prediction on each set of rows.

    Raises :class:`thinned.InputError` where the measure cannot be computed.
    """
    out = constant_outputs(split)
    parts = {"train": split.train, "val": split.val, "test": split.test, "extra": split.extra}
    scores = {}
    for name, rows in parts.items():
        if rows is None:
            continue
        outputs = out.expand(len(rows), -1)
        loss = mean_losses(outputs[None].double(), rows.y, split.task).item()
        if measure.scorer is not None:
            try:
                metric = measure(outputs, rows.y, split.task)
            except (ValueError, TypeError, AttributeError) as error:
                raise InputError(
                    f"--metric {measure.name} cannot be computed for this task: "
                    f"{str(error).splitlines()[0]}; use another"
                ) from None
            if not math.isfinite(metric):
                raise InputError(
                    f"--metric {measure.name} is not defined on the {name} rows of fold "
                    f"{fold + 1}; use another, or fewer folds"
                )
        elif split.task.kind == "regression":
            metric = (outputs[:, 0] - rows.y).double().square().mean().sqrt().item()
            metric *= split.task.scale
        else:
            metric = (outputs.argmax(1) != rows.y).double().mean().item()
        scores[name] = (loss, metric)
    return scores


Comparison = tuple[tuple[float, float], tuple[float, float]]


def against_constant(outputs: Tensor, split: Split, measure: Measure) -> Comparison:
    """The test scores of a network minus those of the constant prediction, with standard errors.

    A (difference, standard error) pair for the loss and one for the metric. The standard error is
    that over the test rows: from the differences of each row where the score is a mean over rows,
    and by the delete-a-group jackknife for scorers of scikit-learn. It is NaN where the scorer is
    not defined on a part of the rows. It has a floor, as differences between folds have.

    Args:
        outputs: The outputs of the network for the test rows, [n, outputs].
        split: The rows of the fold.
        measure: The measure of the study.

    Returns:
        The two pairs.
    """
    assert split.test is not None
    rows, task = split.test, split.task
    outputs = outputs.double()
    constant = constant_outputs(split).double().expand(len(rows), -1)
    loss = _of_rows(_losses(outputs, rows, task), _losses(constant, rows, task))
    if measure.scorer is not None:
        return loss, _jackknife(outputs, constant, rows, task, measure)
    if task.kind == "regression":
        # (a^2 - b^2) / (a + b) = a - b: the RMSE is better exactly where the squared error is
        total = sum(_losses(o, rows, task).mean().sqrt().item() for o in (outputs, constant))
        factor = task.scale / total if total else 0.0
        return loss, (loss[0] * factor, loss[1] * factor)
    wrong = [(o.argmax(1) != rows.y).double() for o in (outputs, constant)]
    mean, error = _of_rows(*wrong)
    return loss, (mean, max(error, 1 / len(rows)))


def _losses(outputs: Tensor, rows: Rows, task: Task) -> Tensor:
    if task.kind == "regression":
        return (outputs[:, 0] - rows.y).square()
    losses = F.cross_entropy(outputs, rows.y, reduction="none")
    return (
        losses
        if task.class_weights is None
        else losses * torch.tensor(task.class_weights, dtype=torch.float64)[rows.y]
    )


def _of_rows(first: Tensor, second: Tensor) -> tuple[float, float]:
    d = first - second
    floor = max(ROUNDING * torch.maximum(first, second).abs().max().item(), 1e-150)
    error = d.std().item() / math.sqrt(len(d)) if len(d) > 1 else math.nan
    return d.mean().item(), max(error, floor)


def _jackknife(
    outputs: Tensor, constant: Tensor, rows: Rows, task: Task, measure: Measure
) -> tuple[float, float]:
    """The difference of a score, and its standard error from the score without each group of rows.

    Rows are assigned to the groups at random. Folds have the same share of each class, and so have
    the groups.
    """
    n = len(rows)
    count = min(GROUPS, n // 2)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    if task.kind == "classification":
        order = order[rows.y[order].argsort(stable=True)]
    group = torch.empty(n, dtype=torch.long)
    group[order] = torch.arange(n) % max(count, 1)

    def difference(kept: Tensor) -> float:
        try:
            a, b = (measure(o[kept], rows.y[kept], task) for o in (outputs, constant))
        except ValueError:  # a class without rows
            return math.nan
        return a - b

    every = torch.ones(n, dtype=torch.bool)
    mean = difference(every)
    without = torch.tensor([difference(group != g) for g in range(count)], dtype=torch.float64)
    if count < 2 or not without.isfinite().all():
        return mean, math.nan
    error = math.sqrt((count - 1) * without.var(correction=0).item())
    return mean, max(error, 1 / n if measure.by_rows else ROUNDING * abs(mean), 1e-150)
