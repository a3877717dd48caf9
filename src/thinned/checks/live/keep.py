"""Everything that a pass may change, put back."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...nn.host import Host

_INSIDE = ("_parameters", "_buffers", "_modules")


def tensors(given: Any) -> list[Tensor]:
    """All tensors in nested containers, and in objects that hold some as attributes."""
    found = []
    for leaf in torch.utils._pytree.tree_leaves(given):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, (nn.Module, type)):
            found += [v for v in vars(leaf).values() if isinstance(v, Tensor)]
    return found


def floats(given: Any) -> list[Tensor]:
    """The tensors of real numbers among :func:`tensors`."""
    return [t for t in tensors(given) if t.is_floating_point() or t.is_complex()]


def copied(given: Any) -> Any:
    """The same structure with fresh copies of its tensors, for a pass that may write over its input."""
    return torch.utils._pytree.tree_map(
        lambda t: t.detach().clone().requires_grad_(t.requires_grad) if isinstance(t, Tensor) else t, given
    )


@contextmanager
def left_as_it_was(model: nn.Module, inputs: Any) -> Iterator[None]:
    """Within, anything may be done; after, the model's tensors, gradients and attributes and all generators are as before."""
    held = [*model.parameters(), *model.buffers()]
    values = [(t, t.detach().clone(), t.grad) for t in held]
    loose = [(t, t.detach().clone()) for m in model.modules() for t in vars(m).values() if isinstance(t, Tensor)]
    attributes = [_attributes(m) for m in model.modules()]
    calls = [(h.calls, h.calls.count, h.calls.last) for h in model.modules() if isinstance(h, Host) and h.owner is not None]
    own = [(g, g.get_state()) for m in model.modules() for g in vars(m).values() if isinstance(g, torch.Generator)]
    numpy = sys.modules.get("numpy")
    theirs = numpy.random.get_state() if numpy is not None else None
    python = random.getstate()
    try:
        with ExitStack() as stack:
            _fork(stack, [*held, *tensors(inputs)])
            yield
    finally:
        random.setstate(python)
        if numpy is not None:
            numpy.random.set_state(theirs)
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


def _fork(stack: ExitStack, held: list[Tensor]) -> None:
    stack.enter_context(torch.random.fork_rng(devices=[]))
    for kind in {t.device.type for t in held} - {"cpu", "meta"}:
        indices = sorted({t.device.index for t in held if t.device.type == kind and t.device.index is not None})
        stack.enter_context(torch.random.fork_rng(devices=indices, device_type=kind))


def _attributes(module: nn.Module) -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
    was = dict(vars(module))
    return module, was, {n: v.copy() for n, v in was.items() if n in _INSIDE or type(v) in (list, dict, set)}


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
    return torch.equal(one, other) or bool(((one == other) | ((one != one) & (other != other))).all())


def seed_all(seed: int) -> None:
    """Put the generators of torch, Python and NumPy where ``seed`` says."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed writes a traceback for each device not yet in use
    if torch.accelerator.is_available() and getattr(torch.get_device_module(), "is_initialized", bool)():
        torch.manual_seed(seed)
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed % 2**32)
