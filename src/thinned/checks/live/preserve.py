"""Restore everything that a pass may change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...nn.module import DropoutModule
from ...surgery.model_access import preserve_generators, tensors_in
from ...surgery.tensor_values import write_tensor

_CONTAINERS = ("_parameters", "_buffers", "_modules")


def float_tensors(value: Any) -> list[Tensor]:
    """The floating-point and complex tensors in nested containers."""
    return [t for t in tensors_in(value) if t.is_floating_point() or t.is_complex()]


def copy_tensors(value: Any) -> Any:
    """The same structure with copies of its tensors, for a pass that may overwrite its input."""
    return torch.utils._pytree.tree_map(
        lambda t: (
            t.detach().clone().requires_grad_(t.requires_grad) if isinstance(t, Tensor) else t
        ),
        value,
    )


@contextmanager
def preserve_state(model: nn.Module, inputs: Any) -> Iterator[None]:
    """Restore parameters, buffers, gradients, attributes and generators of ``model`` on exit."""
    tensors = [*model.parameters(), *model.buffers()]
    values = [(t, t.detach().clone(), t.grad) for t in tensors]
    attribute_tensors = [
        (t, t.detach().clone())
        for m in model.modules()
        for t in vars(m).values()
        if isinstance(t, Tensor)
    ]
    attributes = [_attributes(m) for m in model.modules()]
    calls = [
        (m.calls, m.calls.count, m.calls.last)
        for m in model.modules()
        if isinstance(m, DropoutModule) and m.model_key is not None
    ]
    own_generators = [
        (g, g.get_state())
        for m in model.modules()
        for g in vars(m).values()
        if isinstance(g, torch.Generator)
    ]
    try:
        with preserve_generators([*tensors, *tensors_in(inputs)]):
            yield
    finally:
        for generator, state in own_generators:
            generator.set_state(state)
        for module, before, contents in attributes:
            _restore_attributes(module, before, contents)
        with torch.no_grad():
            for tensor, value, grad in values:
                write_tensor(tensor, value)
                tensor.grad = grad
            for tensor, value in attribute_tensors:
                write_tensor(tensor, value)
        for counter, count, last in calls:
            counter.count, counter.last = count, last


def _attributes(module: nn.Module) -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
    before = dict(vars(module))
    contents = {
        n: v.copy() for n, v in before.items() if n in _CONTAINERS or type(v) in (list, dict, set)
    }
    return module, before, contents


def _restore_attributes(
    module: nn.Module, before: dict[str, Any], contents: dict[str, Any]
) -> None:
    vars(module).clear()
    vars(module).update(before)
    for name, content in contents.items():
        container = vars(module)[name]
        container.clear()
        container.extend(content) if isinstance(container, list) else container.update(content)
