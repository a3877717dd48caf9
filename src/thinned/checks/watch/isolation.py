"""Run a model during its training without changing it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from ...surgery.model_access import force_eager, preserve_generators
from ...surgery.preserve import restoring_attributes


def requires_collectives(model: nn.Module) -> str:
    """What makes a forward pass of ``model`` wait for other ranks ("FSDP", ...), or ""."""
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
def preserve_state(model: nn.Module) -> Iterator[None]:
    """Restore generators, buffers, modes and attributes of ``model`` on exit; no gradients within.

    Generators are those of torch on all devices of the model, of Python and of NumPy. Within,
    buffers are copies, so that a backward pass that comes later finds the originals unchanged.
    Attributes that a pass sets (hidden states, call counters) are restored, and so are hooks and
    the content of lists, dicts and objects in attributes; a tensor that a pass changes in place is
    not, unless it is a buffer.
    """
    modules = list(model.modules())
    with ExitStack() as stack:
        stack.enter_context(restoring_attributes(*modules))
        stack.enter_context(preserve_generators(model.parameters()))
        stack.enter_context(torch.no_grad())
        force_eager(stack)
        _copy_buffers(modules)
        yield


def _copy_buffers(modules: list[nn.Module]) -> None:
    copies: dict[int, Any] = {}
    for module in modules:
        if module._buffers:
            for buffer in module._buffers.values():
                if buffer is not None and id(buffer) not in copies:
                    copies[id(buffer)] = buffer.detach().clone()
            module.__dict__["_buffers"] = {
                n: None if b is None else copies[id(b)] for n, b in module._buffers.items()
            }
        if "calls" in module.__dict__:  # a keyed layer counts its calls
            module.__dict__["calls"] = copy.copy(module.__dict__["calls"])
        if module.__dict__.get("tape") is not None:
            module.__dict__["tape"] = None


@contextmanager
def evaluation_mode(model: nn.Module, exceptions: tuple[nn.Module, ...] = ()) -> Iterator[None]:
    """Put every module in evaluation mode except those in ``exceptions``, which keep theirs.

    The flag is set directly, because some models do more in ``eval()``.
    """
    modes = [(m, m.training) for m in model.modules()]
    for module, training in modes:
        module.training = training and module in exceptions
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
