"""Rules for what was found in a model."""

from __future__ import annotations

from torch import nn

from ..nn.module import DropoutModule
from ..nn.spec_layer import SpecLayer
from ..presets import linear_rates
from .flow import Branch, activations, before_norm, branches, functional, gives_layer, has_layer
from .policy import At, PolicyRule
from .trace import Trace


def hidden_of(seen: Trace, rate: float) -> tuple[list[PolicyRule], list[str]]:
    """The rules of :func:`hidden`, in the order of the pass, and what was left out."""
    rules, notes = [], []
    for where, value in activations(seen):
        if before_norm(seen, value):
            notes.append(
                f"nothing after {where}: batch normalisation follows directly (Li et al. 2019)"
            )
            continue
        layer = has_layer(seen, value)
        drawn = None if layer else functional(seen, value)
        if drawn is not None:
            notes.append(
                f"nothing after {where}: functional dropout follows ({drawn.where}); thinned.expose makes it a layer"
            )
            continue
        rule = (
            PolicyRule("set rate", At("name", layer), rate)
            if layer
            else PolicyRule("insert after", where, rate)
        )
        if rule not in rules:
            rules.append(rule)
    return rules, notes


def set_or_before(seen: Trace, name: str, rate: float) -> PolicyRule:
    """Dropout on what a module reads: the rate of the layer that gives it, or a layer before the
    module.
    """
    value = seen.first.get(name)
    layer = gives_layer(seen, value) if value else None
    return (
        PolicyRule("set rate", At("name", layer), rate)
        if layer
        else PolicyRule("insert before", At("name", name), rate)
    )


def input_of(seen: Trace, rate: float) -> PolicyRule | None:
    """Dropout on the first input, or the rate of the layer that it goes through; None where it
    holds no real numbers.
    """
    value = seen.first.get("")
    if value is None:
        return None
    given = (
        value.ancestors & -value.ancestors
    ).bit_length() - 1  # itself, or what a hook made it of
    if not seen.inputs[given].is_floating_point():
        return None
    layer = gives_layer(seen, value) or has_layer(seen, value)
    return (
        PolicyRule("set rate", At("name", layer), rate)
        if layer
        else PolicyRule("insert before", At("place", "input"), rate)
    )


def depth_of(seen: Trace, rate: float) -> list[PolicyRule]:
    """The rules of :func:`depth`."""
    found = branches(seen)
    blocks = list(dict.fromkeys((b.block, b.turn) for b in found))
    rates = dict(zip(blocks, linear_rates(len(blocks), rate), strict=True)) if blocks else {}
    return [on_branch(seen, b, rates[b.block, b.turn], "drop_path") for b in found]


def in_loops(seen: Trace) -> list[str]:
    """Places that serve several branches, so that those have one rate."""
    found = [b for b in branches(seen) if b.times > 1]
    return [f"{b.where} is one place for {b.times} sums, which fall at one rate" for b in found]


def on_branch(seen: Trace, branch: Branch, rate: float, drop: str | None) -> PolicyRule:
    """A layer at a branch's end, or the rate of the one that is there, also as the last one within
    the branch's module.
    """
    there = [n for n in branch.layers if drop is None or _is_path(seen.model.get_submodule(n))]
    if there:
        return PolicyRule("set rate", At("name", there[-1]), rate)
    if branch.module is None:
        return PolicyRule("insert before", branch.where, rate, drop)
    module = seen.model.get_submodule(branch.module)
    if isinstance(module, DropoutModule):  # another kind of dropout of ours: the sum is the place
        return PolicyRule("insert before", branch.call, rate, drop)
    return PolicyRule("insert after", branch.where, rate, drop)


def _is_path(module: nn.Module) -> bool:
    """Does the layer drop whole branches?"""
    name = type(module).__name__.lower()
    ours = isinstance(module, SpecLayer) and module.base_spec.per in ("b", "")
    return ours or any(word in name for word in ("droppath", "stochasticdepth", "drop_path"))
