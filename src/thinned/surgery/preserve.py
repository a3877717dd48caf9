"""Restoring everything that a pass may change: parameters, attributes, inputs, and generators."""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..nn.module import DropoutModule
from .model_access import preserve_generators, tensors_in
from .tensor_values import write_tensor

Restore = Callable[[], None]


@contextmanager
def restoring(model: nn.Module, inputs: Any, parameters: bool = True) -> Iterator[None]:
    """Restore ``model``, the tensors of ``inputs`` and all generators on exit.

    Of the model these are parameters and buffers, their gradients and ``requires_grad``, hooks,
    attributes, the content of lists, dicts and objects that attributes hold, and generators of its
    own. An interrupt that comes while it restores is raised when everything is restored.
    ``parameters``: whether their values are restored too, which takes a copy of them.
    """
    tensors = [*model.parameters(), *model.buffers(), *tensors_in(inputs)]
    snapshot = _Snapshot(lambda tensor: parameters or not isinstance(tensor, nn.Parameter))
    for module in model.modules():
        snapshot.add_attributes(module)
        if isinstance(module, DropoutModule) and module.model_key is not None:
            snapshot.add_attributes(module.calls)
    for tensor in tensors:
        snapshot.add(tensor)
    try:
        with preserve_generators(tensors):
            yield
    finally:
        snapshot.restore()


@contextmanager
def restoring_attributes(*modules: nn.Module) -> Iterator[None]:
    """Restore the attributes of ``modules`` themselves on exit, hooks and modes too, the content of
    containers and objects in them, and their generators.

    Values of tensors are not restored. An interrupt that comes while it restores is raised when
    everything is restored.
    """
    snapshot = _Snapshot(lambda tensor: False)
    for module in modules:
        snapshot.add_attributes(module)
    try:
        yield
    finally:
        snapshot.restore()


class _Snapshot:
    """What was found, as functions that restore it."""

    def __init__(self, restores_values: Callable[[Tensor], bool]) -> None:
        self.restores_values = restores_values
        self.restores: list[Restore] = []
        self.visited: dict[int, Any] = {}  # holds the objects, so that no id is used twice

    def restore(self) -> None:
        """Restore all; an interrupt starts it again, and is raised at the end."""
        interrupt: KeyboardInterrupt | None = None
        while True:
            try:
                with torch.no_grad():
                    for restore in self.restores:
                        restore()
                break
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt

    def add_attributes(self, holder: Any) -> None:
        """Add the attributes of an object, and what they hold."""
        if id(holder) in self.visited or not hasattr(holder, "__dict__"):
            return
        self.visited[id(holder)] = holder
        self.add(vars(holder), objects=not isinstance(holder, nn.Module))

    def add(self, value: Any, objects: bool = False) -> None:
        """Add a tensor, a generator or a container with its content.

        ``objects``: the value is in an object already; objects within it are not searched.
        """
        if id(value) in self.visited:
            return
        if isinstance(value, Tensor) and (is_lazy(value) or not self.restores_values(value)):
            return
        restore = _restore_of(value)
        if restore is not None:
            self.visited[id(value)] = value
            self.restores.append(restore)
        if isinstance(value, (dict, list, tuple, deque)):
            self.visited[id(value)] = value
            for item in list(value.values() if isinstance(value, dict) else value):
                self.add(item, objects)
        elif not (restore or objects or callable(value)):  # modules and types are callable
            self.add_attributes(value)


def _restore_of(value: Any) -> Restore | None:
    """Return a function that gives ``value`` its present content; None for other objects."""
    if isinstance(value, Tensor):
        return _restore_tensor(value)
    if isinstance(value, dict):
        return _restore_dict(value)
    if isinstance(value, (list, deque)):
        return _restore_sequence(value)
    if isinstance(value, set):
        return _restore_set(value)
    if isinstance(value, torch.Generator):
        return _restore_generator(value)
    if isinstance(value, random.Random):
        python_state = value.getstate()
        return lambda: value.setstate(python_state)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.random.Generator):
        return _restore_numpy(value.bit_generator)
    if numpy is not None and isinstance(value, numpy.random.RandomState):
        legacy_state = value.get_state()
        return lambda: value.set_state(legacy_state)
    return None


def _restore_generator(generator: torch.Generator) -> Restore:
    state = generator.get_state()

    def restore() -> None:
        generator.set_state(state)

    return restore


def _restore_numpy(bits: Any) -> Restore:
    state = bits.state

    def restore() -> None:
        bits.state = state

    return restore


def _restore_tensor(tensor: Tensor) -> Restore:
    values, leaf = tensor.detach().clone(), tensor.is_leaf
    grad, needs_grad = tensor.grad if leaf else None, tensor.requires_grad
    grad_values = None if grad is None else grad.detach().clone()

    def restore() -> None:
        write_tensor(tensor, values)
        if leaf and tensor.is_leaf:
            if tensor.requires_grad != needs_grad:
                tensor.requires_grad_(needs_grad)
            if grad is not None and grad_values is not None:
                write_tensor(grad, grad_values)
            if tensor.grad is not grad:
                tensor.grad = grad

    return restore


def _restore_dict(found: dict[Any, Any]) -> Restore:
    content = dict(found)

    def restore() -> None:
        # written first, deleted after: an interrupt in between leaves nothing missing
        found.update(content)
        for key in [k for k in found if k not in content]:
            del found[key]
        if list(found) != list(content):
            for key, value in content.items():
                del found[key]
                found[key] = value

    return restore


def _restore_sequence(found: Any) -> Restore:
    content = list(found)

    def restore() -> None:
        if isinstance(found, list):
            found[:] = content
        elif list(map(id, found)) != list(map(id, content)):
            found.clear()
            found.extend(content)

    return restore


def _restore_set(found: set[Any]) -> Restore:
    content = set(found)

    def restore() -> None:
        found.update(content)
        found.intersection_update(content)

    return restore
