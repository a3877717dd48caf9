"""Rules on what evaluation does: draws, rates, running statistics, parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from ...surgery.tensor_values import equal_tensors, largest_gap
from ..finding import Finding
from .check_run import CheckRun, running_statistics
from .preserve import float_tensors
from .record import DrawRecord, PassRecord, looks_like_dropout, named_rate


def location(draw: DrawRecord) -> dict[str, Any]:
    """The arguments of a finding that say where a draw was made."""
    return {"site": draw.name, **in_file(draw.place[3])}


def in_file(where: str) -> dict[str, Any]:
    """The arguments ``file`` and ``line`` of a finding, of "file:line"."""
    file, _, line = where.rpartition(":")
    return {"file": file, "line": int(line or 0)} if file else {}


def largest_difference(one: Any, other: Any) -> float:
    """The largest absolute difference of two outputs; infinite where their shapes differ."""
    largest = 0.0
    for a, b in zip(float_tensors(one), float_tensors(other), strict=False):
        largest = max(largest, largest_gap(a, b))
    return largest


def draws_in_evaluation(run: CheckRun) -> Iterator[Finding]:
    """L1, L2, L32: a dropout draws in an evaluation pass.

    Signal: in a pass after ``model.eval()``, a dropout function, attention or a recurrent network
    is called with dropout switched on, or a layer of ours draws without a context manager. A raw
    mask or noise counts only in a layer that looks like dropout, and only where two evaluation
    passes gave that layer the same input and it returned different outputs, so that other noise
    that evaluation draws on purpose is not reported. No statistics: draws are observed, outputs
    are compared bit by bit. A dropout layer that is not a submodule of the model is L32 if it is
    another object in each pass.
    """
    if "monte carlo" in run.purposes:
        why = "a model for Monte Carlo prediction may draw in evaluation"
        run.unchecked += [(code, why) for code in ("L1", "L2", "L32")]
        return
    first, second = run.evaluations
    difference = largest_difference(first.output, second.output)
    later = second.by_place()
    for place, calls in first.by_place().items():
        draw = calls[0]
        if draw.kind not in ("dropout", "attention", "recurrent") and not _layer_varies(
            draw.name, first, second
        ):
            continue
        if draw.layer is not None and draw.layer.mode_override is not None:
            continue
        module = first.by_name.get(draw.name)
        rate = draw.rate if draw.rate is not None else (named_rate(module) or ("", 0.0))[1]
        code = "L2" if draw.kind == "attention" else "L1"
        text = f"{draw.function} draws in evaluation, at rate {rate:g}"
        if draw.name in run.left_in_training:
            text += "; eval() of the model leaves it in training mode"
        if draw.unregistered:
            same_object = place in later and later[place][0].unregistered == draw.unregistered
            code = "L1" if same_object else "L32"
            why = (
                "is not a submodule of the model (is it in a list?), so eval() does not reach it"
                if same_object
                else "is created in each forward pass"
            )
            text = f"a dropout layer of rate {rate:g} {why}, and evaluation draws"
        evidence = (("rate", rate), ("outputs of two evaluations differ by", difference))
        yield Finding(code, text, evidence=evidence, **location(draw))


def _layer_varies(name: str, first: PassRecord, second: PassRecord) -> bool:
    """Whether a layer that looks like dropout gave two outputs for the same input."""
    if not looks_like_dropout(first.by_name.get(name)):
        return False
    pairs = zip(first.digests.get(name, []), second.digests.get(name, []), strict=False)
    return any(a[0] == b[0] and a[1] != b[1] for a, b in pairs)


def rate_lost(run: CheckRun) -> Iterator[Finding]:
    """L3: evaluation changed a rate for good.

    Signal: an attribute that names a rate has another value after two evaluation passes than
    before them, and keeps it in the training passes that follow; or a site that drew in both
    training passes before the evaluations does not draw after them, although its module runs.
    """
    before, after, again = run.rate_snapshots
    names = set()
    for (name, attribute), rate in before.items():
        key = (name, attribute)
        if after.get(key, rate) != rate and again.get(key, rate) != rate:
            names.add(name)
            yield Finding(
                "L3",
                f"{attribute} is {rate:g} before an evaluation, and {again[key]:g} after it",
                site=name,
                evidence=(("before", rate), ("after", again[key])),
            )
    one, two = (record.by_place() for record in run.training_before)
    for place in one.keys() & two.keys():
        draw = one[place][0]
        ran = [r for r in run.training_after if draw.name in r.modules]
        drew_again = any(place in r.by_place() for r in ran)
        if draw.kind in ("python", "unseen") or draw.name in names or len(ran) < 2 or drew_again:
            continue
        module = run.training_before[0].by_name.get(draw.name)
        if draw.kind == "noise" and not looks_like_dropout(module):
            continue
        text = f"{draw.function} draws in training, but no longer after an evaluation"
        yield Finding("L3", text, **location(draw))


def statistics_moved(run: CheckRun) -> Iterator[Finding]:
    """L6: running means or variances are not bitwise equal before and after two evaluation
    passes.
    """
    for module in sorted({n.rpartition(".")[0] for n in run.changed_statistics}):
        yield Finding("L6", "an evaluation pass changes the running statistics", site=module)


def statistics_as_given(run: CheckRun) -> Iterator[Finding]:
    """L6 of a model for Monte Carlo prediction: one pass in the modes in which the model was
    passed changes running statistics.
    """
    before = running_statistics(run.model)
    modes = [(m, m.training) for m in run.model.modules()]
    with torch.no_grad():
        run.observe_pass("the pass in the present modes", 30_000)
    after = running_statistics(run.model)
    for module, training in modes:
        module.training = training
    changed = {n for n, b in before.items() if not equal_tensors(b, after[n])}
    for name in sorted({n.rpartition(".")[0] for n in changed}):
        text = "a prediction in the present modes changes the running statistics"
        yield Finding("L6", text, site=name)


def weights_lost(run: CheckRun) -> Iterator[Finding]:
    """L12: after a pass without an optimizer step, elements of a parameter that were not 0 are
    exactly 0.
    """
    for name, share in run.zeroed.items():
        text = f"a forward pass sets {share:.1%} of {name} to 0"
        site = name.rpartition(".")[0]
        yield Finding("L12", text, site=site, evidence=(("share", share),))
