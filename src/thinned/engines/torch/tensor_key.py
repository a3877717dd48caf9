"""The random key as tensors.

Operators take it as an input, so that compiled graphs do not capture one key.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..._errors import InputError
from ...algebra.key import Key

_SIGN = 1 << 63
_ONE = (1,)


class TensorKey(NamedTuple):
    """A :class:`thinned.Key` as tensors, the form that layers and compiled graphs use.

    Layers return it, and every ``key`` argument of :mod:`thinned.functional` takes it.

    Args:
        seed_step: int64 [1], the seed, or [2], the seed and the step.
        sample_ids: int64 [n], the sample id of each example; or [2, n], their ids and their steps.
            None numbers the examples 0, 1, 2 and so on.
        stream: The stream of the layer, as a signed 64-bit number.
        call: How many times the layer was called before in this step.

    Example:
        >>> TensorKey(torch.tensor([7, 2])).seed_step  # the seed 7 and the step 2
        tensor([7, 2])
    """

    seed_step: Tensor
    sample_ids: Tensor | None = None
    stream: int = 0
    call: int = 0


def to_int64(value: int) -> int:
    """Return a 64-bit number as the signed one that torch stores."""
    return (value & (2 * _SIGN - 1) ^ _SIGN) - _SIGN


def random_key(generator: torch.Generator | None = None) -> TensorKey:
    """Return a key with a seed of 64 bits from ``generator``, without reading them.

    The default is the global generator of torch for the CPU. ``torch.manual_seed``, ``fork_rng``
    and activation checkpointing therefore treat these masks like those of torch.
    """
    if generator is None:
        return TensorKey(torch.randint(-_SIGN, _SIGN - 1, _ONE, device="cpu"))
    return TensorKey(
        torch.randint(-_SIGN, _SIGN - 1, _ONE, generator=generator, device=generator.device)
    )


def from_key(key: Key) -> TensorKey:
    """Return a key as tensors."""
    ids = None if key.samples is None else int64_vector("samples", key.samples)
    if isinstance(key.step, int):
        return TensorKey(
            torch.tensor([to_int64(key.seed), key.step], device="cpu"),
            ids,
            to_int64(key.stream),
            key.call,
        )
    steps = int64_vector("step", key.step)
    ids = torch.arange(len(steps), device=steps.device) if ids is None else ids.to(steps.device)
    if len(ids) != len(steps):
        raise InputError(
            f"step and samples have to be of one length, but got {len(steps)} and {len(ids)}"
        )
    return TensorKey(
        torch.tensor([to_int64(key.seed)], device="cpu"),
        torch.stack((ids, steps)),
        to_int64(key.stream),
        key.call,
    )


def int64_vector(name: str, values: Any) -> Tensor:
    """Return ``values`` as a 1-d int64 tensor, or raise :class:`thinned.InputError`."""
    tensor = torch.as_tensor(values)
    if (
        tensor.dim() != 1
        or tensor.is_floating_point()
        or tensor.is_complex()
        or tensor.dtype == torch.bool
    ):
        raise InputError(
            f"{name} has to be a 1-d tensor of integers, but got {tensor.dtype} "
            f"{list(tensor.shape)}"
        )
    return tensor.to(torch.int64).contiguous()


def to_key(tensor_key: TensorKey) -> Key:
    """Return the key of tensors, reading their values: the inverse of :func:`from_key`."""
    seed, *step = tensor_key.seed_step.tolist()
    now = step[0] if step else 0
    ids, steps = (
        (tensor_key.sample_ids, now)
        if tensor_key.sample_ids is None or tensor_key.sample_ids.dim() == 1
        else (tensor_key.sample_ids[0], tensor_key.sample_ids[1])
    )
    return Key(seed, tensor_key.stream, tensor_key.call, steps, ids)
