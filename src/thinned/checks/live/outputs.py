"""Rules on the output of a model, and on what the model is for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ...surgery.tensor_values import count_zeros, float_parts, is_dense
from ..finding import Finding
from .check_run import CheckRun
from .evaluation import largest_difference, location
from .preserve import float_tensors
from .record import DROPOUT_KINDS, PassRecord, looks_like_dropout

MOVED = 1e-4  # a likelihood ratio of 1 to four places
ERRORS = 10.0  # standard errors of a mean over at least 16 passes: below 1e-6 for normal noise


def policy_ratio(run: CheckRun) -> Iterator[Finding]:
    """L13: two training passes of a policy on the same input differ by more than 1e-4 in some
    output, and dropout drew.
    """
    if "policy" not in run.purposes:
        run.unchecked.append(("L13", "depends on what the model is for; pass purpose='policy'"))
        return
    one, two = run.training_before
    difference = largest_difference(one.output, two.output)
    draws = [
        d
        for d in one.draws
        if d.kind in DROPOUT_KINDS or looks_like_dropout(one.by_name.get(d.name))
    ]
    if difference > MOVED and draws:
        names = ", ".join(dict.fromkeys(d.name or d.function for d in draws[:4]))
        text = f"two training passes on one input differ by {difference:.3g}, because of {names}"
        evidence = (("difference", difference),)
        yield Finding("L13", text, evidence=evidence, **location(draws[0]))


def dropped_outputs(run: CheckRun) -> Iterator[Finding]:
    """L14: the output of the model is the output of a dropout, and a loss reads it.

    Signal: a tensor of the output is the very result of the last dropout, or a view of it, and it
    has exact zeros in training and none in evaluation. The input of a loss function that the model
    calls counts as output too. That a loss reads the output is known from such a call, from
    ``loss`` or ``purpose``; without them the output may be features, and ``unchecked`` says so.
    """
    record = run.training_before[0]
    if record.last_dropout is None:
        return
    draw, result = record.last_dropout
    by_losses, outputs = ([x for _, x in record.losses], float_tensors(record.output))
    read = [t for t in by_losses if t is result or _same_memory(t, result)]
    if not result.numel() or not (read or any(_same_memory(t, result) for t in outputs)):
        return
    evaluation = run.evaluations[0]
    evaluated = [
        t
        for t in (*float_tensors(evaluation.output), *(x for _, x in evaluation.losses))
        if t.numel() == result.numel()
    ]
    zeros = _zero_share(result)
    zeros_without = max((_zero_share(t) for t in evaluated), default=0.0)
    if not zeros > zeros_without:
        return
    if run.loss is None and not read and not run.purposes - {"monte carlo"}:
        why = "the output is that of a dropout, an error if a loss reads it; pass purpose= or loss="
        run.unchecked.append(("L14", why))
        return
    text = f"{zeros:.1%} of the output is dropped to 0 in training"
    evidence = (("zeros in training", zeros), ("in evaluation", zeros_without))
    yield Finding("L14", text, evidence=evidence, **location(draw))


def _same_memory(one: Tensor, other: Tensor) -> bool:
    return one is other or (one.numel() == other.numel() and _same_start(one, other))


def _same_start(one: Tensor, other: Tensor) -> bool:
    return is_dense(one) and is_dense(other) and one.data_ptr() == other.data_ptr()


def _zero_share(x: Tensor) -> float:
    zeros, elements = count_zeros(x)
    return zeros / max(1, elements)


def mean_shift(run: CheckRun) -> Iterator[Finding]:
    """L15: the mean output of a regression in training is not its output in evaluation.

    Statistic: per pass the mean of (training - evaluation) over all outputs; its mean over the
    passes is 10 standard errors from 0 and more than 1 % of the standard deviation of the outputs
    in evaluation. Only for a regression (``purpose``, or a loss such as ``F.mse_loss``), at least
    16 passes, and without batch normalization, which has other statistics in training.
    """
    if "regression" not in run.purposes:
        run.unchecked.append(("L15", "depends on what the model is for; pass purpose='regression'"))
        return
    if run.training_before[0].norms:
        run.unchecked.append(("L15", "batch normalization has other statistics in training"))
        return
    if len(run.training) < 16:
        run.unchecked.append(("L15", f"needs 16 samples, but has {len(run.training)}"))
        return
    evaluation = _flat(_prediction(run.evaluations[0]))
    means = []
    for record in run.training:
        flat = _flat(_prediction(record))
        if flat.shape != evaluation.shape:
            return
        means.append((flat - evaluation).mean())
    shifts = torch.stack(means)
    shift, error = float(shifts.mean()), float(shifts.std()) / math.sqrt(len(shifts))
    spread = float(evaluation.std()) if evaluation.numel() > 1 else abs(float(evaluation.mean()))
    if error > 0 and abs(shift) > ERRORS * error and abs(shift) > 0.01 * spread:
        text = f"over {len(shifts)} masks the mean output is {shift:+.3g} from that of evaluation"
        yield Finding("L15", text, evidence=(("shift", shift), ("standard error", error)))


def _prediction(record: PassRecord) -> Any:
    """The input of the first loss that the model computes; without one, its output."""
    return record.losses[0][1] if record.losses else record.output


def _flat(output: Any) -> Tensor:
    """All floating-point values of an output, in one dimension."""
    parts = [p for t in float_tensors(output) for p in float_parts(t.detach())]
    return torch.cat([torch.zeros(0, dtype=torch.float64), *(p.double().flatten() for p in parts)])


def nothing_left(run: CheckRun) -> Iterator[Finding]:
    """L19: a dropout of rate 1 drew, or a training pass gave NaN or infinity where no evaluation
    did.
    """
    for calls in run.training_before[0].by_place().values():
        draw = calls[0]
        if draw.rate == 1.0 and draw.kind in ("dropout", "attention"):
            text = f"{draw.function} drops everything, at rate 1"
            yield Finding("L19", text, evidence=(("rate", 1.0),), **location(draw))
    if any(_not_finite(r) for r in run.evaluations):
        return
    bad = [r for r in run.training if _not_finite(r)]
    if bad and bad[0].draws:
        count = len(run.training)
        text = f"{len(bad)} of {count} training passes give NaN or infinity, and no evaluation does"
        yield Finding("L19", text, evidence=(("share of passes", len(bad) / count),))


def _not_finite(record: PassRecord) -> bool:
    """Whether the output has NaN or +infinity; -infinity is how logits are masked."""
    return any(
        bool((torch.isnan(part) | (part == math.inf)).any())
        for t in float_tensors(record.output)
        if not t.is_complex()
        for part in float_parts(t)
    )


def skipped(run: CheckRun) -> Iterator[Finding]:
    """L28: under DistributedDataParallel, modules with parameters run in some training passes and
    not in others.

    Signal: of the modules that own trainable parameters, at least one ran in one pass and was
    skipped in another; the model was passed wrapped (without ``find_unused_parameters`` or a static
    graph), or with ``ddp=True``.
    """
    skipped_modules = []
    count = len(run.training)
    for name, module in run.model.named_modules():
        if any(p.requires_grad for p in module.parameters(recurse=False)):
            ran = sum(name in r.modules for r in run.training)
            if 0 < ran < count:
                skipped_modules.append((name, ran))
    if skipped_modules and not run.ddp:
        why = "some passes skip layers, which is an error under DDP; pass ddp=True"
        run.unchecked.append(("L28", why))
    elif skipped_modules:
        name, ran = skipped_modules[0]
        text = (
            f"some passes skip {len(skipped_modules)} modules with parameters; this one ran in "
            f"{ran} of {count}"
        )
        yield Finding("L28", text, site=name, evidence=(("share of passes", ran / count),))


def nothing_to_sample(run: CheckRun) -> Iterator[Finding]:
    """L29: in a model for Monte Carlo prediction, no training pass draws, or all outputs are equal
    bit by bit.
    """
    if "monte carlo" not in run.purposes:
        why = "depends on what the model is for; pass purpose='monte carlo'"
        run.unchecked.append(("L29", why))
        return
    outputs = [r.output for r in run.training]
    others = [*outputs[1:], run.evaluations[0].output]
    if not any(r.draws for r in run.training):
        yield Finding("L29", "the model draws nothing")
    elif not any(largest_difference(outputs[0], other) for other in others):
        yield Finding("L29", f"{len(outputs)} samples of its output are equal")
