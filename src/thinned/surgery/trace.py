"""What flows through a model in one pass: which values come of which, by way of which modules and
functions.
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

from .attribute_rates import awake
from .calls import Way, caller
from .costs import CONVOLUTIONS, RECURRENT
from .observe import line_outside, preserve_state

_WEIGHTED = {F.linear, F.multi_head_attention_forward, F.bilinear} | CONVOLUTIONS | RECURRENT
_PRODUCTS = ("matmul", "addmm", "mm", "bmm", "baddbmm", "einsum", "__matmul__")


@dataclass
class Value:
    """A tensor at one moment; what is changed in place is another value.

    ``depth``: the most layers with weights on a way to it. ``last``: the calls with weights that
    reach it with no others in between. ``ancestors``: the numbers of the values that it comes of,
    as bits, its own among them.
    """

    number: int
    depth: int
    last: frozenset[int]
    ancestors: int
    outputs_of: list[str] = field(default_factory=list)  # modules that gave it, innermost first
    taken_by: list[str] = field(default_factory=list)  # modules that were called on it


@dataclass
class Event:
    """A call of a function: of which module's code, on what, with which result."""

    number: int
    func: Any
    module: str | None
    key: tuple[str, Way]
    given: list[Value]
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
    calls: dict[str, int] = field(
        default_factory=lambda: defaultdict(int)
    )  # how often each module ran
    inputs: list[Tensor] = field(default_factory=list)
    results: list[Value] = field(default_factory=list)
    first: dict[str, Value] = field(
        default_factory=dict
    )  # the first argument of each module's first call
    _now: dict[int, Value] = field(default_factory=dict)
    _alive: list[Tensor] = field(default_factory=list)  # so that no two have one id

    def of(self, tensor: Tensor) -> Value | None:
        """What is known of a tensor."""
        return self._now.get(id(tensor))

    def new(self, tensor: Tensor, given: list[Value], weighted: int | None = None) -> Value:
        """Note a tensor that came of others."""
        number = len(self.values)
        depth = max((v.depth for v in given), default=0) + (weighted is not None)
        last = (
            frozenset((weighted,))
            if weighted is not None
            else frozenset().union(*(v.last for v in given))
        )
        ancestors = 1 << number
        for v in given:
            ancestors |= v.ancestors
        value = Value(number, depth, last, ancestors)
        self.values.append(value)
        self._now[id(tensor)] = value
        self._alive.append(tensor)
        return value

    def reaches_weights(self) -> set[int]:
        """The numbers of the values that a layer with weights reads later."""
        live: set[int] = set()
        for event in reversed(self.events):
            if event.weighted or any(v.number in live for v in event.results):
                live.update(v.number for v in event.given)
        return live

    @cached_property
    def readers(self) -> dict[int, list[Event]]:
        """The calls that read each value; asked for when the pass is over."""
        found: dict[int, list[Event]] = defaultdict(list)
        for event in self.events:
            for v in event.given:
                found[v.number].append(event)
        return found

    def number_of(self, event: Event) -> int:
        """Which of its module's places that call this function it is."""
        keys = [e.key for e in self.events if e.module == event.module and e.key[0] == event.key[0]]
        return list(dict.fromkeys(keys)).index(event.key)


def trace(model: nn.Module, inputs: Any, named: dict[str, Any]) -> Trace:
    """Run the model once in training, observed; it is left as it was."""
    made = Trace(model)
    for tensor in _tensors((inputs, named)):
        made.inputs.append(tensor)
        made.new(tensor, [])
    paths = {id(m): name for name, m in model.named_modules()}
    with preserve_state(model, (inputs, named)), awake(model), ExitStack() as stack:
        model.train()
        for name, module in model.named_modules():
            _hook(stack, made, name, module)
        stack.enter_context(_Flow(made, paths))
        result = model(*inputs, **named)
    made.results = [v for t in _results(result) if (v := made.of(t)) is not None]
    made._alive.clear()
    return made


def _results(result: Any) -> list[Tensor]:
    """The tensors of a result: by itself, in a list, in dicts of dicts, or in the fields of a
    record.
    """
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, Mapping):
        return [t for part in result.values() for t in _results(part)]
    if isinstance(result, (list, tuple)):
        return [t for t in result if isinstance(t, Tensor)]
    return [t for t in getattr(result, "__dict__", {}).values() if isinstance(t, Tensor)]


def _tensors(given: Any) -> list[Tensor]:
    return [t for t in torch.utils._pytree.tree_leaves(given) if isinstance(t, Tensor)]


def _hook(stack: ExitStack, made: Trace, name: str, module: nn.Module) -> None:
    entered: list[list[Value]] = []

    def before(_: Any, args: Any, kwargs: Any) -> None:
        made.calls[name] += 1
        given = [v for t in _tensors((args, kwargs)) if (v := made.of(t)) is not None]
        for v in given:
            v.taken_by.append(name)
        first = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(first, Tensor) and (value := made.of(first)) is not None:
            made.first.setdefault(name, value)
        entered.append(given)

    def after(_: Any, args: Any, kwargs: Any, result: Any) -> None:
        given = entered.pop()
        first = (
            result
            if isinstance(result, Tensor)
            else result[0]
            if isinstance(result, tuple) and result
            else None
        )
        for tensor in _tensors(result):
            value = made.of(tensor)
            if value is None and given:  # of something that no mode sees
                value = made.new(tensor, given)
                value.depth += 1
            if value is not None and tensor is first:
                value.outputs_of.append(name)

    for handle in (
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after, with_kwargs=True),
    ):
        stack.callback(handle.remove)


class _Flow(TorchFunctionMode):
    def __init__(self, made: Trace, paths: dict[int, str]) -> None:
        super().__init__()
        self.made, self.paths = made, paths

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = self.made
        tensors = _tensors((args, kwargs))
        given = [v for t in tensors if (v := made.of(t)) is not None]
        operands = [made.of(a) if isinstance(a, Tensor) else None for a in (*args[:2], None, None)][
            :2
        ]
        result = func(*args, **kwargs)
        new = _tensors(result)
        if given and new and func not in (Tensor.size, Tensor.dim):
            owner, way = caller()
            name = getattr(func, "__name__", "")
            weighted = func in _WEIGHTED or (
                name in _PRODUCTS and any(isinstance(t, nn.Parameter) for t in tensors)
            )
            number = len(made.events)
            results = [made.new(t, given, number if weighted else None) for t in new]
            path = self.paths.get(id(owner))
            made.events.append(
                Event(
                    number,
                    func,
                    path,
                    (name, way),
                    given,
                    operands,
                    results,
                    weighted,
                    line_outside(),
                )
            )
        return result
