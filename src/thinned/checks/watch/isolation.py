"""Run a model that trains, and leave nothing behind."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from ...surgery.model_access import eagerly, generators_kept


def requires_collectives(model: nn.Module) -> str:
    """The name of what makes a forward pass of ``model`` wait for other ranks; "" where nothing
    does.
    """
    for module in model.modules():
        kind = type(module)
        if kind.__name__ == "FullyShardedDataParallel" or any(
            c.__name__ == "FSDPModule" for c in kind.__mro__
        ):
            return "FSDP"
        if isinstance(module, nn.SyncBatchNorm):
            return "SyncBatchNorm"
    return ""


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Within: passes of ``model`` make no gradients; behind it generators, buffers, modes and
    attributes are as before.

    Generators: torch's on all devices of the model, Python's and NumPy's. Buffers are copies while
    it runs, so that also a backward pass that is still to come finds its own. Attributes that a
    pass sets (hidden states, counters of calls) are set back; an object that it changes in place is
    not.
    """
    modules = list(model.modules())
    before = [(m, dict(m.__dict__)) for m in modules]
    try:
        with ExitStack() as stack:
            stack.enter_context(generators_kept(model.parameters()))
            stack.enter_context(torch.no_grad())
            eagerly(stack)
            _set_apart(modules)
            yield
    finally:
        for module, attributes in before:
            if module.__dict__.keys() != attributes.keys() or any(
                module.__dict__[k] is not v for k, v in attributes.items()
            ):
                module.__dict__.clear()
                module.__dict__.update(attributes)


def _set_apart(modules: list[nn.Module]) -> None:
    copies: dict[int, Any] = {}
    for module in modules:
        if module._buffers:
            for buffer in module._buffers.values():
                if buffer is not None and id(buffer) not in copies:
                    copies[id(buffer)] = buffer.detach().clone()
            module.__dict__["_buffers"] = {
                n: None if b is None else copies[id(b)] for n, b in module._buffers.items()
            }
        if "calls" in module.__dict__:  # of a keyed layer
            module.__dict__["calls"] = copy.copy(module.__dict__["calls"])
        if module.__dict__.get("tape") is not None:
            module.__dict__["tape"] = None


@contextmanager
def evaluating(model: nn.Module, but: tuple[nn.Module, ...] = ()) -> Iterator[None]:
    """Within: every module is in evaluation, except ``but``. Set by hand, for some models do more
    in ``eval()``.
    """
    modes = [(m, m.training) for m in model.modules()]
    for module, training in modes:
        module.training = training and module in but
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
