"""Hidden activations, heads and residual branches, found in the traced data flow of a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..nn.module import DropoutModule
from .draws import DROPOUTS
from .policy import At
from .rates import rate_of
from .trace import Event, Trace, Value

_ACTIVATIONS = {
    "relu",
    "relu_",
    "relu6",
    "leaky_relu",
    "leaky_relu_",
    "elu",
    "elu_",
    "selu",
    "selu_",
    "celu",
    "celu_",
    "gelu",
    "silu",
    "mish",
    "hardswish",
    "hardtanh",
    "hardtanh_",
    "tanh",
    "tanh_",
    "sigmoid",
    "sigmoid_",
    "softplus",
    "prelu",
    "rrelu",
    "glu",
    "softsign",
    "hardsigmoid",
}
_GATES = {"sigmoid", "sigmoid_", "hardsigmoid"}
_MULTIPLICATIONS = {"mul", "mul_", "__mul__", "__rmul__", "__imul__", "multiply"}
_ADDITIONS = {"add", "add_", "__add__", "__iadd__", "__radd__"}
_RESHAPES = {
    "flatten",
    "view",
    "reshape",
    "squeeze",
    "unsqueeze",
    "transpose",
    "permute",
    "contiguous",
}
_NORMS = {F.batch_norm, torch.batch_norm, F.instance_norm}


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A residual branch.

    ``block``: the module that adds the branch in its code. ``turn``: how many times the same
    addition had run before in the pass, as in a loop. ``module``: the module that returns the
    result of the branch, or None where the addition is the only place. ``where``: the place as a
    rule names it. ``call``: the operand of the addition. ``stream``: the value to which the branch
    is added. ``value``: the result of the branch. ``sums``: how many additions of the pass use the
    place. ``layers``: the dropout layers that return the result of the branch, such as the last
    layer within ``module``.
    """

    block: str
    turn: int
    module: str | None
    where: At
    call: At
    stream: Value
    value: Value
    sums: int = 1
    layers: tuple[str, ...] = ()


def activations(trace: Trace) -> list[tuple[At, Value]]:
    """Return the hidden activations in order: the place and the value of each.

    An activation is hidden if a layer with weights reads it later and it is not a gate.
    """
    live, readers = trace.reaches_weights(), trace.readers
    found: list[tuple[At, Value]] = []
    for event in trace.events:
        name = event.site[0]
        if name not in _ACTIVATIONS or event.module is None:
            continue
        module = trace.model.get_submodule(event.module)
        if isinstance(module, (DropoutModule, nn.RNNBase, nn.MultiheadAttention)):
            continue
        value, where = _value_and_place(trace, event, module)
        if value.number not in live or _is_gate(name, readers.get(value.number, [])):
            continue
        if all(where != other for other, _ in found):
            found.append((where, value))
    return found


def _value_and_place(trace: Trace, event: Event, module: nn.Module) -> tuple[Value, At]:
    """Return the value of an activation and its place: the result of the module where the module is
    an activation only, such as ReLU, otherwise the call.
    """
    value = event.results[0]
    is_activation = not any(
        True for n, _ in module.named_children() if not n.startswith("dropout_")
    ) and all(p.dim() <= 1 for p in module.parameters(recurse=False))
    assert event.module is not None
    if is_activation and event.module:
        results = [
            v
            for v in trace.values[value.number :]
            if event.module in v.outputs_of and v.ancestors >> value.number & 1
        ]
        if results:
            return results[0], At("name", event.module)
    return value, At("call", event.module, event.site[0], trace.number_of(event))


def _is_gate(name: str, readers: list[Event]) -> bool:
    """Return whether an activation is a sigmoid that another value is multiplied with."""
    return name in _GATES and any(
        e.site[0] in _MULTIPLICATIONS
        and all(v is not None for v in e.operands)
        and e.operands[0] is not e.operands[1]
        for e in readers
    )


def feeds_batch_norm(trace: Trace, value: Value) -> bool:
    """Return whether batch normalization reads this value directly."""
    return any(event.func in _NORMS and event.inputs[:1] == [value] for event in trace.events)


def is_dropout_layer(trace: Trace, name: str) -> bool:
    """Return whether the module of this name is a dropout layer."""
    module = trace.model.get_submodule(name)
    return rate_of(module) is not None and not isinstance(
        module, (nn.RNNBase, nn.MultiheadAttention)
    )


def layer_after(trace: Trace, value: Value) -> str | None:
    """Return the dropout layer that reads the value, directly or after pooling and reshaping."""
    for later in _pooled_or_reshaped(value, trace.readers):
        layer = next((name for name in later.inputs_of if is_dropout_layer(trace, name)), None)
        if layer is not None:
            return layer
    return None


