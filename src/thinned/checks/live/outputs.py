"""Rules on what comes out, and on what the model is for."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from ..finding import Finding
from .battery import Battery
from .evaluation import at, far
from .preserve import floats
from .record import DROPS, PassRecord, drop_like

MOVED = 1e-4  # a likelihood ratio of 1 to four places
ERRORS = 10.0  # standard errors of a mean over at least 16 passes: below 1e-6 for normal noise


def policy_ratio(battery: Battery) -> Iterator[Finding]:
    """L13: two training passes of a policy on the same input differ by more than 1e-4 in some
    output. By sites that draw.
    """
    if battery.purpose != "policy":
        battery.unchecked.append(("L13", "depends on what the model is for; say purpose='policy'"))
        return
    one, two = battery.early
    apart = far(one.output, two.output)
    sites = [d for d in one.draws if d.place[1] in DROPS or drop_like(one.by_name.get(d.name))]
    if apart > MOVED and sites:
        names = ", ".join(dict.fromkeys(d.name or d.place[2] for d in sites[:4]))
        yield Finding("L13", f"two training passes of one input differ by {apart:.3g}, through {names}",
                      evidence=(("difference", apart),), **at(sites[0]))  # fmt: skip


def dropped_outputs(battery: Battery) -> Iterator[Finding]:
    """L14: the model's output is what a dropout returned, and a loss reads it.

    Signal: a tensor of the output is the very result of the last dropout, or a view of it, with
    exact zeros in training and none in evaluation. That an output goes to a loss is known from
    ``loss`` or ``purpose``; without them an output may be features, and ``unchecked`` says so.
    """
    record = battery.early[0]
    if record.last is None:
        return
    one, result = record.last
    outputs = [t for t in floats(record.output) if t.numel() == result.numel() and t.numel()]
    if not any(t is result or t.data_ptr() == result.data_ptr() for t in outputs):
        return
    rest = [t for t in floats(battery.evaluations[0].output) if t.numel() == result.numel()]
    zeros, still = (
        float((result == 0).double().mean()),
        max((float((t == 0).double().mean()) for t in rest), default=0.0),
    )
    if not zeros > still:
        return
    if battery.loss is None and battery.purpose in (None, "monte carlo"):
        why = "the output ends in a dropout, which is wrong where a loss reads it; say purpose= or loss="
        battery.unchecked.append(("L14", why))
        return
    yield Finding("L14", f"{zeros:.1%} of the output are dropped to 0 in training",
                  evidence=(("zeros in training", zeros), ("in evaluation", still)), **at(one))  # fmt: skip


def mean_shift(battery: Battery) -> Iterator[Finding]:
    """L15: the mean output of a regression in training is not its output in evaluation.

    Statistic: per pass the mean of (training - evaluation) over all outputs; its mean over the
    passes, 10 standard errors from 0 and more than 1 % of the outputs' standard deviation in
    evaluation. Only for ``purpose="regression"``, at least 16 passes, and without batch
    normalisation, which has other statistics in training.
    """
    if battery.purpose != "regression":
        battery.unchecked.append(
            ("L15", "depends on what the model is for; say purpose='regression'")
        )
        return
    if battery.early[0].norms:
        battery.unchecked.append(("L15", "batch normalisation has other statistics in training"))
        return
    if len(battery.training) < 16:
        battery.unchecked.append(("L15", f"needs 16 samples, but has {len(battery.training)}"))
        return
    rest = torch.cat([t.double().flatten() for t in floats(battery.evaluations[0].output)])
    means = []
    for record in battery.training:
        flat = torch.cat([t.detach().double().flatten() for t in floats(record.output)])
        if flat.shape != rest.shape:
            return
        means.append((flat - rest).mean())
    shifts = torch.stack(means)
    shift, error = float(shifts.mean()), float(shifts.std()) / math.sqrt(len(shifts))
    spread = float(rest.std()) if rest.numel() > 1 else abs(float(rest.mean()))
    if error > 0 and abs(shift) > ERRORS * error and abs(shift) > 0.01 * spread:
        yield Finding("L15", f"over {len(shifts)} masks the mean output is {shift:+.3g} from that of evaluation",
                      evidence=(("shift", shift), ("standard error", error)))  # fmt: skip


def nothing_left(battery: Battery) -> Iterator[Finding]:
    """L19: a dropout of rate 1 drew, or a training pass gave NaN or infinity where no evaluation
    did.
    """
    record = battery.early[0]
    for place, calls in record.of().items():
        if calls[0].rate == 1.0 and place[1] in ("dropout", "attention"):
            yield Finding(
                "L19",
                f"{place[2]} drops everything, at rate 1",
                evidence=(("rate", 1.0),),
                **at(calls[0]),
            )
    if any(_bad(r) for r in battery.evaluations):
        return
    bad = [r for r in battery.training if _bad(r)]
    if bad and bad[0].draws:
        share = len(bad) / len(battery.training)
        yield Finding("L19", f"{len(bad)} of {len(battery.training)} training passes give NaN or infinity, and no evaluation",
                      evidence=(("share of passes", share),))  # fmt: skip


def _bad(record: PassRecord) -> bool:
    """NaN or +infinity; -infinity is how logits are masked."""
    return any(
        bool((torch.isnan(t) | (t == math.inf)).any())
        for t in floats(record.output)
        if not t.is_complex()
    )


def skipped(battery: Battery) -> Iterator[Finding]:
    """L28: modules with parameters run in some training passes and not in others, under
    DistributedDataParallel.

    Signal: of the modules that own trainable parameters, one ran in at least one pass and was left
    out of at least one; the model was given wrapped (without ``find_unused_parameters`` or a static
    graph), or ``ddp=True``.
    """
    some = []
    for name, module in battery.model.named_modules():
        if any(p.requires_grad for p in module.parameters(recurse=False)):
            ran = sum(name in r.modules for r in battery.training)
            if 0 < ran < len(battery.training):
                some.append((name, ran))
    if some and not battery.ddp:
        battery.unchecked.append(
            ("L28", "layers are skipped in some passes; a mistake under DDP, so say ddp=True")
        )
    elif some:
        n = len(battery.training)
        yield Finding("L28", f"{len(some)} modules with parameters are skipped in some passes; this ran in {some[0][1]} of {n}",
                      site=some[0][0], evidence=(("share of passes", some[0][1] / n),))  # fmt: skip


def nothing_to_sample(battery: Battery) -> Iterator[Finding]:
    """L29: for Monte Carlo prediction, in no training pass does a dropout draw, or all outputs are
    equal bit by bit.
    """
    if battery.purpose != "monte carlo":
        battery.unchecked.append(
            ("L29", "depends on what the model is for; say purpose='monte carlo'")
        )
        return
    outputs = [r.output for r in battery.training]
    if not any(r.draws for r in battery.training):
        yield Finding("L29", "the model draws nothing")
    elif not any(far(outputs[0], o) for o in outputs[1:]) and not far(
        outputs[0], battery.evaluations[0].output
    ):
        yield Finding("L29", f"{len(outputs)} samples of its output are equal")
