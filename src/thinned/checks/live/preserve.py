"""Everything that a pass may change, put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...nn.module import DropoutModule
from ...surgery.model_access import generators_kept, tensors

_INSIDE = ("_parameters", "_buffers", "_modules")


def floats(given: Any) -> list[Tensor]:
    """The tensors of real numbers among :func:`thinned.surgery.model_access.tensors`."""
    return [t for t in tensors(given) if t.is_floating_point() or t.is_complex()]


def copied(given: Any) -> Any:
    """The same structure with fresh copies of its tensors, for a pass that may write over its
    input.
    """
    return torch.utils._pytree.tree_map(
        lambda t: (
            t.detach().clone().requires_grad_(t.requires_grad) if isinstance(t, Tensor) else t
        ),
        given,
    )


@contextmanager
def preserve_state(model: nn.Module, inputs: Any) -> Iterator[None]:
    """Within, anything may be done; after, the model's tensors, gradients and attributes and all
    generators are as before.
    """
    held = [*model.parameters(), *model.buffers()]
    values = [(t, t.detach().clone(), t.grad) for t in held]
    loose = [
        (t, t.detach().clone())
        for m in model.modules()
        for t in vars(m).values()
        if isinstance(t, Tensor)
    ]
    attributes = [_attributes(m) for m in model.modules()]
    calls = [
        (h.calls, h.calls.count, h.calls.last)
        for h in model.modules()
        if isinstance(h, DropoutModule) and h.owner is not None
    ]
    own = [
        (g, g.get_state())
        for m in model.modules()
        for g in vars(m).values()
        if isinstance(g, torch.Generator)
    ]
    try:
        with generators_kept([*held, *tensors(inputs)]):
            yield
    finally:
        for generator, state in own:
            generator.set_state(state)
        for module, was, inside in attributes:
            _put_back(module, was, inside)
        with torch.no_grad():
            for tensor, value, grad in values:
                _write(tensor, value)
                tensor.grad = grad
            for tensor, value in loose:
                _write(tensor, value)
        for counter, count, last in calls:
            counter.count, counter.last = count, last


def _attributes(module: nn.Module) -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
    was = dict(vars(module))
    return (
        module,
        was,
        {n: v.copy() for n, v in was.items() if n in _INSIDE or type(v) in (list, dict, set)},
    )


def _put_back(module: nn.Module, was: dict[str, Any], inside: dict[str, Any]) -> None:
    vars(module).clear()
    vars(module).update(was)
    for name, content in inside.items():
        container = vars(module)[name]
        container.clear()
        container.extend(content) if isinstance(container, list) else container.update(content)


def _write(tensor: Tensor, value: Tensor) -> None:
    if tensor.shape != value.shape:
        tensor.data = value
    elif not same(tensor, value):
        tensor.copy_(value)


def same(one: Tensor, other: Tensor) -> bool:
    """Are two tensors equal, NaN where the other is NaN?"""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    one, other = one.detach(), other.detach()
    return torch.equal(one, other) or bool(
        ((one == other) | ((one != one) & (other != other))).all()
    )
