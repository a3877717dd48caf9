"""What passes over a model leave as it was, and how a model is seen that something wraps."""

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


def plain(model: nn.Module) -> nn.Module:
    """The model that torch.compile wraps, so that names are those of the model itself."""
    inner = getattr(model, "_orig_mod", model)
    return inner if isinstance(inner, nn.Module) else model


def unwrapped(model: nn.Module) -> nn.Module:
    """The model within torch.compile's and DDP's wrappers, whose passes speak to no other rank."""
    while (inner := model.module if isinstance(model, PARALLEL) else plain(model)) is not model:
        model = inner
    return model


def not_scripted(model: nn.Module) -> None:
    """Raise :class:`thinned.InputError` for a model whose passes no hook and no mode sees."""
    if any(isinstance(m, torch.jit.ScriptModule) for m in model.modules()):
        raise InputError(
            "a scripted model cannot be observed; pass the model that it was made from"
        )


def tensors(given: Any) -> list[Tensor]:
    """All tensors in nested containers, in mappings and records that torch knows nothing of, and in
    objects' attributes.
    """
    found = []
    for leaf in torch.utils._pytree.tree_leaves(given):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif isinstance(leaf, Mapping):
            found += tensors(list(leaf.values()))
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, (nn.Module, type)):
            held = list(vars(leaf).values())
            found += (
                tensors(held)
                if dataclasses.is_dataclass(leaf)
                else [v for v in held if isinstance(v, Tensor)]
            )
    return found


@contextmanager
def generators_kept(near: Iterable[Tensor]) -> Iterator[None]:
    """Within, anybody may draw; after, the generators of torch, of Python and of NumPy are as
    before.

    torch's are those of the CPU and of the devices where the tensors ``near`` are. NumPy is not
    loaded for it.
    """
    devices: dict[str, set[int]] = {}
    for tensor in near:
        if tensor.device.type not in ("cpu", "meta"):
            devices.setdefault(tensor.device.type, set()).update(
                () if tensor.device.index is None else (tensor.device.index,)
            )
    python, numpy = random.getstate(), sys.modules.get("numpy")
    theirs = None if numpy is None else numpy.random.get_state()
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=[]))
            for kind, indices in devices.items():
                stack.enter_context(
                    torch.random.fork_rng(devices=sorted(indices), device_type=kind)
                )
            yield
    finally:
        random.setstate(python)
        if numpy is not None:
            numpy.random.set_state(theirs)


def seed_all(seed: int) -> None:
    """Put the generators of torch, Python and NumPy where ``seed`` says."""
    torch.default_generator.manual_seed(
        seed
    )  # torch.manual_seed writes a traceback for each device not yet in use
    if (
        torch.accelerator.is_available()
        and getattr(torch.get_device_module(), "is_initialized", bool)()
    ):
        torch.manual_seed(seed)
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed % 2**32)


def eagerly(stack: ExitStack) -> None:
    """Until ``stack`` is left, compiled parts run as they were written, so that they can be seen."""
    if "torch._dynamo" in sys.modules:
        stack.enter_context(torch.compiler.set_stance("force_eager"))
