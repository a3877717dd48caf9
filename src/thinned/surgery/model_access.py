"""Access to a model without its wrappers, and passes that move no generator and compile nothing."""

from __future__ import annotations

import dataclasses
import random
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError

PARALLEL = (nn.parallel.DistributedDataParallel, nn.DataParallel)


def unwrap_compiled(model: nn.Module) -> nn.Module:
    """Return the model that torch.compile wraps, so that names are those of the model itself."""
    inner = getattr(model, "_orig_mod", model)
    return inner if isinstance(inner, nn.Module) else model


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside the wrappers of torch.compile and of data-parallel training.

    A pass of the inner model does not communicate with other ranks.
    """
    while True:
        inner = model.module if isinstance(model, PARALLEL) else unwrap_compiled(model)
        if inner is model:
            return model
        model = inner


def check_not_scripted(model: nn.Module) -> None:
    """Raise :class:`thinned.InputError` for a scripted model, which hooks cannot observe."""
    if any(isinstance(m, torch.jit.ScriptModule) for m in model.modules()):
        raise InputError(
            "a scripted model cannot be observed; pass the model from which it was scripted"
        )


def tensors_in(value: Any) -> list[Tensor]:
    """Return all tensors in nested containers, mappings, records and attributes of objects.

    Mappings and dataclasses that torch's pytree does not know are searched too.
    """
    found = []
    for leaf in torch.utils._pytree.tree_leaves(value):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif isinstance(leaf, Mapping):
            found += tensors_in(list(leaf.values()))
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, (nn.Module, type)):
            attributes = list(vars(leaf).values())
            # Only dataclasses are searched in depth: any other object may refer back to itself.
            found += (
                tensors_in(attributes)
                if dataclasses.is_dataclass(leaf)
                else [v for v in attributes if isinstance(v, Tensor)]
            )
    return found


@contextmanager
def preserve_generators(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Restore the generators of torch, Python and NumPy on exit; code within may draw from them.

    Of torch, the generators of the CPU and of the devices of ``tensors`` are restored. NumPy is not
    imported for this.
    """
    devices: dict[str, set[int]] = {}
    for tensor in tensors:
        if tensor.device.type not in ("cpu", "meta"):
            devices.setdefault(tensor.device.type, set()).update(
                () if tensor.device.index is None else (tensor.device.index,)
            )
    python_state, numpy = random.getstate(), sys.modules.get("numpy")
    numpy_state = None if numpy is None else numpy.random.get_state()
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=[]))
            for kind, indices in devices.items():
                stack.enter_context(
                    torch.random.fork_rng(devices=sorted(indices), device_type=kind)
                )
            yield
    finally:
        random.setstate(python_state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)


@contextmanager
def preserve_torch_generators(tensors: Iterable[Tensor], seed: int) -> Iterator[None]:
    """Seed torch's generators of the CPU and of the devices of ``tensors``, then restore them."""
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        torch.default_generator.manual_seed(seed)
        for device in {t.device for t in tensors if t.device.type not in ("cpu", "meta")}:
            index = (
                torch.accelerator.current_device_index() if device.index is None else device.index
            )
            stack.enter_context(torch.random.fork_rng(devices=[index], device_type=device.type))
            stack.enter_context(torch.get_device_module(device).device(index))
            torch.get_device_module(device).manual_seed(seed)
        yield


def seed_all(seed: int) -> None:
    """Seed the generators of torch, Python and NumPy."""
    # torch.manual_seed records a traceback for each device that is not yet in use
    torch.default_generator.manual_seed(seed)
    if (
        torch.accelerator.is_available()
        and getattr(torch.get_device_module(), "is_initialized", bool)()
    ):
        torch.manual_seed(seed)
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed % 2**32)


def force_eager(stack: ExitStack) -> None:
    """Run compiled parts as ordinary Python until ``stack`` is left, so that hooks see them."""
    if "torch._dynamo" in sys.modules:
        stack.enter_context(torch.compiler.set_stance("force_eager"))
