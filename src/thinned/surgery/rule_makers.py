"""Rules of automatic policies, from the places that were found in a model."""

from __future__ import annotations

from typing import TypeAlias

from torch import nn

from ..algebra.drop import Drop
from ..nn.module import DropoutModule
from ..nn.spec_layer import SpecLayer
from ..presets import linear_rates
from .flow import (
    Branch,
    activations,
    branches,
    feeds_batch_norm,
    functional_dropout_after,
    functional_dropout_before,
    layer_after,
    layer_before,
)
from .policy import At, PolicyRule
from .trace import Event, Trace, Value


def hidden_rules(trace: Trace, rate: float) -> tuple[list[PolicyRule], list[str]]:
    """Return the rules of the policy "hidden", in the order of the pass, and notes on the places
    that are left out.
    """
    rules, notes = [], []
    for where, value in activations(trace):
        if feeds_batch_norm(trace, value):
            notes.append(
                f"nothing after {where}: batch normalization follows directly (Li et al. 2019)"
            )
            continue
        rule, note = rule_after(trace, where, value, rate)
        notes += note
        rules += [r for r in rule if r not in rules]
    return rules, notes


Placed: TypeAlias = tuple[list[PolicyRule], list[str]]  # a rule, or a note why there is none


def rule_before(trace: Trace, name: str, rate: float) -> Placed:
    """Return the rule for dropout on the input of a module: the rate of the dropout layer that is
    there already, or a new layer before the module; a note where functional dropout is there.
    """
    value = trace.first_inputs.get(name)
    layer = layer_before(trace, value) if value else None
    call = functional_dropout_before(trace, value) if value and not layer else None
    return _placed(PolicyRule("insert before", At("name", name), rate), layer, call)


def rule_after(
    trace: Trace, where: At, value: Value | None, rate: float, spec: Drop | None = None
) -> Placed:
    """Return the rule for dropout on a value at its place, as :func:`rule_before` does."""
    layer = layer_after(trace, value) if value else None
    call = functional_dropout_after(trace, value) if value and not layer else None
    insertion = PolicyRule("insert after", where, None if spec else rate, spec)
    return _placed(insertion, layer, call)


def _placed(insertion: PolicyRule, layer: str | None, call: Event | None) -> Placed:
    if layer:
        return [PolicyRule("set rate", At("name", layer), insertion.resolved_spec().rate)], []
    if call:
        side = insertion.do.removeprefix("insert ")
        note = (
            f"nothing {side} {insertion.where}: functional dropout is there ({call.where}); "
            "thinned.expose makes it a layer"
        )
        return [], [note]
    return [insertion], []


def input_rule(trace: Trace, rate: float) -> Placed | None:
    """Return the rule for dropout on the first input of the model, or the rate of the layer that is
    there already; a note where functional dropout is there, and None where the input holds no real
    numbers.
    """
    value = trace.first_inputs.get("")
    if value is None:
        return None
    # The lowest bit is the first ancestor: the value itself, or the input that a hook changed.
    number = (value.ancestors & -value.ancestors).bit_length() - 1
    if not trace.inputs[number].is_floating_point():
        return None
    layer = layer_before(trace, value) or layer_after(trace, value)
    call = None if layer else functional_dropout_after(trace, value)
    return _placed(PolicyRule("insert before", At("place", "input"), rate), layer, call)


def depth_rules(trace: Trace, rate: float) -> list[PolicyRule]:
    """Return the rules of the policy "depth": rates that increase linearly over the blocks."""
    found = branches(trace)
    blocks = list(dict.fromkeys((b.block, b.turn) for b in found))
    rates = dict(zip(blocks, linear_rates(len(blocks), rate), strict=True)) if blocks else {}
    return [branch_rule(trace, b, rates[b.block, b.turn], "drop_path") for b in found]


def shared_place_notes(trace: Trace) -> list[str]:
    """Return notes on places that serve several branches, which therefore have one rate."""
    found = [b for b in branches(trace) if b.sums > 1]
    return [f"{b.where} is one place for {b.sums} sums, which have one rate" for b in found]


def branch_rule(trace: Trace, branch: Branch, rate: float, spec: str | None) -> PolicyRule:
    """Return the rule for dropout at the end of a branch: the rate of the layer that is there
    already, also as the last one within the module of the branch, or a new layer.
    """
    layers = [
        n for n in branch.layers if spec is None or _drops_paths(trace.model.get_submodule(n))
    ]
    if layers:
        return PolicyRule("set rate", At("name", layers[-1]), rate)
    if branch.module is None:
        return PolicyRule("insert before", branch.where, rate, spec)
    module = trace.model.get_submodule(branch.module)
    if isinstance(module, DropoutModule):
        # No layer is put after another dropout layer of thinned, so the place is the addition.
        return PolicyRule("insert before", branch.call, rate, spec)
    return PolicyRule("insert after", branch.where, rate, spec)


def _drops_paths(module: nn.Module) -> bool:
    """Return whether the layer drops whole branches."""
    name = type(module).__name__.lower()
    ours = isinstance(module, SpecLayer) and module.base_spec.per in ("b", "")
    return ours or any(word in name for word in ("droppath", "stochasticdepth", "drop_path"))
