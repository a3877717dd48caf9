"""Rules on what evaluation does: draws, rates, running statistics, parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from ..finding import Finding
from .battery import Battery, statistics
from .preserve import floats, same
from .record import Drawn, drop_like, rate_of


def at(one: Drawn) -> dict[str, Any]:
    """Where a site stands, as a finding says it."""
    file, _, line = one.place[3].rpartition(":")
    return {"site": one.name, "file": file, "line": int(line or 0)} if file else {"site": one.name}


def far(one: Any, other: Any) -> float:
    """The largest difference of two outputs; infinite where their shapes differ."""
    largest = 0.0
    for a, b in zip(floats(one), floats(other), strict=False):
        if a.shape != b.shape:
            return float("inf")
        if a.numel() and not same(a, b):
            largest = max(
                largest, float((a.detach() - b.detach()).abs().nan_to_num(float("inf")).max())
            )
    return largest


def draws_in_evaluation(battery: Battery) -> Iterator[Finding]:
    """L1, L2, L32: a dropout draws in an evaluation pass.

    Signal: a call of a dropout function, of attention or of a recurrent network that is switched
    on, or one of our layers in sampling mode without a context manager, in a pass after
    ``model.eval()``. A raw mask or noise counts only in a layer that says that it drops, and where
    two evaluation passes gave that layer the same input and it returned different outputs; so other
    noise that evaluation draws on purpose is no finding. No statistics: draws are seen, outputs
    compared bit by bit. A dropout layer that the model does not know is L32 if it is another object
    in each pass.
    """
    if battery.purpose == "monte carlo":
        battery.unchecked += [
            (c, "a model for Monte Carlo prediction may draw in evaluation")
            for c in ("L1", "L2", "L32")
        ]
        return
    first, second = battery.evaluations
    apart = far(first.output, second.output)
    later = second.of()
    for place, calls in first.of().items():
        one = calls[0]
        name, kind, function, _ = place
        module = first.by_name.get(name)
        if kind in ("mask", "noise", "python", "unseen"):
            inout = list(
                zip(first.through.get(name, []), second.through.get(name, []), strict=False)
            )
            if not drop_like(module) or not any(a[0] == b[0] and a[1] != b[1] for a, b in inout):
                continue
        if one.host is not None and one.host.mode_override is not None:
            continue
        rate = one.rate if one.rate is not None else (rate_of(module) or ("", 0.0))[1]
        evidence = (("rate", rate), ("outputs of two evaluations differ by", apart))
        if one.stray:
            same_object = place in later and later[place][0].stray == one.stray
            code = "L1" if same_object else "L32"
            why = "is no child of the model (kept in a plain list?), so eval() does not reach it" if same_object else (
                "is made anew in each pass")  # fmt: skip
            yield Finding(
                code,
                f"a dropout layer of rate {rate:g} {why}: evaluation draws",
                evidence=evidence,
                **at(one),
            )
        elif kind == "attention":
            yield Finding(
                "L2",
                f"{function} drops at rate {rate:g} in evaluation",
                evidence=evidence,
                **at(one),
            )
        else:
            yield Finding(
                "L1",
                f"{function} draws in evaluation, at rate {rate:g}",
                evidence=evidence,
                **at(one),
            )


def rate_lost(battery: Battery) -> Iterator[Finding]:
    """L3: evaluation changed a rate for good.

    Signal: an attribute that names a rate has another value after two evaluation passes than
    before, and keeps it in the training passes after; or a site that drew in both training passes
    before the evaluations draws in none after them, though its module runs.
    """
    before, after, again = battery.rates
    names = set()
    for (name, attribute), was in before.items():
        key = (name, attribute)
        if after.get(key, was) != was and again.get(key, was) != was:
            names.add(name)
            yield Finding(
                "L3", f"{attribute} was {was:g}, and is {again[key]:g} after an evaluation", site=name,
                evidence=(("before", was), ("after", again[key])),
            )  # fmt: skip
    for place in battery.early[0].of().keys() & battery.early[1].of().keys():
        one = battery.early[0].of()[place][0]
        ran = [r for r in battery.late if place[0] in r.modules]
        if (
            place[1] in ("python", "unseen")
            or place[0] in names
            or len(ran) < 2
            or any(place in r.of() for r in ran)
        ):
            continue
        if place[1] == "noise" and not drop_like(battery.early[0].by_name.get(place[0])):
            continue
        yield Finding(
            "L3", f"{place[2]} drew in training, and no longer after an evaluation", **at(one)
        )


def statistics_moved(battery: Battery) -> Iterator[Finding]:
    """L6: running means or variances are not bitwise equal before and after two evaluation passes."""
    for module in sorted({n.rpartition(".")[0] for n in battery.moved}):
        yield Finding("L6", "running statistics change in an evaluation pass", site=module)


def statistics_as_given(battery: Battery) -> Iterator[Finding]:
    """L6 of a model for Monte Carlo prediction: one pass in the modes that it was given in changes
    running statistics.
    """
    before = statistics(battery.model)
    modes = [(m, m.training) for m in battery.model.modules()]
    with torch.no_grad():
        battery.observed("the pass in the modes as given", 30_000)
    after = statistics(battery.model)
    for module, training in modes:
        module.training = training
    for module_name in sorted(
        {n.rpartition(".")[0] for n, b in before.items() if not same(b, after[n])}
    ):
        yield Finding(
            "L6", "a prediction in the modes as given changes running statistics", site=module_name
        )


def weights_lost(battery: Battery) -> Iterator[Finding]:
    """L12: after a pass without a step of an optimizer, elements of a parameter that were not 0 are
    exactly 0.
    """
    for name, share in battery.lost.items():
        yield Finding(
            "L12", f"a forward pass set {share:.1%} of {name} to 0", site=name.rpartition(".")[0],
            evidence=(("share", share),),
        )  # fmt: skip
