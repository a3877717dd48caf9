"""The rule on the variance that batch normalisation averages."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from ..finding import Finding
from .battery import Battery

LOW, HIGH = 0.9, 1.1
LEAST = 16  # passes
ERRORS = 8.0  # standard errors of the ratio: for normal noise, over 16 passes, chance is below 1e-6


def variance_shift(battery: Battery) -> Iterator[Finding]:
    """L5: what batch normalisation is given varies less, or more, in evaluation than in training,
    behind a dropout.

    Statistic: the ratio of variances, evaluation to training, each summed over channels. The
    evaluation has running statistics that are the exact averages of what the training passes saw,
    so that old or fresh ones do not count. A ratio outside [0.9, 1.1] by more than 8 standard
    errors, taken over at least 16 training passes, is a finding. Where the input is what a dropout
    of rate p returned, the predicted ratio is v / ((c^2 + v) / q - c^2), for channels of mean c and
    variance v and q = 1 - p (Li et al. 2019). The shift goes on from layer to layer, so of all that
    are off the first that runs is the finding, which counts the others.
    """
    if battery.adapted is None:
        return
    if len(battery.training) < LEAST:
        battery.unchecked.append(("L5", f"needs {LEAST} samples, but has {len(battery.training)}"))
        return
    off = []
    for name, calls in battery.adapted.norms.items():
        seen = [r.norms[name][0] for r in battery.training if name in r.norms]
        if (
            not seen
            or not seen[0].draws
            or not hasattr(battery.model.get_submodule(name), "running_var")
        ):
            continue
        if battery.model.get_submodule(name).running_var is None:
            continue
        totals = torch.stack([n.var.sum() for n in seen])
        mean, rest = float(totals.mean()), float(calls[0].var.sum())
        if not mean or len(seen) < LEAST:
            continue
        ratio = rest / mean
        error = ratio * float(totals.std()) / mean / math.sqrt(len(seen))
        if LOW - ERRORS * error <= ratio <= HIGH + ERRORS * error:
            continue
        evidence: list[tuple[str, float | str]] = [("ratio", ratio), ("standard error", error)]
        if seen[0].direct is not None and seen[0].direct < 1:
            c, v = calls[0].mean, calls[0].var
            predicted = float(v.sum() / ((c * c + v) / (1.0 - seen[0].direct) - c * c).sum())
            evidence.append(("predicted", predicted))
        off.append((name, ratio, evidence))
    if off:
        name, ratio, evidence = off[0]
        text = f"its input has {ratio:.2f} times the variance in evaluation that it has in training"
        if others := off[1:]:
            worst = max(others, key=lambda one: abs(math.log(one[1])) if one[1] > 0 else math.inf)
            text += f"; {len(others)} more are off, the farthest {worst[0]} with {worst[1]:.2f}"
            evidence.append(("others", float(len(others))))
        yield Finding("L5", text, site=name, evidence=tuple(evidence))
