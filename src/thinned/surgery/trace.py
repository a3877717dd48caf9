"""The data flow of a model in one pass: which values are computed from which, by which functions
and modules.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .attribute_rates import run_all_layers
from .calls import CallSite, find_caller
from .costs import CONVOLUTIONS, RECURRENT
from .model_call import Forward, ModelCall, tensors_within
from .observe import line_outside, preserve_state

_WEIGHTED = {F.linear, F.multi_head_attention_forward, F.bilinear} | CONVOLUTIONS | RECURRENT
_PRODUCTS = ("matmul", "addmm", "mm", "bmm", "baddbmm", "einsum", "__matmul__")


@dataclass
class Value:
    """A tensor at one moment of the pass; a tensor that is changed in place is a new value.

    ``depth``: the largest number of layers with weights on a path to it. ``last_weighted``: the
    numbers of the calls with weights from which a path without other weights leads to it.
    ``ancestors``: the numbers of the values from which it is computed, and its own, as the bits of
    an integer, so that a set of thousands of ancestors costs one machine word per 64.
    """

    number: int
    depth: int
    last_weighted: frozenset[int]
    ancestors: int
    outputs_of: list[str] = field(default_factory=list)  # modules that returned it, innermost first
    inputs_of: list[str] = field(default_factory=list)  # modules that were called with it


@dataclass(kw_only=True)
class Event:
    """One call of a function in the code of a module, with its inputs and results."""

    number: int
    func: Any
    module: str | None
    site: CallSite
    inputs: list[Value]
    operands: list[Value | None]  # the values of the first two arguments
    results: list[Value]
    weighted: bool
    where: str


@dataclass
class Trace:
    """One training pass of a model."""

    model: nn.Module
    events: list[Event] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    # how often each module ran
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    inputs: list[Tensor] = field(default_factory=list)
    results: list[Value] = field(default_factory=list)
    # the first argument of the first call of each module
    first_inputs: dict[str, Value] = field(default_factory=dict)
    _current: dict[int, Value] = field(default_factory=dict)  # by the id of the tensor
    _alive: list[Tensor] = field(default_factory=list)  # so that no id is used twice

    def value_of(self, tensor: Tensor) -> Value | None:
        """Return the present value of a tensor, None for one that was not traced."""
        return self._current.get(id(tensor))

    def add(self, tensor: Tensor, inputs: list[Value], weighted: int | None = None) -> Value:
        """Add the value of a tensor that was computed from ``inputs``.

        ``weighted``: the number of the call that computed it, if that has weights.
        """
        number = len(self.values)
        depth = max((v.depth for v in inputs), default=0) + (weighted is not None)
        last_weighted = (
            frozenset((weighted,))
            if weighted is not None
            else frozenset().union(*(v.last_weighted for v in inputs))
        )
        ancestors = 1 << number
        for v in inputs:
            ancestors |= v.ancestors
        value = Value(number, depth, last_weighted, ancestors)
        self.values.append(value)
        self._current[id(tensor)] = value
        self._alive.append(tensor)
        return value

    def reaches_weights(self) -> set[int]:
        """Return the numbers of the values that a layer with weights reads later."""
        live: set[int] = set()
        for event in reversed(self.events):
            if event.weighted or any(v.number in live for v in event.results):
                live.update(v.number for v in event.inputs)
        return live

    @cached_property
    def readers(self) -> dict[int, list[Event]]:
        """The calls that read each value, by its number; complete only when the pass is over."""
        found: dict[int, list[Event]] = defaultdict(list)
        for event in self.events:
            for v in event.inputs:
                found[v.number].append(event)
        return found

    def number_of(self, event: Event) -> int:
        """Return the index of the call among the sites of its module that call this function."""
        sites = [
            e.site for e in self.events if e.module == event.module and e.site[0] == event.site[0]
        ]
        return list(dict.fromkeys(sites)).index(event.site)


def trace_model(
    model: nn.Module, inputs: Any, named: dict[str, Any], forward: Forward | None = None
) -> Trace:
    """Run the model once in training and return its data flow; the model is left as it was."""
    trace, call = Trace(model), ModelCall(model, inputs, named, forward)
    copied = call.copied()
    for tensor in tensors_within(copied):
        trace.inputs.append(tensor)
        trace.add(tensor, [])
    paths = {id(m): name for name, m in model.named_modules()}
    with preserve_state(model, (inputs, named)), run_all_layers(model), ExitStack() as stack:
        model.train()
        for name, module in model.named_modules():
            _register_hooks(stack, trace, name, module)
        stack.enter_context(_FunctionTracer(trace, paths))
        result = call(model, copied)
    trace.results = [v for t in _results(result) if (v := trace.value_of(t)) is not None]
    trace._alive.clear()
    return trace


def _results(result: Any) -> list[Tensor]:
    """Return the tensors of a result: itself, or those of a list, of nested dicts, or of the fields
    of a record.
    """
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, Mapping):
        return [t for part in result.values() for t in _results(part)]
    if isinstance(result, (list, tuple)):
        return [t for t in result if isinstance(t, Tensor)]
    return [t for t in getattr(result, "__dict__", {}).values() if isinstance(t, Tensor)]


def _tensors(value: Any) -> list[Tensor]:
    return [t for t in torch.utils._pytree.tree_leaves(value) if isinstance(t, Tensor)]


def _register_hooks(stack: ExitStack, trace: Trace, name: str, module: nn.Module) -> None:
    """Record which values the module reads and returns, until ``stack`` is left."""
    entered: list[list[Value]] = []

    def before(_: Any, args: Any, kwargs: Any) -> None:
        trace.calls[name] += 1
        inputs = [v for t in _tensors((args, kwargs)) if (v := trace.value_of(t)) is not None]
        for v in inputs:
            v.inputs_of.append(name)
        first = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(first, Tensor) and (value := trace.value_of(first)) is not None:
            trace.first_inputs.setdefault(name, value)
        entered.append(inputs)

    def after(_: Any, args: Any, kwargs: Any, result: Any) -> None:
        inputs = entered.pop()
        first = (
            result
            if isinstance(result, Tensor)
            else result[0]
            if isinstance(result, tuple) and result
            else None
        )
        for tensor in _tensors(result):
            value = trace.value_of(tensor)
            if value is None and inputs:
                # Something computed it that no function mode sees, such as a custom kernel. The
                # module then counts as one layer of depth.
                value = trace.add(tensor, inputs)
                value.depth += 1
            if value is not None and tensor is first:
                value.outputs_of.append(name)

    for handle in (
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after, with_kwargs=True),
    ):
        stack.callback(handle.remove)


class _FunctionTracer(TorchFunctionMode):
    """Adds an event for every torch function that computes traced values from traced values."""

    def __init__(self, trace: Trace, paths: dict[int, str]) -> None:
        super().__init__()
        self.trace, self.paths = trace, paths

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        trace = self.trace
        tensors = _tensors((args, kwargs))
        # Values and operands are read before the call, which may write its result in place.
        inputs = [v for t in tensors if (v := trace.value_of(t)) is not None]
        operands = [
            trace.value_of(a) if isinstance(a, Tensor) else None for a in (*args[:2], None, None)
        ][:2]
        result = func(*args, **kwargs)
        new = _tensors(result)
        if inputs and new and func not in (Tensor.size, Tensor.dim):
            module, call_path = find_caller()
            name = getattr(func, "__name__", "")
            weighted = func in _WEIGHTED or (
                name in _PRODUCTS and any(isinstance(t, nn.Parameter) for t in tensors)
            )
            number = len(trace.events)
            results = [trace.add(t, inputs, number if weighted else None) for t in new]
            trace.events.append(
                Event(
                    number=number,
                    func=func,
                    module=self.paths.get(id(module)),
                    site=(name, call_path),
                    inputs=inputs,
                    operands=operands,
                    results=results,
                    weighted=weighted,
                    where=line_outside(),
                )
            )
        return result
