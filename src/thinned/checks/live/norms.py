"""The rule on the variance that batch normalization averages."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from ..finding import Finding
from .check_run import CheckRun

LOW, HIGH = 0.9, 1.1
LEAST = 16  # passes
ERRORS = 8.0  # standard errors of the ratio: for normal noise, over 16 passes, chance is below 1e-6


def variance_shift(run: CheckRun) -> Iterator[Finding]:
    """L5: after a dropout, the input of batch normalization varies less, or more, in evaluation
    than in training.

    Statistic: the ratio of variances, evaluation to training, each summed over channels. The
    running statistics of the evaluation are the exact averages over the training passes, so that
    old or fresh ones do not count. A ratio outside [0.9, 1.1] by more than 8 standard errors, taken
    over at least 16 training passes, is a finding. Where the input is the output of a dropout of
    rate p, the predicted ratio is v / ((c^2 + v) / q - c^2), for channels of mean c and variance v
    and q = 1 - p (Li et al. 2019). The shift propagates from layer to layer, so of all that are off
    the first that runs is reported, with the number of the others.
    """
    if run.adapted_evaluation is None:
        return
    if len(run.training) < LEAST:
        run.unchecked.append(("L5", f"needs {LEAST} samples, but has {len(run.training)}"))
        return
    shifted = []
    for name, calls in run.adapted_evaluation.norms.items():
        inputs = [r.norms[name][0] for r in run.training if name in r.norms]
        norm = run.model.get_submodule(name)
        if not inputs or not inputs[0].draws or getattr(norm, "running_var", None) is None:
            continue
        totals = torch.stack([n.var.sum() for n in inputs])
        training, evaluation = float(totals.mean()), float(calls[0].var.sum())
        if not training or len(inputs) < LEAST:
            continue
        ratio = evaluation / training
        error = ratio * float(totals.std()) / training / math.sqrt(len(inputs))
        if LOW - ERRORS * error <= ratio <= HIGH + ERRORS * error:
            continue
        evidence: list[tuple[str, float | str]] = [("ratio", ratio), ("standard error", error)]
        rate = inputs[0].direct_rate
        if rate is not None and rate < 1:
            c, v = calls[0].mean, calls[0].var
            predicted = float(v.sum() / ((c * c + v) / (1.0 - rate) - c * c).sum())
            evidence.append(("predicted", predicted))
        shifted.append((name, ratio, evidence))
    if shifted:
        name, ratio, evidence = shifted[0]
        text = f"its input has {ratio:.2f} times the variance in evaluation that it has in training"
        if others := shifted[1:]:
            worst = max(others, key=lambda other: _size(other[1]))
            text += f"; {len(others)} more are off, the farthest {worst[0]} with {worst[1]:.2f}"
            evidence.append(("others", float(len(others))))
        yield Finding("L5", text, site=name, evidence=tuple(evidence))


def _size(ratio: float) -> float:
    return abs(math.log(ratio)) if ratio > 0 else math.inf
