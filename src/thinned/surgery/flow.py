"""Activations, heads and residual branches, read from what flowed through a model."""

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
    "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "elu", "elu_", "selu", "selu_", "celu", "celu_", "gelu", "silu",
    "mish", "hardswish", "hardtanh", "hardtanh_", "tanh", "tanh_", "sigmoid", "sigmoid_", "softplus", "prelu", "rrelu", "glu",
    "softsign", "hardsigmoid",
}  # fmt: skip
_GATES = {"sigmoid", "sigmoid_", "hardsigmoid"}
_MULTIPLIES = {"mul", "mul_", "__mul__", "__rmul__", "__imul__", "multiply"}
_ADDS = {"add", "add_", "__add__", "__iadd__", "__radd__"}
_SHAPES = {
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


@dataclass(frozen=True)
class Branch:
    """A residual branch. ``block``: the module in whose code it is added. ``module``: what gives it
    alone, or None, where the sum is the only place. ``where``: as a rule has it. ``call``: its side
    of the sum. ``stream``: what it is added to. ``turn``: how often this sum had been done before,
    as in a loop; ``times``: how often it is in all. ``layers``: dropout layers whose result the
    branch ends with, such as the last one within ``module``.
    """

    block: str
    turn: int
    module: str | None
    where: At
    call: At
    stream: Value
    times: int = 1
    layers: tuple[str, ...] = ()


def activations(seen: Trace) -> list[tuple[At, Value]]:
    """Hidden activations in order: where each is, and what it gives."""
    live, readers = seen.reaches_weights(), seen.readers
    found: list[tuple[At, Value]] = []
    for event in seen.events:
        name = event.key[0]
        if name not in _ACTIVATIONS or event.module is None:
            continue
        module = seen.model.get_submodule(event.module)
        if isinstance(module, (DropoutModule, nn.RNNBase, nn.MultiheadAttention)):
            continue
        value, where = _given_by(seen, event, module)
        if value.number not in live or _is_gate(name, readers.get(value.number, []), value):
            continue
        if all(where != other for other, _ in found):
            found.append((where, value))
    return found


def _given_by(seen: Trace, event: Event, module: nn.Module) -> tuple[Value, At]:
    """The value of an activation and its place: the module's end where the module is nothing else,
    else the call.
    """
    value = event.results[0]
    leaf = not any(
        True for n, _ in module.named_children() if not n.startswith("dropout_")
    ) and all(p.dim() <= 1 for p in module.parameters(recurse=False))
    assert event.module is not None
    if leaf and event.module:
        ends = [
            v
            for v in seen.values[value.number :]
            if event.module in v.outputs_of and v.ancestors >> value.number & 1
        ]
        if ends:
            return ends[0], At("name", event.module)
    return value, At("call", event.module, event.key[0], seen.number_of(event))


def _is_gate(name: str, readers: list[Event], value: Value) -> bool:
    return name in _GATES and any(
        e.key[0] in _MULTIPLIES
        and all(v is not None for v in e.operands)
        and e.operands[0] is not e.operands[1]
        for e in readers
    )


def before_norm(seen: Trace, value: Value) -> bool:
    """Does batch normalisation read this value directly?"""
    return any(event.func in _NORMS and event.given[:1] == [value] for event in seen.events)


def rated(seen: Trace, name: str) -> bool:
    """Is the module a dropout layer?"""
    module = seen.model.get_submodule(name)
    return rate_of(module) is not None and not isinstance(
        module, (nn.RNNBase, nn.MultiheadAttention)
    )


def has_layer(seen: Trace, value: Value) -> str | None:
    """The dropout layer that the value goes through, at once or when it has been pooled or given
    another shape.
    """
    readers = seen.readers
    for one in _onward(value, readers):
        layer = next((name for name in one.taken_by if rated(seen, name)), None)
        if layer is not None:
            return layer
    return None


def gives_layer(seen: Trace, value: Value) -> str | None:
    """The dropout layer that gave the value, at once or before it was pooled or given another
    shape.
    """
    makers = {v.number: e for e in seen.events for v in e.results}
    while True:
        layer = next((name for name in reversed(value.outputs_of) if rated(seen, name)), None)
        event = makers.get(value.number)
        if layer is not None or event is None or not _carries(event):
            return layer
        value = event.given[0]


def functional(seen: Trace, value: Value) -> Event | None:
    """The call of functional dropout that the value goes through, if no layer makes it."""
    readers = seen.readers
    calls = (e for one in _onward(value, readers) for e in readers.get(one.number, []))
    return next(
        (e for e in calls if e.func in DROPOUTS and not (e.module and rated(seen, e.module))), None
    )


def _onward(value: Value, readers: dict[int, list[Event]]) -> Iterator[Value]:
    """The value, and what it becomes by pooling and change of shape alone."""
    yield value
    events = readers.get(value.number, [])
    if len(events) == 1 and _carries(events[0]):
        yield from _onward(events[0].results[0], readers)


def _carries(event: Event) -> bool:
    """Does the call only pool, or change the shape?"""
    name = event.key[0].strip("_")
    return len(event.given) == 1 and (name in _SHAPES or "_pool" in name)


def heads(seen: Trace) -> list[str]:
    """Modules whose weights alone give an output, each once."""
    found: list[str] = []
    for value in seen.results:
        if len(value.last) != 1:
            continue
        event = seen.events[next(iter(value.last))]
        if event.module and event.module not in found and seen.calls[event.module] == 1:
            found.append(event.module)
    return found


def branches(seen: Trace) -> list[Branch]:
    """Residual branches in order: of the two sides of a sum, the one with more layers since both
    were one value.
    """
    found: dict[tuple[str, At], Branch] = {}
    sums: dict[str, int] = {}
    ends: dict[str, int] = {}
    turns: dict[At, int] = {}
    for event in seen.events:
        side = (
            _branch_side(seen, event)
            if event.key[0] in _ADDS and event.module is not None
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
        call = At("call", block, event.key[0], seen.number_of(event), side)
        where = call if module is None else At("name", module)
        turn = turns[call] = turns.get(call, -1) + 1
        layers = tuple(name for name in value.outputs_of if rated(seen, name))
        found.setdefault(
            (block, where), Branch(block, turn, module, where, call, stream, layers=layers)
        )
    whole = [
        b for b in found.values() if b.module is None or sums[b.module] == seen.calls[b.module]
    ]
    own = [tuple(n for n in b.layers if ends[n] == seen.calls[n]) for b in whole]
    return [
        replace(b, times=sums[b.module] if b.module else turns[b.call] + 1, layers=layers)
        for b, layers in zip(whole, own, strict=True)
    ]


def _branch_side(seen: Trace, event: Event) -> int | None:
    """0 or 1: which operand of a sum is a branch that left the other one's path and comes back;
    None: none is.
    """
    a, b = event.operands
    if a is None or b is None or a is b:
        return None
    common = a.ancestors & b.ancestors
    if not common:
        return None
    fork = seen.values[common.bit_length() - 1]
    da, db = a.depth - fork.depth, b.depth - fork.depth
    if da == db or min(da, db) > 1:
        return None
    return 0 if da > db else 1