def layer_before(trace: Trace, value: Value) -> str | None:
    """Return the dropout layer that made the value, directly or before pooling and reshaping."""
    makers = {v.number: e for e in trace.events for v in e.results}
    while True:
        layer = next(
            (name for name in reversed(value.outputs_of) if is_dropout_layer(trace, name)), None
        )
        event = makers.get(value.number)
        if layer is not None or event is None or not _only_pools_or_reshapes(event):
            return layer
        value = event.inputs[0]


def functional_dropout_before(trace: Trace, value: Value) -> Event | None:
    """Return the call of functional dropout that made the value, if it is not that of a layer."""
    makers = {v.number: e for e in trace.events for v in e.results}
    while True:
        event = makers.get(value.number)
        if event is None:
            return None
        if event.func in DROPOUTS:
            return None if event.module and is_dropout_layer(trace, event.module) else event
        if not _only_pools_or_reshapes(event):
            return None
        value = event.inputs[0]


def functional_dropout_after(trace: Trace, value: Value) -> Event | None:
    """Return the call of functional dropout that reads the value, if it is not that of a layer."""
    readers = trace.readers
    calls = (
        e for later in _pooled_or_reshaped(value, readers) for e in readers.get(later.number, [])
    )
    return next(
        (
            e
            for e in calls
            if e.func in DROPOUTS and not (e.module and is_dropout_layer(trace, e.module))
        ),
        None,
    )


def _pooled_or_reshaped(value: Value, readers: dict[int, list[Event]]) -> Iterator[Value]:
    """Yield the value, and what it becomes by pooling and reshaping only."""
    yield value
    events = readers.get(value.number, [])
    if len(events) == 1 and _only_pools_or_reshapes(events[0]):
        yield from _pooled_or_reshaped(events[0].results[0], readers)


def _only_pools_or_reshapes(event: Event) -> bool:
    name = event.site[0].strip("_")
    return len(event.inputs) == 1 and (name in _RESHAPES or "_pool" in name)


def heads(trace: Trace) -> list[str]:
    """Return the modules that have the last weights before an output, each once."""
    found: list[str] = []
    for value in trace.results:
        if len(value.last_weighted) != 1:
            continue
        event = trace.events[next(iter(value.last_weighted))]
        if event.module and event.module not in found and trace.calls[event.module] == 1:
            found.append(event.module)
    return found


def branches(trace: Trace) -> list[Branch]:
    """Return the residual branches in order.

    A branch is found at the addition that ends it: of its two operands, the one that has passed
    more layers with weights since both were one value.
    """
    found: dict[tuple[str, At], Branch] = {}
    sums: dict[str, int] = {}  # additions of a branch that this module returns
    ends: dict[str, int] = {}  # the same, of inner modules too
    turns: dict[At, int] = {}
    for event in trace.events:
        side = (
            _branch_side(trace, event)
            if event.site[0] in _ADDITIONS and event.module is not None
            else None
        )
        if side is None:
            continue
        value: Any = event.operands[side]
        stream: Any = event.operands[1 - side]
        block = event.module or ""
        module = value.outputs_of[-1] if value.outputs_of else None
        if module is not None:
            sums[module] = sums.get(module, 0) + 1
        for name in value.outputs_of:
            ends[name] = ends.get(name, 0) + 1
        call = At("call", block, event.site[0], trace.number_of(event), side)
        where = call if module is None else At("name", module)
        turn = turns[call] = turns.get(call, -1) + 1
        layers = tuple(name for name in value.outputs_of if is_dropout_layer(trace, name))
        found.setdefault(
            (block, where),
            Branch(
                block=block,
                turn=turn,
                module=module,
                where=where,
                call=call,
                stream=stream,
                value=value,
                layers=layers,
            ),
        )
    # A module that is also called elsewhere in the pass is not a place for the dropout of a branch,
    # and neither is a dropout layer: it would drop there too.
    exclusive = [
        b for b in found.values() if b.module is None or sums[b.module] == trace.calls[b.module]
    ]
    layers_of = [tuple(n for n in b.layers if ends[n] == trace.calls[n]) for b in exclusive]
    return [
        replace(b, sums=sums[b.module] if b.module else turns[b.call] + 1, layers=layers)
        for b, layers in zip(exclusive, layers_of, strict=True)
    ]


def _branch_side(trace: Trace, event: Event) -> int | None:
    """Return which operand of an addition is a residual branch, 0 or 1; None if neither is.

    The fork is the last value from which both operands are computed. The stream reaches the
    addition from the fork over at most one layer with weights (a projection shortcut), the branch
    over more. If both have passed equally many, the addition joins two parallel branches.
    """
    a, b = event.operands
    if a is None or b is None or a is b:
        return None
    common = a.ancestors & b.ancestors
    if not common:
        return None
    fork = trace.values[common.bit_length() - 1]
    depth_a, depth_b = a.depth - fork.depth, b.depth - fork.depth
    if depth_a == depth_b or min(depth_a, depth_b) > 1:
        return None
    return 0 if depth_a > depth_b else 1
