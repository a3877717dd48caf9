"""Rules on rates and scales: what a layer is told, what falls, and what is left."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...surgery.model_access import seed_all
from ..finding import Finding
from .battery import Battery
from .draws import ALPHA
from .evaluation import at
from .preserve import copied, floats
from .record import Drawn, drop_like, is_off, keeps, rate_of, replayable

REPLAYS = 64
_INVERTED = (
    "F.dropout",
    "F.dropout1d",
    "F.dropout2d",
    "F.dropout3d",
    "torch.dropout",
    "torch.feature_dropout",
)


@dataclass
class Replay:
    """A layer run alone on one input: shares of what fell per independent unit, and its scale
    against evaluation.
    """

    units: int
    share: float
    slope: float
    error: float


def replayed(battery: Battery) -> dict[str, Replay]:
    """Every layer without parameters that says that it drops, run ``REPLAYS`` times in training on
    its first input.
    """
    found = {}
    modules = dict(battery.model.named_modules())
    for name, (args, kwargs) in battery.early[0].inputs.items():
        given = next(iter(floats(args)), None)
        if (
            replayable(modules[name])
            and given is not None
            and given.dim()
            and bool((given != 0).any())
        ):
            one = _replay(modules[name], args, kwargs, given, battery.seed)
            if one is not None:
                found[name] = one
    return found


@torch.no_grad()
def _replay(module: nn.Module, args: Any, kwargs: Any, given: Tensor, seed: int) -> Replay | None:
    before = [(m, m.training) for m in module.modules()]
    outputs = []
    try:
        seed_all(seed + 40_000)
        for training in [False, *[True] * REPLAYS]:
            module.train(training)
            result = next(iter(floats(module(*copied(args), **copied(kwargs)))), None)
            if (
                result is None
                or result.shape != given.shape
                or not bool(torch.isfinite(result).all())
            ):
                return None
            outputs.append(result.double())
    finally:
        for one, mode in before:
            one.training = mode
    rest, drawn = outputs[0], outputs[1:]
    was = given != 0
    fell = [was & (y == 0) for y in drawn]
    apart = (
        any(bool((f[:1] != f).any()) for f in fell) and len(given) > 1
    )  # do samples differ in their masks?
    counts = was.flatten(1).sum(1) if given.dim() > 1 else was.long()
    if apart:
        shares = [
            ((f.flatten(1).sum(1) if f.dim() > 1 else f.long()) / counts)[counts > 0] for f in fell
        ]
    else:
        shares = [f.sum().reshape(1) / was.sum() for f in fell]
    every = torch.cat(shares)
    size = float((rest * rest).sum())
    slopes = torch.stack([(y * rest).sum() / size for y in drawn]) if size else torch.ones(REPLAYS)
    return Replay(
        len(every),
        float(every.mean()),
        float(slopes.mean()),
        float(slopes.std()) / math.sqrt(REPLAYS),
    )


def rate_not_met(battery: Battery) -> Iterator[Finding]:
    """L4, L20: the share that falls is not the rate that the layer is told.

    Statistic: n * KL(share || rate) > log(2 / alpha) with alpha = 1e-6, Chernoff's bound, which is
    exact for n independent values in [0, 1] whatever their law. For torch's functions a value is
    one coin (an element of ``F.dropout``, a channel of ``F.dropout2d``), over all training passes.
    For a layer with code of its own a value is the share of one example's elements (of the whole
    batch where all examples lose the same) in one of 64 runs of the layer alone. It is L4 where the
    share is what 1 - rate would make it and not what the rate would, by the same bound, else L20.
    Layers that fill with something other than 0, and our own, whose rates the contract tests hold,
    are left out.
    """
    counts: dict[Any, list[int]] = {}
    first: dict[Any, Drawn] = {}
    for record in battery.training:
        for one in record.draws:
            if (
                one.place[1] == "dropout"
                and one.cells
                and one.rate is not None
                and 0 < one.rate < 1
                and one.host is None
            ):
                first.setdefault(one.place, one)
                total = counts.setdefault((one.place, one.rate), [0, 0])
                total[0], total[1] = total[0] + one.fell, total[1] + one.cells
    for (place, rate), (fell, of) in counts.items():
        if is_off(fell / of, rate, of, ALPHA):
            yield _missed(fell / of, rate, of, "cells", at(first[place]))
    modules = dict(battery.model.named_modules())
    for name, one_layer in replayed(battery).items():
        module = modules[name]
        if isinstance(module, nn.modules.dropout._DropoutNd) and type(module).__module__.startswith(
            "torch.nn"
        ):
            continue
        nominal = rate_of(module)
        if (
            nominal
            and one_layer.share > 0
            and is_off(one_layer.share, nominal[1], one_layer.units, ALPHA)
        ):
            yield _missed(one_layer.share, nominal[1], one_layer.units, "values", {"site": name})


def _missed(share: float, rate: float, n: int, what: str, where: dict[str, Any]) -> Finding:
    swapped = abs(1 - 2 * rate) > 0.1 and not is_off(share, 1.0 - rate, n, ALPHA)
    text = f"told to drop {rate:.3g}, it drops {share:.3g}" + (
        ", which is what it should keep" if swapped else ""
    )
    evidence = (
        ("nominal", rate),
        ("measured", share),
        (f"independent {what}", float(n)),
        ("alpha", ALPHA),
    )
    return Finding("L4" if swapped else "L20", text, evidence=evidence, **where)


def keep_probability(battery: Battery) -> Iterator[Finding]:
    """L4, names: a dropout function is called with the value of an attribute that is named as a
    probability of keeping.

    Signal: the rate of the call equals an attribute of its module with "keep" or "retain" in its
    name, and is not 0.5. No statistics.
    """
    record = battery.early[0]
    for place, calls in record.of().items():
        module, rate = record.by_name.get(place[0]), calls[0].rate
        for name, value in vars(module).items() if module is not None else ():
            same = keeps(name) and isinstance(value, float) and value == rate and rate != 0.5
            if same and place[1] in ("dropout", "attention"):
                yield Finding("L4", f"{place[2]} is called with {name} = {value:g} as its probability of dropping",
                              evidence=(("rate", rate or 0.0),), **at(calls[0]))  # fmt: skip


def scaled_twice(battery: Battery) -> Iterator[Finding]:
    """L17: dropout is scaled in training and again in evaluation.

    Signal one: in evaluation alone a module multiplies a tensor by 1 - p, of the shape that it
    drops at rate p by a function of torch, which scales by itself. Signal two: a layer run alone 64
    times has a mean output of 1 / (1 - p) times its output in evaluation: the regression slope of
    the one on the other lies within 5 standard errors (and a quarter of the distance) of 1 / (1 -
    p), and more than 10 from 1; or of 1 - p, where what draws is a function that scales.
    """
    done = set()
    training = {f[:2] for r in battery.early for f in r.factors}
    sites = [
        d
        for d in battery.early[0].draws
        if d.place[1] == "dropout" and d.place[2] in _INVERTED and d.rate
    ]
    for name, where, factor, shape in dict.fromkeys(battery.evaluations[0].factors):
        for one in sites:
            near = one.name == name or one.name.rpartition(".")[0] == name
            rate = one.rate or 0.0
            if (name, where) in training or not near or one.shape != shape or not rate < 1:
                continue
            if math.isclose(factor, 1.0 - rate, rel_tol=1e-6) and name not in done:
                done.add(name)
                file, _, line = where.rpartition(":")
                text = f"evaluation multiplies by {factor:g} here, and {one.place[2]} has divided by it in training"
                evidence = (("factor", factor), ("rate", rate))
                yield Finding(
                    "L17", text, site=name, file=file, line=int(line or 0), evidence=evidence
                )
    modules = dict(battery.model.named_modules())
    for name, layer in replayed(battery).items():
        nominal = rate_of(modules[name])
        if nominal is None or name in done or not drop_like(modules[name]):
            continue
        q = 1.0 - nominal[1]
        inverted = any(d.name == name or d.name.startswith(f"{name}.") for d in sites)
        for wanted in (1.0 / q, q) if inverted else (1.0 / q,):
            near = abs(layer.slope - wanted) < min(5 * layer.error, 0.25 * abs(wanted - 1))
            if near and abs(layer.slope - 1.0) > 10 * layer.error:
                yield Finding("L17", f"in training its mean output is {layer.slope:.3g} times that of evaluation",
                              site=name, evidence=(("ratio", layer.slope), ("rate", nominal[1])))  # fmt: skip
                break
