"""Rules on where and what a model draws while training."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import nn

from ...nn.module import DropoutModule
from ..finding import Finding
from .battery import Battery
from .evaluation import at
from .record import DROPS, Drawn, PassRecord, drop_like, rate_of

ALPHA = 1e-6
_PLAIN = {
    "F.dropout",
    "F.dropout1d",
    "F.dropout2d",
    "F.dropout3d",
    "torch.dropout",
    "torch.feature_dropout",
}


def channels_of_sequences(battery: Battery) -> Iterator[Finding]:
    """L10: F.dropout2d, or a torch Dropout2d, is called with an input of three dimensions. No
    statistics.
    """
    for place, calls in battery.early[0].of().items():
        shape = calls[0].shape
        if place[2] == "F.dropout2d" and shape is not None and len(shape) == 3:
            size = "x".join(map(str, shape))
            yield Finding("L10", f"Dropout2d reads {size} as [batch, channels, length]: what falls is all of axis 2 "
                          "for a place on axis 1", evidence=(("dimensions", 3.0),), **at(calls[0]))  # fmt: skip


def one_layer(battery: Battery) -> Iterator[Finding]:
    """L11: a recurrent network that runs has one layer and a dropout above 0."""
    for name, module in battery.model.named_modules():
        if isinstance(module, nn.RNNBase) and module.num_layers == 1 and module.dropout > 0:
            yield Finding("L11", f"{type(module).__name__} has one layer, so its dropout of {module.dropout:g} never acts",
                          site=name, evidence=(("rate", float(module.dropout)),))  # fmt: skip


def left_in_evaluation(battery: Battery) -> Iterator[Finding]:
    """L21, modes: the model is given in training, and a dropout with a rate in it, or a part that
    holds one, in evaluation.

    A part whose parameters are all frozen is left out: a fixed feature extractor belongs in
    evaluation. A model that is given in evaluation says nothing, which ``unchecked`` notes.
    """
    if not battery.model.training:
        battery.unchecked.append(
            ("L21", "the model was given in evaluation, so parts left behind are not to be seen")
        )
        return
    yield from _left(battery.model)


def _left(model: nn.Module) -> Iterator[Finding]:
    def walk(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        if not module.training:
            yield name, module
            return
        for child_name, child in module.named_children():
            yield from walk(f"{name}.{child_name}" if name else child_name, child)

    for name, part in walk("", model):
        parameters = list(part.parameters())
        rated = [m for m in part.modules() if _acts(m)]
        if rated and not (parameters and not any(p.requires_grad for p in parameters)):
            rate = rate_of(rated[0]) or ("dropout", getattr(rated[0], "dropout", 0.0))
            yield Finding("L21", f"the model is in training, but this part is in evaluation, with {len(rated)} dropout "
                          f"{'layer' if len(rated) == 1 else 'layers'} (rate {rate[1]:g})", site=name)  # fmt: skip


def _acts(module: nn.Module) -> bool:
    if isinstance(module, nn.RNNBase):
        return module.dropout > 0 and module.num_layers > 1
    if isinstance(module, nn.MultiheadAttention):
        return bool(module.dropout > 0)
    layer = (
        isinstance(module, (DropoutModule, nn.modules.dropout._DropoutNd))
        or "drop" in type(module).__name__.lower()
    )
    return layer and rate_of(module) is not None


def never_draws(battery: Battery) -> Iterator[Finding]:
    """L21, draws: in no training pass does a dropout with a rate in (0, 1) draw, though it runs.

    Signal: a layer that says that it drops ran in every pass, neither it nor a part of it drew, and
    it returned its input; or a dropout function with a rate was switched off while its module was
    in training, at every call. After ``model.train()``, a layer that is still in evaluation counts
    too unless all parameters of its parent are frozen.
    """
    drew = {d.name for r in battery.training for d in r.draws}
    on = {d.place[2:] for r in battery.training for d in r.draws}
    reported = set()
    for name, function, where, rate in dict.fromkeys(i for r in battery.training for i in r.idles):
        if (function, where) not in on and _trained(battery.model, name):
            file, _, line = where.rpartition(":")
            reported.add(name)
            yield Finding("L21", f"{function} with rate {rate:g} is switched off while the model trains", site=name, file=file,
                          line=int(line or 0), evidence=(("rate", rate),))  # fmt: skip
    for name, module in battery.model.named_modules():
        inside = any(d == name or d.startswith(f"{name}.") or not name for d in drew)
        ran = all(name in r.modules for r in battery.training)
        if (
            name in reported
            or inside
            or not ran
            or not _acts(module)
            or isinstance(module, nn.RNNBase)
        ):
            continue
        through = [t for r in battery.training for t in r.through.get(name, [])]
        quiet = isinstance(module, (DropoutModule, nn.MultiheadAttention)) or (
            through and all(i == o for i, o in through)
        )
        if quiet and _idle_host(module) and _trained(battery.model, name):
            rate = (rate_of(module) or ("dropout", getattr(module, "dropout", 0.0)))[1]
            yield Finding("L21", f"a layer of rate {rate:g} returns its input in every training pass", site=name,
                          evidence=(("rate", rate),))  # fmt: skip


def _idle_host(module: nn.Module) -> bool:
    return not isinstance(module, DropoutModule) or (
        module.mode_override is None and not module.training
    )


def _trained(model: nn.Module, name: str) -> bool:
    """Is there anything to train in the nearest parent that has parameters?"""
    while True:
        parameters = list(model.get_submodule(name).parameters())
        if parameters or not name:
            return not parameters or any(p.requires_grad for p in parameters)
        name = name.rpartition(".")[0]


def mask_reused(battery: Battery) -> Iterator[Finding]:
    """L18: a site draws the same in all training passes, though each began at another seed.

    Signal, without statistics: the global generators stand at one and the same place before the
    site's draw in every pass, so they are seeded in the forward pass. Or the masks are equal bit by
    bit where chance would make them so with a probability below 1e-6: (p^n + (1 - p)^n)^cells for n
    passes. Or a layer that says that it drops drew in the first pass only, or never, and what falls
    is not nothing and the same in all passes. Keyed and frozen layers of ours, which are meant to
    repeat themselves, are left out.
    """
    passes = [r.of() for r in battery.training]
    start = {r.draws[0].state for r in battery.training if r.draws}
    for place, calls in passes[0].items():
        one = calls[0]
        if one.host is not None and any(
            x is not None for x in (one.host.owner, one.host.frozen, one.host.tape)
        ):
            continue
        if place[1] not in DROPS and not drop_like(battery.early[0].by_name.get(place[0])):
            continue
        all_calls = [p[place][0] for p in passes if place in p]
        if len(all_calls) >= 4:
            if _one_state(all_calls, start) or _one_mask(all_calls):
                yield Finding("L18", f"{place[2]} draws the same in {len(all_calls)} training passes that began at other "
                              "seeds", evidence=(("passes", float(len(all_calls))),), **at(one))  # fmt: skip
        elif (
            len(all_calls) == 1
            and place[1] in (*DROPS, "noise")
            and _ran(battery.training[1:], place[0]) >= 4
        ):
            yield Finding(
                "L18", f"{place[2]} drew in the first training pass and never again", **at(one)
            )
    yield from _fixed(battery)


def _one_state(calls: list[Drawn], start: set[str]) -> bool:
    states = {c.state for c in calls}
    return len(states) == 1 and "" not in states and len(start) > 0


def _one_mask(calls: list[Drawn]) -> bool:
    masks, one = {c.mask for c in calls}, calls[0]
    if len(masks) != 1 or "" in masks or not one.cells or one.rate is None or not 0 < one.rate < 1:
        return False
    n = len(calls)
    return one.cells * math.log(one.rate**n + (1.0 - one.rate) ** n) < math.log(ALPHA)


def _ran(records: list[PassRecord], name: str) -> int:
    return sum(name in r.modules for r in records)


def _fixed(battery: Battery) -> Iterator[Finding]:
    """A layer that never draws, and yet drops: its mask was drawn once, before."""
    drew = {d.name for r in battery.training for d in r.draws}
    for name, module in battery.model.named_modules():
        if not drop_like(module) or isinstance(module, DropoutModule) or name in drew or rate_of(module) is None or any(
            d.startswith(f"{name}.") for d in drew
        ) or any(True for _ in module.children()) or next(module.parameters(), None) is not None:  # fmt: skip
            continue
        train = [t for r in battery.training for t in r.through.get(name, [])]
        rest = [t for r in battery.evaluations for t in r.through.get(name, [])]
        if train and rest and all(i != o for i, o in train) and all(i == o for i, o in rest):
            yield Finding("L18", "a layer that draws in no training pass changes its input in all of them, and in no "
                          "evaluation: its mask is fixed", site=name)  # fmt: skip


def selu(battery: Battery) -> Iterator[Finding]:
    """L22: plain dropout directly on what SELU returned, or alpha dropout in a pass in which no
    SELU runs.

    Signal: the tensor that F.dropout is given is the one that F.selu returned; or alpha dropout
    draws and F.selu was never called. No statistics.
    """
    record = battery.early[0]
    for place, calls in record.of().items():
        one = calls[0]
        alpha = "alpha" in place[2].lower() or getattr(
            getattr(one.host, "point", None), "name", ""
        ).startswith("alpha")
        plain = place[2] in _PLAIN or getattr(getattr(one.host, "point", None), "name", "") in (
            "dropout",
            "gaussian",
        )
        if alpha and not record.selu:
            yield Finding("L22", f"{place[2]} in a model without SELU", **at(one))
        elif plain and any(c.after_selu for c in calls):
            yield Finding("L22", f"{place[2]} directly on the output of SELU", **at(one))
